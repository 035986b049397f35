"""A run that was ended and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import csv
import functools
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same_end, at, send
from safetensors.torch import load_file
from toy import BATCH, PER_EPOCH, Noise, Toy, config

from rpgmt import cli
from rpgmt.data.loader import ResumableLoader
from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.engine.loop import fit
from rpgmt.engine.run_folder import RunFolder, is_finished
from rpgmt.engine.saving import Saver
from rpgmt.engine.signals import Interrupted
from rpgmt.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

BASE: dict[str, Any] = {"warmup_steps": 3, "optimizer": "adam"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """An uninterrupted run, made once for each config."""

    @functools.cache
    def run(generated: bool = False, signed: bool = False, **values: Any) -> Path:
        return fit(Toy(generated=generated, signed=signed), config(tmp_path_factory.mktemp("whole") / "run", **BASE, **values))

    return run


@pytest.mark.parametrize(
    ("values", "batch", "sign"),
    [
        ({}, 1, signal.SIGINT),  # in the first epoch
        ({}, PER_EPOCH + 2, signal.SIGTERM),  # in the middle of a later one
        ({"ema": 0.9}, PER_EPOCH + 2, signal.SIGINT),
        ({"ema": 0.9}, 2 * PER_EPOCH - 1, signal.SIGINT),  # at an epoch's end
        ({"ema": 0.9, "workers": 2}, PER_EPOCH + 2, signal.SIGINT),
        ({"ema": 0.9, "generated": True}, PER_EPOCH + 2, signal.SIGINT),
        ({"ema": 0.9, "signed": True}, PER_EPOCH + 2, signal.SIGINT),  # while weights become firm
        ({"accumulate": 2}, PER_EPOCH - 1, signal.SIGINT),  # within a step
        ({"accumulate": 2, "optimizer": "sgd"}, PER_EPOCH + 2, signal.SIGINT),
        ({"precision": "bf16", "schedule": "step", "ema": 0.5}, PER_EPOCH + 2, signal.SIGINT),
    ],
)
def test_signal(tmp_path: Path, whole: Callable[..., Path], values: dict[str, Any], batch: int, sign: signal.Signals) -> None:
    out = tmp_path / "run"
    rest = BASE | values
    kind = {name: rest.pop(name, False) for name in ("generated", "signed")}
    handler = signal.getsignal(sign)
    first = Toy(**kind)
    first.hook = at(batch, lambda: send(sign))
    with pytest.raises(Interrupted) as caught:
        fit(first, config(out, **rest))
    assert caught.value.folder == out
    assert signal.getsignal(sign) == handler
    accumulate = rest.get("accumulate", 1)
    assert first.batches == -(-(batch + 1) // accumulate) * accumulate  # the step is finished, and no other begun
    assert (out / "model.safetensors").exists()
    assert (out / "metrics.json").exists()
    assert first.drawn == []

    second = Toy(**kind)
    fit(second, config(out, resume=True, **rest))
    assert first.batches + second.batches == 3 * PER_EPOCH
    with_base = {k: v for k, v in (values | kind).items() if k not in BASE}
    reference = whole(**with_base) if "optimizer" not in values else fit(Toy(), config(tmp_path / "w", **rest))
    assert_same_end(out, reference)


def test_several_times(tmp_path: Path, whole: Callable[..., Path]) -> None:
    out = tmp_path / "run"
    for resume in (False, True, True):
        task = Toy()
        task.hook = at(3, lambda: send(signal.SIGINT))
        with pytest.raises(Interrupted):
            fit(task, config(out, resume=resume, **BASE))
    fit(Toy(), config(out, resume=True, **BASE))
    assert_same_end(out, whole())


@pytest.mark.parametrize("values", [{}, {"ema": 0.9}, {"patience": 2}])
@pytest.mark.parametrize("which", ["validation", "best model", "best checkpoint"])
def test_a_validation_that_was_broken_off_is_made_again(
    tmp_path: Path, values: dict[str, Any], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had not been broken off: by a file that cannot be read, a disk that is full, or a second signal."""
    scores: list[float | None] = [-0.5, -0.4, -0.6]
    whole, task = Toy(), Toy()
    whole.scores, task.scores = [*scores], [*scores]
    fit(whole, config(tmp_path / "whole", **BASE, **values))
    out = tmp_path / "run"
    count = iter(range(99))

    def second_time_fails(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            if next(count) == 1:
                raise OSError("the disk is full")
            return call(*arguments)

        return wrapped

    if which == "validation":
        monkeypatch.setattr(task, "metrics", second_time_fails(task.metrics))
    elif which == "best model":
        monkeypatch.setattr(Saver, "model", second_time_fails(Saver.model))
    else:
        last = Saver.checkpoint

        def checkpoint(saver: Saver, path: Path, done: int) -> None:
            (second_time_fails(last) if path.name == "best.ckpt" else last)(saver, path, done)

        monkeypatch.setattr(Saver, "checkpoint", checkpoint)
    with pytest.raises(OSError, match="full"):
        fit(task, config(out, **BASE, **values))
    monkeypatch.undo()
    again = Toy()
    again.scores = [*scores][1:]
    fit(again, config(out, resume=True, **BASE, **values))
    assert task.batches + again.batches == 3 * PER_EPOCH  # and no training is lost
    assert_same_end(out, tmp_path / "whole")
    for name in ("best.safetensors", "model.safetensors"):
        a, b = (load_file(folder / name) for folder in (out, tmp_path / "whole"))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "data",
    [
        b"a,b\n1,2\n",
        b"step,epoch\n\xff\xfe,1\n",
        b"step,epoch\n" + b"9" * 200_000 + b",1\n",
        "step,epoch\n²,1\n".encode(),
        b"step,epoch\n1,2,3,4\n",
        b"step,epoch,val/score\n1,1,high\n",
        b'step,epoch\n"1,2\n3,4\n',
        b"\0\n\0\n",
    ],
)
def test_a_damaged_table_is_kept_beside_the_new_one(tmp_path: Path, data: bytes) -> None:
    out = tmp_path / "run"
    fit(Toy(), config(out, epochs=1))
    (out / "metrics.csv").write_bytes(data)
    (out / "commands.txt").write_bytes(b"\xff\xfe")
    with pytest.warns(UserWarning, match=r"metrics\.csv has lines that are no rows of numbers: it is kept as"):
        fit(Toy(), config(out, epochs=2, resume=True), command="again")
    assert (out / "metrics.csv.damaged").read_bytes() == data
    with (out / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(2 * PER_EPOCH)]


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"ended": 3}', "\0"])
def test_a_damaged_record_does_not_say_that_a_run_is_finished(tmp_path: Path, text: str) -> None:
    fit(Toy(), config(tmp_path, epochs=1))
    folder = RunFolder(tmp_path)
    assert is_finished(folder, config(tmp_path, epochs=1))
    folder.metrics.write_text(text)
    assert not is_finished(folder, config(tmp_path, epochs=1))


