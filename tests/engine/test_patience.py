"""Training ends when the main metric gets no better."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from runs import assert_same_end, at, send, two_processes, validations
from toy import PER_EPOCH, Toy, config

from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.engine.loop import fit
from rpgmt.engine.signals import Interrupted

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

SCORES: list[float | None] = [0.2, 0.7, 0.7, None, 0.5, 0.9, 0.1]
"""Of the epochs; 0.7 is not better than 0.7, and None is no score."""


def run(
    out: Path, *, scores: list[float | None] = SCORES, epochs: int = 7, norm: bool = True, signed: bool = False, **values: Any
) -> Toy:
    task = Toy(norm=norm, signed=signed)
    task.scores = list(scores)
    fit(task, config(out, epochs=epochs, **values))
    return task


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


@pytest.mark.parametrize(
    ("patience", "epochs", "best", "by"),
    [
        (1, 3, 0.7, "patience"),
        (2, 4, 0.7, "patience"),
        (3, 5, 0.7, "patience"),
        (4, 7, 0.9, "length"),
        (None, 7, 0.9, "length"),
    ],
)
def test_it_ends_after_so_many_validations_without_a_better_one(
    tmp_path: Path, patience: int | None, epochs: int, best: float, by: str
) -> None:
    task = run(tmp_path / "run", patience=patience)
    found = record(tmp_path / "run")
    assert (task.batches, found["steps"], found["ended"]["by"]) == (epochs * PER_EPOCH, epochs * PER_EPOCH, by)
    assert found["best"] == {"metric": "score", "value": best, "step": PER_EPOCH * (1 + SCORES.index(best))}
    assert len(task.drawn) > 0  # it is a finished run
    assert load_checkpoint(tmp_path / "run/checkpoints/last.ckpt")["loader"] == {"epoch": epochs, "position": 0}


def test_validations_of_weights_that_are_not_firm_yet_do_not_count(tmp_path: Path) -> None:
    """Of ten epochs those from the sixth on: before, weights that learn signs are low, and may become better."""
    scores: list[float | None] = [0.2, *[0.1] * 9]
    task = run(tmp_path / "run", scores=scores, epochs=10, signed=True, patience=2)
    found = record(tmp_path / "run")
    assert (task.batches, found["ended"]["by"]) == (7 * PER_EPOCH, "patience")
    assert found["best"] == {"metric": "score", "value": 0.2, "step": PER_EPOCH}
    best = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert best["loader"] == {"epoch": 1, "position": 0}


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    values = {"patience": 3, "ema": 0.9}
    run(tmp_path / "whole", **values)
    out, done = tmp_path / "run", 0
    for batch in (PER_EPOCH * 3 + 1, 2, None):  # of this start: in the fourth epoch, still there, to the end
        task = Toy()
        task.scores = SCORES[done // PER_EPOCH :]
        task.hook = None if batch is None else at(batch, lambda: send(signal.SIGINT))
        if batch is None:
            fit(task, config(out, epochs=7, resume=True, **values))
        else:
            with pytest.raises(Interrupted):
                fit(task, config(out, epochs=7, resume=done > 0, **values))
            assert record(out)["ended"]["by"] == "interrupted"
        done += task.batches
    assert done == 5 * PER_EPOCH
    assert_same_end(out, tmp_path / "whole")
    assert record(out)["best"] == record(tmp_path / "whole")["best"]


def test_a_run_that_patience_ended_goes_on_only_with_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", patience=1, schedule="constant")
    capsys.readouterr()
    assert run(tmp_path / "run", patience=1, schedule="constant", resume=True).batches == 0
    assert "finished; more of --epochs or --patience would go on with it" in capsys.readouterr().out
    assert run(tmp_path / "run", scores=SCORES[3:], schedule="constant", resume=True).batches == 4 * PER_EPOCH
    run(tmp_path / "whole", schedule="constant")
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_it_ends_with_a_whole_step(tmp_path: Path) -> None:
    """An epoch of five batches ends within a step of two: validation, and so the end, come with the end of the step."""
    task = run(tmp_path / "run", patience=1, accumulate=2)
    assert task.batches == 3 * PER_EPOCH + 1
    assert record(tmp_path / "run")["steps"] == task.batches // 2
    assert [int(row["step"]) for row in validations(tmp_path / "run")] == [3, 5, 8]


def test_two_processes_end_together(tmp_path: Path) -> None:
    assert two_processes(lambda rank: run(tmp_path / "run", norm=False, patience=2, devices=2)) == [0, 0]
    assert record(tmp_path / "run")["ended"]["by"] == "patience"
