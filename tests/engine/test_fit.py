"""Training: what a run leaves, what its steps do, and what ends it."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from toy import BATCH, PER_EPOCH, SAMPLES, VALIDATION, Net, Noise, Toy, config

from rpgmt.config import TrainConfig, from_dict, load_yaml
from rpgmt.data.loader import ResumableLoader
from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.engine.device import make_fabric, pick_precision, synchronise_norms
from rpgmt.engine.evaluate import evaluate
from rpgmt.engine.finite import NonFiniteError
from rpgmt.engine.learning_rate import learning_rate_factor
from rpgmt.engine.loop import fit
from rpgmt.errors import UserError
from rpgmt.rpg.learned_signs import signed_layers


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model.safetensors")


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Count(TorchDispatchMode):
    """Counts generations and folds."""

    generations = folds = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.generations += func is torch.ops.rpgmt.generate.default
        self.folds += func is torch.ops.rpgmt.fold.default
        return func(*args, **(kwargs or {}))


def test_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    task = Toy()
    summary = {"parameters": {"trainable": 7}, "macs": 5, "data": "noise"}
    before = torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGINT)
    assert fit(task, config(out, ema=0.9), summary=summary) == out
    assert (torch.are_deterministic_algorithms_enabled(), signal.getsignal(signal.SIGINT)) == before

    names = {"config.yaml", "metrics.json", "metrics.csv", "model.safetensors", "best.safetensors", "checkpoints"}
    names |= {"curves.png", "report.html"}
    assert names | {next(out.glob("events*")).name} == {path.name for path in out.iterdir()}
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}

    saved = load_yaml(out / "config.yaml")
    assert saved.pop("task") == "toy"
    assert from_dict(type(config(out)), saved).train.ema == 0.9

    metrics = json.loads((out / "metrics.json").read_text())
    keys = {"task", "val", "best", "parameters", "bytes", "macs", "data", "seed", "steps", "ended", "seconds", "versions"}
    keys |= {"hardware"}
    assert metrics.keys() == keys
    assert metrics["ended"] == {"by": "length", "epochs": 3, "max_steps": None, "patience": None}
    assert metrics["steps"] == 3 * PER_EPOCH
    assert metrics["val"]["never"] is None
    assert metrics["bytes"] == {"model_file": (out / "model.safetensors").stat().st_size}

    table = rows(out)
    assert [(row["epoch"], row["step"], row["val/never"]) for row in table] == [(f"{e}.0", f"{5 * e}", "") for e in (1, 2, 3)]
    assert float(table[-1]["val/score"]) == metrics["val"]["score"]
    row = {name: float(value) for name, value in table[0].items() if value}
    assert row["train/loss"] == pytest.approx(row["train/loss/stage_1/mean"] + row["train/loss/stage_1/half"])
    assert row["val/loss"] == pytest.approx(row["val/loss/stage_1/mean"] + row["val/loss/stage_1/half"])
    assert len(task.drawn) == VALIDATION

    # The model file holds what validation measured: the moving average.
    model = Net(norm=True)
    model.load_state_dict(weights(out))
    assert evaluate(task, model, batch_size=BATCH).metrics["score"] == pytest.approx(metrics["val"]["score"], abs=1e-7)
    assert not same(weights(out), load_checkpoint(out / "checkpoints/last.ckpt")["model"])

    printed = capsys.readouterr()
    assert printed.err == ""
    assert sum(line.startswith("epoch ") for line in printed.out.splitlines()) == 3
    assert all(character.isprintable() or character == "\n" for character in printed.out)


def test_same_seed_same_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(len(name))  # what was drawn before does not matter
        fit(Toy(), config(tmp_path / name, epochs=1, seed=seed))
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert same(a, b)
    assert not same(a, c)


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "generated"), [("adam", 1, False), ("adamw", 2, False), ("sgd", 1, False), ("sgd", 2, True)]
)
def test_steps_equal_a_plain_loop(tmp_path: Path, optimizer: str, accumulate: int, generated: bool) -> None:
    values = {
        "optimizer": optimizer,
        "accumulate": accumulate,
        "warmup_steps": 2,
        "clip_norm": 0.5,
        "weight_decay": 0.1,
    }
    task = Toy(norm=False, generated=generated)
    with Count() as count:
        fit(task, config(tmp_path / "run", **values))
    if generated:  # 8 steps of two batches, and three validations
        assert (count.generations, count.folds) == (8 + 3, 8)

    twin = Toy(norm=False, generated=generated)
    make: Callable[..., torch.optim.Optimizer] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": lambda p, **k: torch.optim.SGD(p, momentum=0.9, **k),
    }[optimizer]
    parameters = list(twin.model.parameters())
    stepper = make(parameters, lr=1.0, weight_decay=0.1)
    loader = ResumableLoader(twin.train_data, BATCH, seed=0)
    loader.stop = 3 * PER_EPOCH
    total = math.ceil(loader.stop / accumulate)
    for number, batch in enumerate(loader, start=1):
        step = (number - 1) // accumulate
        for group in stepper.param_groups:
            group["lr"] = 1e-2 * ((step + 1) / 2 if step < 2 else (1 + math.cos(math.pi * (step - 2) / (total - 2))) / 2)
        losses = twin.losses(twin.model(batch["image"]), batch)
        (sum(s / n for s, n in losses.values()) / accumulate).backward()
        if number % accumulate == 0 or number == loader.stop:
            nn.utils.clip_grad_norm_(parameters, 0.5)
            stepper.step()
            stepper.zero_grad()
    for mine, his in zip(task.model.parameters(), parameters, strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-6)


def test_weights_with_learned_signs_are_made_once_a_step_and_once_a_validation(tmp_path: Path) -> None:
    task, made, run = Toy(signed=True), [], []
    (layer, *_) = signed_layers(task.model).values()
    layer.register_forward_pre_hook(lambda layer, inputs: run.append((layer.training, layer.made)))
    fit(task, config(tmp_path, max_steps=2))
    for training, beforehand in run:
        assert beforehand is not None
        assert beforehand.training == training
        if not any(beforehand is other for other in made):
            made.append(beforehand)
    assert [of.training for of in made] == [True, True, False]
    assert len(run) > len(made)  # a validation has several batches


def test_schedules() -> None:
    def factors(**values: Any) -> list[float]:
        train = TrainConfig(**values)
        return [round(learning_rate_factor(step, 10, train), 4) for step in range(10)]

    assert factors(schedule="constant", warmup_steps=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]
    assert factors(schedule="step", milestones=(0.5, 0.8), decay=0.5) == [1] * 5 + [0.5] * 3 + [0.25] * 2
    cosine = factors(schedule="cosine")
    assert cosine == [1, 0.9755, 0.9045, 0.7939, 0.6545, 0.5, 0.3455, 0.2061, 0.0955, 0.0245]
    assert factors(schedule="cosine", warmup_steps=10) == [n / 10 for n in range(1, 11)]


def test_a_short_run_has_a_short_warm_up_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Toy(), config(tmp_path / "run", warmup_steps=100, schedule="constant"))
    assert [float(row["lr"]) for row in rows(tmp_path / "run")] == [1e-2] * 3
    assert capsys.readouterr().out.startswith("note: warm-up takes 3 of the 15 steps (`warmup_steps` is 100)\n")


def test_best_checkpoint_has_the_highest_score_and_none_is_no_score(tmp_path: Path) -> None:
    task = Toy()
    task.scores = [None, 0.2, 0.7, 0.7, 0.5, None]
    fit(task, config(tmp_path / "run", epochs=6))
    best = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert (best["best"], best["loader"]) == (0.7, {"epoch": 3, "position": 0})
    assert [row["val/score"] for row in rows(tmp_path / "run")] == ["", "0.2", "0.7", "0.7", "0.5", ""]

    task = Toy()
    task.scores = [None]
    fit(task, config(tmp_path / "other", epochs=1))
    assert not (tmp_path / "other/checkpoints/best.ckpt").exists()
    assert not (tmp_path / "other/best.safetensors").exists()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_best_model_file_holds_what_its_validation_measured(tmp_path: Path, ema: float) -> None:
    class Noting(Toy):
        def metrics(self, predictions: list[Any]) -> dict[str, float | None]:
            found = super().metrics(predictions)
            measured.append(found["score"])
            return found | {"score": scores[len(measured) - 1]}

    measured: list[float | None] = []
    scores = [0.2, 0.7, 0.5]
    fit(task := Noting(), config(tmp_path / "run", ema=ema))
    best = load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    expected = best["model"] | (best["ema"] or {})
    found = load_file(tmp_path / "run/best.safetensors")
    assert same(found, expected)
    assert not same(weights(tmp_path / "run"), expected)
    task.model.load_state_dict(found)
    assert evaluate(Toy(), task.model, batch_size=BATCH).metrics["score"] == pytest.approx(measured[1], abs=1e-7)


@pytest.mark.parametrize(
    ("values", "steps", "validated"),
    [
        ({"epochs": 5, "val_every": 2}, 25, [10, 20, 25]),
        ({"max_steps": 7}, 7, [5, 7]),
        ({"max_steps": 99}, 15, [5, 10, 15]),
        ({"max_steps": 4, "accumulate": 2}, 4, [3, 4]),  # 8 batches; the first epoch ends within a step
        ({"accumulate": 4, "val_every": 9}, 4, [4]),  # 15 batches; the last step has three
    ],
)
def test_length_and_validations(tmp_path: Path, values: dict[str, Any], steps: int, validated: list[int]) -> None:
    fit(Toy(), config(tmp_path / "run", **values))
    assert json.loads((tmp_path / "run/metrics.json").read_text())["steps"] == steps
    assert [int(row["step"]) for row in rows(tmp_path / "run") if row["val/score"]] == validated


def test_loss_without_valid_targets_is_zero(tmp_path: Path) -> None:
    task = Toy(norm=False)

    def hook(number: int, losses: dict[str, Any]) -> None:
        losses["stage_1/half"] = (losses["stage_1/half"][0] * 0, torch.tensor(0))

    task.hook = hook
    before = task.model.layers[-1].weight.detach().clone()
    fit(task, config(tmp_path / "run", epochs=1))
    (row,) = rows(tmp_path / "run")
    assert "train/loss/stage_1/half" not in row or row["train/loss/stage_1/half"] == ""
    assert row["train/loss"] == row["train/loss/stage_1/mean"]
    assert not torch.equal(task.model.layers[-1].weight, before)
    assert all(bool(p.isfinite().all()) for p in task.model.parameters())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_non_finite_loss_stops_before_the_step(tmp_path: Path, accumulate: int) -> None:
    task = Toy()
    at: list[dict[str, Tensor]] = []

    def hook(number: int, losses: dict[str, Any]) -> None:
        if number in (6, 7):
            at.append({name: p.detach().clone() for name, p in task.model.named_parameters()})
        if number == 7:
            losses["stage_1/half"] = (losses["stage_1/half"][0] * math.inf, losses["stage_1/half"][1])

    task.hook = hook
    loader = ResumableLoader(task.train_data, BATCH, seed=0)
    samples = ", ".join(str(index) for _, index in loader.indices(7))
    out = tmp_path / "run"
    with pytest.raises(NonFiniteError, match=rf"stage_1/half = \S+ in .*samples {samples};") as caught:
        fit(task, config(out, accumulate=accumulate))
    assert f"at step {8 // accumulate}:" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p, at[-1][name]) for name, p in task.model.named_parameters())
    last = load_checkpoint(out / "checkpoints/last.ckpt")
    assert last["loader"] == ({"epoch": 1, "position": 0} if accumulate == 1 else {"epoch": 1, "position": 1})

    fit(again := Toy(), config(out, accumulate=accumulate, resume=True))  # the data has been mended
    fit(Toy(), config(tmp_path / "whole", accumulate=accumulate))
    assert same(weights(out), weights(tmp_path / "whole"))
    assert again.batches == 3 * PER_EPOCH - (5 if accumulate == 1 else 6)


def test_precision(tmp_path: Path) -> None:
    fit(Toy(), config(tmp_path / "run", epochs=1, precision="bf16"))
    assert all(t.dtype in (torch.float32, torch.int64) for t in weights(tmp_path / "run").values())
    with pytest.raises(UserError, match="`precision` is 16"):
        fit(Toy(), config(tmp_path / "other", precision="16"))
    assert not (tmp_path / "other").exists()


def test_gradients_are_clipped_in_mixed_precision(tmp_path: Path) -> None:
    plain = {"epochs": 1, "precision": "bf16", "optimizer": "sgd"}
    for name, clip in (("free", None), ("loose", 1e9), ("tight", 1e-9)):
        fit(Toy(), config(tmp_path / name, **plain, clip_norm=clip))
    trained = {name: weights(tmp_path / name)["head.weight"] for name in ("free", "loose", "tight")}
    assert torch.allclose(trained["free"], trained["loose"], atol=1e-6)
    assert torch.allclose(trained["tight"], Toy().model.head.weight, atol=1e-6)
    assert not torch.allclose(trained["free"], trained["tight"], atol=1e-3)


def test_automatic_precision_is_what_the_device_computes_in(tmp_path: Path) -> None:
    expected = "bf16" if torch.cpu._is_avx512_bf16_supported() else "32"
    assert pick_precision("auto", "cpu") == expected
    assert [pick_precision(name, "cpu") for name in ("32", "bf16", "16")] == ["32", "bf16", "16"]
    fit(Toy(), config(tmp_path / "run", epochs=1, precision="auto"))
    assert load_yaml(tmp_path / "run" / "config.yaml")["train"]["precision"] == expected
    fit(Toy(), config(tmp_path / "run", epochs=2, precision="auto", resume=True))  # the same run on the same machine


def test_an_epoch_survives_a_broken_validation_file(tmp_path: Path) -> None:
    def broken(epoch: int, index: int) -> None:
        raise UserError("a label is broken")

    task = Toy()
    task.val_data = Noise(VALIDATION, 2, broken)
    with pytest.raises(UserError, match="a label is broken"):
        fit(task, config(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run" / "checkpoints/last.ckpt")["loader"] == {"epoch": 1, "position": 0}
    fit(again := Toy(), config(tmp_path / "run", resume=True))
    assert again.batches == 2 * PER_EPOCH


def test_unsynchronised_batch_norm_warns() -> None:
    fabric = make_fabric(config(Path(), devices=2).train)
    with pytest.warns(UserWarning, match="batch norm is not synchronised"):
        synchronise_norms(Net(norm=True), fabric)
    synchronise_norms(Net(norm=False), fabric)
    synchronise_norms(Net(norm=True), make_fabric(config(Path()).train))


def test_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "note").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        fit(Toy(), config(tmp_path))
    with pytest.raises(UserError, match="no run to resume"):
        fit(Toy(), config(tmp_path, resume=True))
    with pytest.raises(UserError, match="--out"):
        fit(Toy(), config(None, resume=True))


def test_new_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fit(Toy(), config(None, max_steps=1)) == Path("runs/toy-1")
    assert fit(Toy(), config(None, max_steps=1)) == Path("runs/toy-2")


def test_channels_last_changes_little(tmp_path: Path) -> None:
    for name, channels_last in (("a", False), ("b", True)):
        fit(Toy(norm=False), config(tmp_path / name, epochs=1, channels_last=channels_last))
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


def test_the_sizes_of_the_toy() -> None:
    assert (PER_EPOCH, SAMPLES % BATCH) == (5, 1)  # hand-written numbers above


def test_warnings_keep_their_look(tmp_path: Path) -> None:
    """The library under the loop replaces it when it is imported."""
    code = "import sys, warnings; from pathlib import Path; before = warnings.formatwarning; sys.path.insert(0, sys.argv[1])\n"
    code += "from toy import Toy, config; from rpgmt.engine.loop import fit\n"
    code += "fit(Toy(), config(Path(sys.argv[2]), max_steps=1)); assert warnings.formatwarning is before"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2])