def test_other_data_are_not_gone_on_with(tmp_path: Path) -> None:
    fit(Toy(), config(tmp_path / "run", epochs=1))
    task = Toy()
    task.train_data = Noise(20, 1)
    with pytest.raises(UserError, match="the training data have 20 samples, and had 21 when the run was left"):
        fit(task, config(tmp_path / "run", resume=True))


def in_process(target: Callable[[], Any]) -> int | None:
    """Run ``target`` in a process of its own, and return the exit status (-n: killed by signal n)."""

    def run() -> None:
        torch.set_num_threads(1)
        target()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_killed(tmp_path: Path, whole: Callable[..., Path], ema: float) -> None:
    """Without any warning: training goes on from the last epoch's end, and rows after it are dropped."""
    out = tmp_path / "run"
    task = Toy()
    task.hook = at(2 * PER_EPOCH + 1, lambda: send(signal.SIGKILL))
    assert in_process(lambda: fit(task, config(out, ema=ema, **BASE))) == -signal.SIGKILL
    with (out / "metrics.csv").open("a") as file:
        file.write(f"2.2,{2 * PER_EPOCH + 1},9\n")
    second = Toy()
    fit(second, config(out, resume=True, ema=ema, **BASE))
    assert second.batches == PER_EPOCH
    assert_same_end(out, whole(ema=ema) if ema else whole())
    with (out / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["5", "10", "15"]


def test_killed_before_the_first_checkpoint(tmp_path: Path, whole: Callable[..., Path]) -> None:
    out = tmp_path / "run"
    task = Toy()
    task.hook = at(1, lambda: send(signal.SIGKILL))
    assert in_process(lambda: fit(task, config(out, **BASE))) == -signal.SIGKILL
    fit(Toy(), config(out, resume=True, **BASE))
    assert_same_end(out, whole())


def test_data_that_cannot_be_read(tmp_path: Path, whole: Callable[..., Path]) -> None:
    """What came before an error in the data is not lost."""
    out = tmp_path / "run"

    task = Toy()
    broken = ResumableLoader(task.train_data, BATCH, seed=0).indices(PER_EPOCH + 2)[1]

    def fail(epoch: int, index: int) -> None:
        if (epoch, index) == broken:
            raise OSError(f"image {index} is broken")

    task.train_data.hook = fail
    with pytest.raises(OSError, match="is broken"):
        fit(task, config(out, **BASE))
    assert task.batches == PER_EPOCH + 2
    second = Toy()
    fit(second, config(out, resume=True, **BASE))
    assert task.batches + second.batches == 3 * PER_EPOCH
    assert_same_end(out, whole())


def test_exit_status_and_word_of_the_stop(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"

    def main(argv: list[str]) -> None:
        task = Toy()
        task.hook = at(PER_EPOCH + 2, lambda: send(signal.SIGINT))
        fit(task, config(out, **BASE))

    assert in_process(lambda: sys.exit(cli.run(main, []))) == 130
    assert "stopping after this step" in capfd.readouterr().err


def test_second_signal_ends_at_once(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def main(argv: list[str]) -> None:
        task = Toy()

        def twice() -> None:
            send(signal.SIGINT)
            send(signal.SIGINT)
            os._exit(7)  # not reached

        task.hook = at(PER_EPOCH + 2, twice)
        fit(task, config(out, **BASE))

    assert in_process(lambda: sys.exit(cli.run(main, []))) == 130
    assert load_checkpoint(out / "checkpoints/last.ckpt")["loader"] == {"epoch": 1, "position": 0}


def test_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    fit(Toy(), config(out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    task = Toy()
    assert fit(task, config(out, resume=True)) == out
    assert "finished" in capsys.readouterr().out
    assert task.batches == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_finished_means_that_the_results_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model file cannot be written, a resumed run writes it."""
    out = tmp_path / "run"

    def full(*_: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("rpgmt.engine.saving.save_model", full)
        with pytest.raises(OSError, match="no space"):
            fit(Toy(), config(out, ema=0.9))
    fit(Toy(), config(out, ema=0.9, resume=True))
    fit(Toy(), config(tmp_path / "whole", ema=0.9))
    assert_same_end(out, tmp_path / "whole")


def test_no_longer_than_it_was_when_it_was_killed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    task = Toy()
    task.hook = at(PER_EPOCH + 2, lambda: send(signal.SIGINT))
    with pytest.raises(Interrupted):
        fit(task, config(out, **BASE))
    for file in ("model.safetensors", "metrics.json"):  # a kill would not have written them
        (out / file).unlink()
    task = Toy()
    fit(task, config(out, resume=True, epochs=1, **BASE))
    assert task.batches == 0
    saved = load_checkpoint(out / "checkpoints" / "last.ckpt")["model"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in load_file(out / "model.safetensors").items())
    assert json.loads((out / "metrics.json").read_text())["ended"]["by"] == "length"
    assert task.drawn
    with (out / "metrics.csv").open() as table:
        steps = [row["step"] for row in csv.DictReader(table)]
    assert steps == [str(PER_EPOCH), str(PER_EPOCH + 3)]


def test_longer_than_planned(tmp_path: Path) -> None:
    for name, parts in (("a", [1, 3]), ("b", [3])):
        for number, epochs in enumerate(parts):
            fit(Toy(), config(tmp_path / name, epochs=epochs, schedule="constant", ema=0.9, resume=number > 0))
    assert_same_end(tmp_path / "a", tmp_path / "b")


def test_other_settings_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(Toy(), config(out, epochs=1))
    with pytest.raises(UserError, match=r"`lr` is 0\.5: the run in .* has 0\.01"):
        fit(Toy(), config(out, epochs=2, lr=0.5, resume=True))
