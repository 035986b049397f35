"""Numbers that are not finite end a training before the step, and before anything is written over."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from runs import assert_same_end
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from toy import BATCH, PER_EPOCH, Toy, config

from rpgmt.data.loader import ResumableLoader
from rpgmt.engine.balance import Sum
from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.engine.finite import LARGEST_WEIGHT, NonFiniteError, check_parameters, check_state, largest
from rpgmt.engine.loop import fit
from rpgmt.engine.training_step import TrainingStep


class Steep(Toy):
    """One sample has a loss of 0 with an infinite gradient; ``epoch``: in which it is met."""

    def __init__(self, sample: int, **values: Any) -> None:
        super().__init__(**values)
        self.sample = sample

    def losses(self, outputs: Any, batch: Any) -> dict[str, tuple[Tensor, Tensor]]:
        losses = super().losses(outputs, batch)
        total, count = losses["stage_1/half"]
        if self.model.training and self.sample in batch["index"].tolist():
            total = total + (outputs[0]["half"].sum() * 0).sqrt()
        return losses | {"stage_1/half": (total, count)}


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for pattern in ("*.safetensors", "checkpoints/*") for path in out.glob(pattern)}


@pytest.mark.parametrize(("accumulate", "clip_norm", "generated"), [(1, None, True), (2, 0.5, False)])
def test_a_gradient_ends_it_before_the_step_and_names_term_and_samples(
    tmp_path: Path, accumulate: int, clip_norm: float | None, generated: bool
) -> None:
    """In the last step of an epoch, of which the checkpoint would be written next."""
    whole = fit(Toy(generated=generated), config(tmp_path / "whole", accumulate=accumulate, clip_norm=clip_norm))
    loader = ResumableLoader(Toy().train_data, BATCH, seed=0)
    batch = [index for _, index in loader.indices(2 * PER_EPOCH - 1)]
    before = {index for number in range(2 * PER_EPOCH - 1) for _, index in loader.indices(number)}
    out = tmp_path / "run"
    at_start: list[dict[str, Tensor]] = []
    task = Steep(-1, generated=generated)

    def hook(number: int, losses: dict[str, Any]) -> None:
        if number == 2 * PER_EPOCH - 1:
            at_start.append({name: p.detach().clone() for name, p in task.model.named_parameters()})
        task.sample = batch[1] if number >= 2 * PER_EPOCH - 2 else -1

    task.hook = hook
    assert batch[1] in before  # it was harmless until then
    where = f"at step {10 // accumulate}, in batch 5 of the epoch, samples {', '.join(map(str, batch))}"
    with pytest.raises(NonFiniteError, match=f"the gradient of stage_1/half is not finite {where}; a new run") as caught:
        fit(task, config(out, accumulate=accumulate, clip_norm=clip_norm))
    assert "\n" not in str(caught.value)
    assert caught.value.folder == out
    assert all(torch.equal(p, at_start[0][name]) for name, p in task.model.named_parameters())
    last = load_checkpoint(out / "checkpoints/last.ckpt")
    assert last["loader"]["epoch"] == 1
    assert math.isfinite(largest([tensor for tensor in last["model"].values() if tensor.is_floating_point()]))
    fit(Toy(generated=generated), config(out, accumulate=accumulate, clip_norm=clip_norm, resume=True))
    assert_same_end(out, whole)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"lr": 1e38, "max_steps": 1}, r"the weights are not finite \(inf\) after step 1, in `layers\."),
        ({"lr": 1e38, "max_steps": 1, "ema": 0.9}, "the weights are .* after step 1"),
        ({"lr": 1e12, "max_steps": 2, "optimizer": "sgd"}, r"after step 2|at step 2"),
        ({"lr": 1e38, "optimizer": "sgd", "accumulate": 3}, r"step [12]"),
    ],
)
def test_no_file_gets_weights_that_are_not_finite(tmp_path: Path, values: dict[str, Any], word: str) -> None:
    out = tmp_path / "run"
    with pytest.raises(NonFiniteError, match=word):
        fit(Toy(norm=False), config(out, warmup_steps=0, **values))
    assert files(out).keys() == {"last.ckpt"}
    first = load_checkpoint(out / "checkpoints/last.ckpt")["model"]
    assert all(torch.equal(first[name], tensor) for name, tensor in Toy(norm=False).model.state_dict().items())
    assert not (out / "metrics.json").exists()


def spoil_weight(task: Toy) -> None:
    with torch.no_grad():
        task.model.head.weight[0, 0] = math.nan


def spoil_statistics(task: Toy) -> None:
    task.model.layers[1].running_var[2] = math.inf  # type: ignore[index]


def grow_weight(task: Toy) -> None:
    with torch.no_grad():
        task.model.head.bias.fill_(2 * LARGEST_WEIGHT)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (spoil_weight, r"not finite \(nan\) after step 10, in `head\.weight`"),
        (spoil_statistics, r"the model layers\.1\.running_var is not finite after step 10"),
        (grow_weight, r"as large as 2\.0e\+09 after step 10, in `head\.bias`"),
    ],
)
def test_what_an_epoch_did_last_is_looked_at_before_files_are_replaced(
    tmp_path: Path, spoil: Callable[[Toy], None], word: str
) -> None:
    out, task = tmp_path / "run", Toy()
    kept: dict[str, bytes] = {}

    def step(*_: Any) -> None:  # after the optimizer's last step of the second epoch
        if task.batches == 2 * PER_EPOCH:
            kept.update(files(out))
            spoil(task)

    handle = register_optimizer_step_post_hook(step)
    try:
        with pytest.raises(NonFiniteError, match=word):
            fit(task, config(out, ema=0.5))
    finally:
        handle.remove()
    assert kept.keys() == {"last.ckpt", "best.ckpt", "best.safetensors"}
    assert files(out) == kept
    fit(Toy(), config(out, ema=0.5, resume=True))
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(out / "model.safetensors").values())


def test_averages_and_the_optimizers_state_are_looked_at_too() -> None:
    bad, good = torch.tensor([1.0, math.nan]), torch.ones(2)
    check_state({"optimizer": {"state": {0: {"exp_avg": good}}}, "seen": torch.tensor([1, 2]), "none": None}, "now")
    with pytest.raises(NonFiniteError, match="the optimizer state 0 exp_avg is not finite after step 3: "):
        check_state({"model": {"w": good}, "optimizer": {"state": {0: {"exp_avg": bad}}}}, "after step 3")
    with pytest.raises(NonFiniteError, match="the ema w is not finite"):
        check_state({"ema": {"w": bad}, "balance": [good]}, "now")
    with pytest.raises(NonFiniteError, match="the balance 1 is not finite"):
        check_state({"balance": [good, bad]}, "now")
    check_parameters(Toy().model, "now")
    assert largest([torch.zeros(0), torch.tensor(-3.0), torch.ones(2, dtype=torch.float64)]) == 3
    assert math.isnan(largest([torch.tensor(math.inf), torch.tensor(math.nan)]))
    assert largest([]) == 0


def test_a_metric_that_is_no_number_ends_it(tmp_path: Path) -> None:
    task = Toy()
    task.scores = [-1.0, math.nan]
    with pytest.raises(NonFiniteError, match="the metric score is nan after step 10: "):
        fit(task, config(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run/checkpoints/best.ckpt")["best"] == -1.0


def test_with_float16_steps_that_overflow_are_left_out_until_no_scale_is_small_enough() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    task = Toy(norm=False)
    train = config(None, optimizer="sgd", clip_norm=1.0, precision="16").train
    step = TrainingStep(task, train, fabric, Sum((), None), 100)
    batch = torch.utils.data.default_collate([task.train_data[0, index] for index in range(BATCH)])
    step.gradients(batch, 0, last=True)
    step.update(0)
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    assert not torch.equal(before["head.weight"], Toy(norm=False).model.head.weight)

    def overflow(gradient: Tensor) -> Tensor:
        return gradient * math.inf

    handle = task.model.head.weight.register_hook(overflow)
    scale, number = scaler.get_scale(), 1
    while number < 33:
        step.gradients(batch, number, last=True)
        step.update(number)
        assert scaler.get_scale() == scale / 2**number
        number += 1
    step.gradients(batch, number, last=True)
    with pytest.raises(NonFiniteError, match="is not finite at step 34"):  # it is no accident of the scale
        step.update(number)
    handle.remove()
    assert all(torch.equal(p, before[name]) for name, p in task.model.named_parameters())
