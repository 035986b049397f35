"""The pose task on small real inputs: what its parts agree on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rpgmt.config import ModelConfig, TrainConfig
from rpgmt.errors import UserError
from rpgmt.heads.staged_task import StagedTask
from tasks.pose import HEAD, Config, DataConfig, build

MODEL = ModelConfig(stages=2, channels=16, depth=2, rpg_size="50%", input_size=(64, 64))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def pose_task(root: Path, **changes: object) -> StagedTask:
    data = DataConfig(root=root, train_images=6, val_images=6)
    return build(Config(model=MODEL, data=data, train=TrainConfig(seed=3), **changes))  # type: ignore[arg-type]


def batch_of(task: StagedTask, count: int) -> dict[str, torch.Tensor]:
    samples = [task.val_data[0, i] for i in range(count)]
    return torch.utils.data.default_collate(samples)


def perfect_outputs(task: StagedTask, batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """What a network that knows the truth would say: log-probabilities of the target."""
    target, _ = task.heads[HEAD].codec.encode(batch["keypoints"], batch["visibility"])
    maps = target if task.config.loss == "mse" else (target + 1e-12).log()
    return [{HEAD: maps} for _ in range(MODEL.stages)]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_truth_has_no_loss_and_high_accuracy_at_every_stage(root: Path, loss: str) -> None:
    task = pose_task(root, loss=loss)
    batch = batch_of(task, len(task.val_data))
    outputs = perfect_outputs(task, batch)
    for total, count in task.losses(outputs, batch).values():
        assert total / count < 1e-5
        assert count > 0
    metrics = task.metrics(task.predictions(outputs, batch))
    for name in ("AP", "stage_1/AP", "stage_2/AP"):
        assert metrics[name] is not None
        assert metrics[name] > 0.9
    assert set(metrics) == {f"{stage}{n}" for stage in ("", "stage_1/", "stage_2/") for n in _COCO}


_COCO = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def test_metrics_do_not_depend_on_the_order_of_predictions(root: Path) -> None:
    task = pose_task(root)
    batch = batch_of(task, len(task.val_data))
    torch.manual_seed(0)
    outputs = [{HEAD: 5 * torch.randn(len(batch["index"]), 17, 16, 16).round()} for _ in range(2)]  # ties
    predictions = task.predictions(outputs, batch)
    assert task.metrics(predictions) == task.metrics(predictions[::-1])


def test_images_are_normalised_colours(root: Path) -> None:
    task = pose_task(root)
    batch = batch_of(task, 2)
    images = task.images(batch)
    assert images.shape == (2, 3, 64, 64)
    red = batch["image"][1, 5, 7, 0].item() / 255
    assert images[1, 0, 5, 7].item() == pytest.approx((red - 0.485) / 0.229, abs=1e-5)


def test_training_crops_change_with_the_epoch_and_validation_crops_do_not(root: Path) -> None:
    task = pose_task(root)
    assert not np.array_equal(task.train_data[0, 1]["image"], task.train_data[1, 1]["image"])
    assert np.array_equal(task.train_data[2, 1]["image"], task.train_data[2, 1]["image"])
    assert np.array_equal(task.val_data[0, 1]["image"], task.val_data[1, 1]["image"])


def test_the_seed_makes_the_weights(root: Path) -> None:
    a, b = pose_task(root).model.state_dict(), pose_task(root).model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_gradient_reaches_every_parameter(root: Path) -> None:
    task = pose_task(root)
    batch = batch_of(task, 4)
    outputs = task.model(task.images(batch))
    sum(total / count for total, count in task.losses(outputs, batch).values()).backward()
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_pictures_are_drawn(root: Path, tmp_path: Path) -> None:
    task = pose_task(root)
    batch = batch_of(task, len(task.val_data))
    task.draw(task.predictions(perfect_outputs(task, batch), batch), tmp_path)
    assert (tmp_path / "predictions.png").stat().st_size > 100_000  # eight people, three pictures each


def test_a_head_that_does_not_fit_the_data_is_one_clear_line(root: Path) -> None:
    other = dataclasses.replace(MODEL, heads={HEAD: 14})
    with pytest.raises(UserError, match=r"the data has 17 key points; train with --heads keypoints=17"):
        build(Config(model=other, data=DataConfig(root=root, train_images=6, val_images=6)))
    with pytest.raises(UserError, match=r"trains one head, e\.g\. keypoints: 17"):
        build(Config(model=dataclasses.replace(MODEL, heads={"depth": 1})))


def test_real_coco_files_are_read(shared_data: Path) -> None:
    data = DataConfig(name="coco", root=shared_data / "coco")
    task = build(Config(model=MODEL, data=data))
    assert (len(task.train_data), len(task.val_data)) == (198, 12)
    assert task.metric_label == "coco val, gt boxes"
    batch = batch_of(task, 12)
    metrics = task.metrics(task.predictions(perfect_outputs(task, batch), batch))
    assert metrics["AP"] is not None
    assert metrics["AP"] > 0.9
