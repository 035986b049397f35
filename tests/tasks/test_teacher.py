"""Networks that learn a trained network's maps beside the labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from helpers.people_files import write_coco
from torch import Tensor

from rpgmt import models
from rpgmt.config import ModelConfig, to_dict
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.engine.model_file import save_model
from rpgmt.engine.teacher import TAUGHT, load_teacher
from rpgmt.errors import UserError
from rpgmt.heads.staged_task import StagedTask
from rpgmt.prediction.meaning import PixelMap, Reading
from tasks.pose import HEAD, Config, DataConfig, build


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    write_coco(folder, 6)
    return folder


def task_of(people: Path, loss: str, weight: float) -> StagedTask:
    model = ModelConfig(stages=3, channels=16, depth=2, sharing="none", input_size=(64, 64), heads={HEAD: 17})
    codec = "heatmap" if loss == "cross_entropy" else "msra"
    data = DataConfig(name="coco", root=people)
    return build(Config(model=model, data=data, loss=loss, codec=codec, teacher=Path("run"), teacher_weight=weight))  # type: ignore[arg-type]


def batch_of(task: StagedTask) -> dict[str, Tensor]:
    return torch.utils.data.default_collate([task.val_data[0, i] for i in range(len(task.val_data))])


def maps(like: Tensor, stages: int, seed: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [{HEAD: torch.randn(like.shape, generator=generator, dtype=torch.float64)} for _ in range(stages)]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_gradient_is_the_mean_of_the_labels_and_the_teachers(people: Path, loss: str) -> None:
    """The teacher's is by hand: softmax less softmax, or the difference of maps, of each stage or of the teacher's last."""
    weight = 0.3
    task = task_of(people, loss, weight)
    batch = batch_of(task)
    batch["visibility"][:, 3] = 0  # nothing is taught where nothing is labelled
    target, counts = task.heads[HEAD].codec.encode(batch["keypoints"], batch["visibility"])
    outputs, taught = maps(target, 3, seed=0), maps(target, 2, seed=1)
    leaves = [output[HEAD].requires_grad_() for output in outputs]

    def gradients(labels: dict[str, object]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum(total for total, _ in task.losses(outputs, labels).values()), leaves)  # type: ignore[arg-type]

    from_labels, mixed = gradients(batch), gradients({**batch, TAUGHT: taught})
    for stage in range(3):
        own, other = leaves[stage].detach(), taught[min(stage, 1)][HEAD]
        if loss == "mse":
            difference = 2 * (own - other) / own[0, 0].numel()
        else:
            difference = (own.flatten(2).softmax(-1) - other.flatten(2).softmax(-1)).view(own.shape)
        from_teacher = difference * counts[..., None, None]
        torch.testing.assert_close(
            mixed[stage], (1 - weight) * from_labels[stage] + weight * from_teacher, rtol=1e-4, atol=1e-8
        )


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "ohkm"])
def test_who_says_what_the_teacher_says_has_nothing_to_learn(people: Path, loss: str) -> None:
    task = task_of(people, loss, 1.0)
    batch = batch_of(task)
    target, _ = task.heads[HEAD].codec.encode(batch["keypoints"], batch["visibility"])
    taught = maps(target, 3, seed=1)
    for total, count in task.losses(taught, {**batch, TAUGHT: taught}).values():
        assert abs(float(total)) < 1e-4 * float(count)


def test_a_network_without_key_points_teaches_none(people: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(task_of(people, "cross_entropy", 0.5).config.model, heads={"depth": 1})
    depth = PixelMap(label=LabelMap(kind="depth"))
    reading = Reading(input_size=(64, 64), cut="images", padding=1.0, heads={"depth": depth})
    save_model(tmp_path / "model.safetensors", models.build(config), {"model": to_dict(config)}, reading)
    with pytest.raises(UserError, match="it predicts no key points"):
        load_teacher(tmp_path, task_of(people, "cross_entropy", 0.5).reading)


def test_a_weight_without_a_teacher_is_told(people: Path) -> None:
    config = dataclasses.replace(Config(), teacher_weight=0.7)
    assert config.without_effect() == ["`teacher_weight` without teacher"]
