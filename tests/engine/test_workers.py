"""Processes that load data: how many there are changes no bit, and one that dies is told in one line."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from runs import assert_same_end
from toy import Toy, config

from rpgmt.data.loader import lost_workers
from rpgmt.engine.loop import fit
from rpgmt.errors import UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes:UserWarning"),
]


def test_a_killed_worker_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    """What is loaded ahead is of no run: it goes on without workers, and ends as one that never had any."""
    main_process = os.getpid()
    task = Toy()

    def kill(epoch: int, index: int) -> None:
        if epoch == 2 and os.getpid() != main_process:
            os.kill(os.getpid(), signal.SIGKILL)

    task.train_data.hook = kill
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"^a process that loads data (was ended|ended).* give `--workers 0`") as caught:
        fit(task, config(out, workers=1))
    assert "\n" not in str(caught.value)
    fit(Toy(), config(out, resume=True))
    assert_same_end(out, fit(Toy(), config(tmp_path / "whole")))


def test_a_connection_that_breaks_as_a_worker_dies_waits_for_what_torch_says_of_it() -> None:
    def say(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    before = signal.signal(signal.SIGALRM, say)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(UserError, match=r"^a process that loads data was ended by a signal \(Killed\)"), lost_workers():
            raise ConnectionResetError("reset by peer")
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ConnectionResetError, match="of something else"), lost_workers():
        raise ConnectionResetError("of something else")


def test_the_number_of_workers_changes_no_bit(tmp_path: Path) -> None:
    runs = [fit(Toy(), config(tmp_path / str(workers), workers=workers, epochs=2)) for workers in (0, 3)]
    assert_same_end(*runs)
