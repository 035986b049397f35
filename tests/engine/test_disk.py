"""A full disk, a folder that is read-only or gone, a worker that is lost: one line, and nothing that was there is lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from helpers.full_disk import no_file_larger_than, no_room_for
from runs import assert_same_end, at
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy import PER_EPOCH, Toy, config

from rpgmt import cli
from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.engine.events import Events
from rpgmt.engine.loop import fit
from rpgmt.engine.record import Table
from rpgmt.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(Toy(), config(tmp_path_factory.mktemp("whole") / "run", ema=0.9, epochs=2))


@pytest.mark.parametrize(
    "name",
    ["checkpoints/last.ckpt", "checkpoints/best.ckpt", "best.safetensors", "model.safetensors", "metrics.json", "curves.png"],
)
def test_where_a_file_has_no_room_the_run_goes_on_when_there_is(tmp_path: Path, whole: Path, name: str) -> None:
    out, task = tmp_path / "run", Toy()
    task.hook = at(PER_EPOCH, lambda: no_room_for(out / name))  # after the first epoch's files
    with pytest.raises(
        UserError, match=f"{name} cannot be written: No space left on device: make room and try again"
    ) as caught:
        fit(task, config(out, ema=0.9, epochs=2))
    assert "\n" not in str(caught.value)
    assert load_checkpoint(out / "checkpoints/last.ckpt")["loader"]["epoch"] >= 1
    assert load_checkpoint(out / "checkpoints/best.ckpt")
    fit(Toy(), config(out, ema=0.9, epochs=2, resume=True))
    assert_same_end(out, whole)
    assert {path.name for path in out.iterdir()} >= {"curves.png", "report.html", "model.safetensors"}
    assert not [path for path in out.rglob("*") if ".part" in path.name]


def test_no_room_at_all_leaves_no_folder(tmp_path: Path) -> None:
    with no_file_larger_than(0), pytest.raises(UserError, match=r"config\.yaml cannot be written: File too large"):
        fit(Toy(), config(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_logs_without_room_are_one_line(tmp_path: Path) -> None:
    table = Table(tmp_path / "metrics.csv", 0)
    table.add({"step": 1, "a": 0.5})
    size = (tmp_path / "metrics.csv").stat().st_size
    with no_file_larger_than(size + 3), pytest.raises(UserError, match=r"metrics\.csv cannot be written: File too large"):
        table.add({"step": 2, "a": 0.123456789})
    with pytest.raises(UserError), no_file_larger_than(size):
        table.add({"step": 2, "b": 1.0})  # a new column, for which the file is written anew
    assert Table(tmp_path / "metrics.csv", 9).path.read_text() == "step,a\n1,0.5\n"  # without what was cut off
    (tmp_path / "events").mkdir()
    events = Events(tmp_path / "events", 1)
    events.add({"loss": 1.0}, 1)
    (path,) = (tmp_path / "events").iterdir()
    with no_file_larger_than(path.stat().st_size + 9), pytest.raises(UserError, match=r"events\S+ cannot be written: File too"):
        events.add({"loss": 2.0}, 2)
    with no_file_larger_than(path.stat().st_size), pytest.raises(UserError, match="File too large"):
        events.close()
    found = EventAccumulator(str(path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in found] == [(1, 1.0)]


def test_a_folder_that_is_gone_stays_gone(tmp_path: Path) -> None:
    out, task = tmp_path / "run", Toy()
    task.hook = at(PER_EPOCH - 1, lambda: shutil.rmtree(out))
    with pytest.raises(UserError, match="cannot be written: No such file or directory: its folder is not there"):
        fit(task, config(out))
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="the rights of another user are taken on")
def test_a_folder_that_has_become_read_only() -> None:
    """By a user whom that stops, as it does not stop root."""
    home = Path(tempfile.mkdtemp())
    out = home / "run"

    def train(resume: bool) -> None:
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
        torch.set_num_threads(1)
        task = Toy()
        if not resume:
            task.hook = at(PER_EPOCH + 1, lambda: [path.chmod(0o555) for path in (out / "checkpoints", out)])
        with (home / "stderr").open("w") as sys.stderr:
            status = cli.run(lambda argv: fit(task, config(out, epochs=2, resume=resume)) and 0, [])
        os._exit(status)

    def status(resume: bool) -> int | None:
        process = multiprocessing.get_context("fork").Process(target=train, args=(resume,))
        process.start()
        process.join(60)
        return process.exitcode

    try:
        home.chmod(0o777)
        assert status(resume=False) == 2
        line = (home / "stderr").read_text()
        assert "cannot be written: Permission denied: give another folder, or the right to write there\n" in line
        assert line.count("\n") == 1
        assert load_checkpoint(out / "checkpoints/last.ckpt")["loader"] == {"epoch": 1, "position": 0}
        for path in (out / "checkpoints", out):
            path.chmod(0o755)
        assert status(resume=True) == 0, (home / "stderr").read_text()
        assert json.loads((out / "metrics.json").read_text())["steps"] == 2 * PER_EPOCH
    finally:
        shutil.rmtree(home)


def test_a_lost_worker_is_one_line_and_loses_nothing(tmp_path: Path, whole: Path) -> None:
    out, task = tmp_path / "run", Toy()

    def kill() -> None:
        for worker in multiprocessing.active_children():
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)

    task.hook = at(PER_EPOCH + 1, kill)
    with pytest.raises(UserError, match=r"a process that loads data .*: give `--workers 0`.* a run goes on by --resume"):
        fit(task, config(out, ema=0.9, epochs=2, workers=1))
    assert load_checkpoint(out / "checkpoints/last.ckpt")["loader"]["epoch"] == 1
    fit(Toy(), config(out, ema=0.9, epochs=2, resume=True))
    assert_same_end(out, whole)
