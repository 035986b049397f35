"""How long runs are, and what of the config fits their length."""

from __future__ import annotations

import math

import pytest

from rpgmt.config import TrainConfig, load_yaml
from rpgmt.config.presets import CONFIGS
from rpgmt.engine.learning_rate import warmup_steps
from rpgmt.engine.plan import make_plan
from rpgmt.errors import UserError

OF_FULL_SETS = {  # samples to train on
    "pose/synthetic": 5200, "pose/coco": 149_813, "pose/coco_256": 149_813, "pose/crowdpose": 43_400, "pose/mpii": 22_246,
    "pose/lsp": 8000, "pose/coco_json": 1000, "multitask/synthetic": 4000, "multitask/parts": 4000, "multitask/coco": 149_813,
    "multitask/nyuv2": 795, "multitask/cityscapes": 2975, "multitask/folders": 1000, "classification/cifar10": 50_000,
    "classification/cifar100": 50_000, "classification/imagenet": 1_281_167, "classification/folder": 3000,
}  # fmt: skip


def test_every_preset_is_listed() -> None:
    assert {f"{path.parent.name}/{path.stem}" for path in CONFIGS.glob("*/*.yaml")} == OF_FULL_SETS.keys()


@pytest.mark.parametrize("preset", OF_FULL_SETS)
def test_a_whole_run_of_a_preset_is_as_the_preset_says(preset: str) -> None:
    train = TrainConfig(**load_yaml(CONFIGS / f"{preset}.yaml")["train"])
    per_epoch = OF_FULL_SETS[preset] // train.batch_size
    plan = make_plan(train, per_epoch)
    assert plan.batches == train.epochs * per_epoch
    assert plan.steps == math.ceil(plan.batches / train.accumulate)
    assert plan.val_every == train.val_every
    assert warmup_steps(plan.steps, train) == train.warmup_steps
    assert plan.remarks == ()


@pytest.mark.parametrize(
    ("values", "per_epoch", "steps", "warmup", "val_every"),
    [
        ({"max_steps": 30}, 1, 30, 6, 5),  # of 24 images
        ({}, 1, 100, 20, 10),
        ({}, 3, 300, 60, 7),
        ({}, 5, 500, 100, 5),
        ({"max_steps": 1}, 1, 1, 1, 5),
        ({"accumulate": 2}, 3, 150, 30, 10),
    ],
)
def test_of_a_few_images_warm_up_and_validations_are_fewer(
    values: dict[str, int], per_epoch: int, steps: int, warmup: int, val_every: int
) -> None:
    train = TrainConfig(**({"epochs": 100, "warmup_steps": 100, "val_every": 5} | values))
    plan = make_plan(train, per_epoch)
    assert (plan.steps, warmup_steps(plan.steps, train), plan.val_every) == (steps, warmup, val_every)
    assert any("`warmup_steps` is 100" in line for line in plan.remarks) == (warmup < 100)
    assert any("`val_every` is 5" in line for line in plan.remarks) == (val_every > 5)
    assert all(len(line) <= 74 for line in plan.remarks)  # after "note: "


def test_steps_of_more_batches_than_an_epoch_has_are_noted_and_more_than_there_are_refused() -> None:
    train = TrainConfig(epochs=5, accumulate=8)
    assert make_plan(train, 3).remarks[0] == "`accumulate` is 8: an epoch has 3 batches, a step takes several"
    with pytest.raises(UserError, match="`accumulate` is 8: the whole run has 5 batches; give at most so many"):
        make_plan(train, 1)
