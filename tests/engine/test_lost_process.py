"""A process that dies leaves no other one alive, and no lock; its number and its status are the run's last word."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from runs import two_processes
from toy import PER_EPOCH, Toy, config

from rpgmt import cli
from rpgmt.config import TrainConfig
from rpgmt.engine import run_folder
from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.engine.device import make_fabric
from rpgmt.engine.joining import join
from rpgmt.engine.loop import fit

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


@pytest.mark.parametrize("dead", [0, 1])
def test_killed_while_it_trains(dead: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"

    def start(rank: int) -> None:
        task = Toy(norm=False)

        def hook(number: int, losses: dict[str, Any]) -> None:
            if rank == dead and number == PER_EPOCH + 2:
                (tmp_path / "time").write_text(str(time.time()))
                os.kill(os.getpid(), signal.SIGKILL)

        task.hook = hook

        def main(argv: list[str]) -> None:
            fit(task, config(out, devices=2, batch_size=2, workers=1))

        os._exit(cli.run(main, [], "train.py"))

    status = two_processes(start)
    assert time.time() - float((tmp_path / "time").read_text()) < 60
    assert status == [-9, 1] if dead == 0 else [1, -9]
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("train.py: process")]
    assert f"process {dead} of 2 (numbered from 0) ended" in line
    assert load_checkpoint(out / "checkpoints/last.ckpt")["loader"] == {"epoch": 1, "position": 0}
    end = time.monotonic() + 2  # torch's own workers would hold it for 5 s
    while run_folder.is_taken(out):
        assert time.monotonic() < end, "an orphan holds the run folder's lock"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("code", "expected", "how"),
    [
        ("os.kill(os.getpid(), 9)", 128 + 9, "was ended by signal 9, perhaps for want of memory,"),
        ("sys.exit(7)", 7, "ended with status 7,"),
        ("sys.exit(0)", 1, "ended early,"),
    ],
)
def test_ends_before_it_comes(code: str, expected: int, how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A process that this one starts for a second device, and that dies while it loads torch."""
    program = tmp_path / "program.py"
    program.write_text(f"import os, sys\nassert os.environ['LOCAL_RANK'] == '1'\nassert sys.argv[1:] == ['word']\n{code}\n")

    def start() -> None:
        sys.argv = [str(program), "word"]
        sys.modules["__main__"].__spec__ = None  # as of a program that is a file
        os._exit(cli.run(lambda argv: join(TrainConfig(device="cpu", devices=2)), [], "train.py"))

    make_fabric(TrainConfig(device="cpu"))  # to be forked with all that is imported for it
    process = multiprocessing.get_context("fork").Process(target=start)
    process.start()
    process.join(60)
    assert process.exitcode == expected
    assert f"train.py: process 1 of 2 (numbered from 0) {how} so all end" in capfd.readouterr().err
