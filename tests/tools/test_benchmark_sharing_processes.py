"""The benchmarks' processes: which runs when, what ends with what, a folder that is in use."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tasks import pose
from tools.benchmarks.common.trainings import Training, train_all

ROOT = Path(__file__).resolve().parents[2]


@dataclass(eq=False)
class Touch:
    """A process that makes a file, as soon as others are there, or fails."""

    folder: Path
    name: str
    needs: tuple[str, ...] = ()
    fails: bool = False
    cost: float = 1.0
    started: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def ready(self) -> bool:
        return all((self.folder / name).exists() for name in self.needs)

    def result(self) -> Any | None:
        return True if (self.folder / self.name).exists() else None

    def start(self, *, one_thread: bool) -> subprocess.Popen[bytes]:
        self.started.append(self.name)
        self.log.touch()
        return subprocess.Popen(["false"] if self.fails else ["touch", str(self.folder / self.name)])


def test_what_is_ready_runs_first_and_what_cannot_be_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    ended: list[Touch] = []
    specs: list[tuple[str, tuple[str, ...], bool]] = [
        *(("last", ("second",), False), ("first", (), False), ("second", ("first",), False)),
        *(("bad", (), True), ("after bad", ("bad",), False), ("after that", ("after bad",), False)),
    ]
    jobs = [Touch(tmp_path, name, needs, fails, started=order) for name, needs, fails in specs]
    failed = train_all(jobs, 1, what="files", ended=ended.append)
    assert order == ["first", "second", "last", "bad"]
    assert [job.name for job in failed] == ["bad", "after bad", "after that"]
    assert [job.name for job in ended] == order
    assert "LEFT OUT 5 of 6: after bad: what it needs has failed" in capsys.readouterr().out
    assert train_all(jobs[:3], 2, what="files") == []
    assert "3 of 3 files are finished already" in capsys.readouterr().out


def test_a_failed_measurement_stops_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    jobs = [Touch(tmp_path, name, fails=name == "bad", started=order) for name in ("first", "bad", "last")]
    failed = train_all(jobs, 1, what="files", decisive=lambda job: job.name != "first")
    assert order == ["first", "bad"]
    assert [job.name for job in failed] == ["bad"]
    assert "STOPPED after bad: 1 of 3 files are left undone" in capsys.readouterr().out
    order.clear()
    assert [job.name for job in train_all(jobs, 2, what="files")] == ["bad"]
    assert order == ["bad", "last"]


def test_a_process_that_is_started_ends_with_its_parent(tmp_path: Path) -> None:
    show = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    start = f"trainings.start([sys.executable, '-c', {show!r}], Path({str(tmp_path / 'log')!r}), one_thread=True)"
    imports = "import sys, time; from pathlib import Path; from tools.benchmarks.common import trainings"
    parent = subprocess.Popen([sys.executable, "-c", f"{imports}; {start}; time.sleep(60)"], cwd=ROOT)
    wait_until(lambda: (tmp_path / "log").is_file() and (tmp_path / "log").read_text().endswith("\n"))
    child = int((tmp_path / "log").read_text())
    parent.kill()
    parent.wait()
    wait_until(lambda: has_ended(child))


def has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_folder_in_use_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = dataclasses.replace(pose.Config(), train=dataclasses.replace(pose.Config().train, out=tmp_path / "run"))
    training = Training("pose", config, 1, 1.0, program=("-c", ""))
    (tmp_path / "run").mkdir()
    handle = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    threading.Timer(0.5, os.close, [handle]).start()
    begin = time.monotonic()
    assert training.start(one_thread=True).wait() == 0
    assert time.monotonic() - begin >= 0.5
    text = capsys.readouterr().out
    assert text.count("another process still trains in") == 1
    assert training.start(one_thread=True).wait() == 0  # free: nothing to say
    assert "another process" not in capsys.readouterr().out
