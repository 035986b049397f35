"""Networks that learn a trained network's maps beside the labels."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from helpers.people_files import write_coco
from safetensors.torch import load_file
from torch import Tensor

from rpgmt import cli
from rpgmt.config import ModelConfig
from rpgmt.engine.teacher import TAUGHT
from rpgmt.heads.staged_task import StagedTask
from rpgmt.synthetic.cache import load
from tasks.pose import HEAD, Config, DataConfig, build
from tools import evaluate, train

TINY = ["--channels", "16", "--depth", "2", "--batch-size", "4", "--workers", "0", "--train-images", "8", "--val-images", "6"]
TINY += ["--warmup-steps", "0", "--device", "cpu", "--precision", "32"]


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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    load(folder, count=8, split="train", progress=False)
    load(folder, count=6, split="val", progress=False)
    return folder


def pose(root: Path, out: Path, *flags: str) -> list[str]:
    return ["pose", *TINY, "--data-root", str(root), "--out", str(out), *flags]


@pytest.fixture(scope="module")
def teacher(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "teacher"
    assert train.main(pose(root, out, "--stages", "3", "--sharing", "none", "--epochs", "1")) == 0
    return out


def test_a_taught_run_goes_on_exactly_and_needs_no_teacher_afterwards(
    root: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "teacher"
    shutil.copytree(teacher, own)
    flags = ["--stages", "2", "--sharing", "tied", "--schedule", "constant"]
    taught = [*flags, "--teacher", str(own)]
    assert train.main(pose(root, tmp_path / "whole", *taught, "--max-steps", "4")) == 0
    assert f"teacher: {own}, " in capsys.readouterr().out
    assert train.main(pose(root, tmp_path / "parts", *taught, "--max-steps", "2")) == 0
    assert train.main(pose(root, tmp_path / "parts", *taught, "--max-steps", "4", "--resume")) == 0
    assert train.main(pose(root, tmp_path / "alone", *flags, "--max-steps", "4")) == 0
    shutil.rmtree(own)
    assert evaluate.main([str(tmp_path / "whole"), "--data-root", str(root), "--device", "cpu"]) == 0
    whole, parts, alone = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "parts", "alone"))
    assert whole.keys() == parts.keys() == alone.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not any(torch.equal(whole[name], alone[name]) for name in whole if whole[name].is_floating_point())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--teacher", "/nowhere"], "/nowhere does not exist"),
        (["--teacher", "README.md"], "is not a model file"),
        (["--teacher", "TEACHER", "--input-size", "64,64"], "its input size is 72×96, that of the network to train 64×64"),
        (["--teacher", "TEACHER", "--sigma", "2"], "its sigma is 1.0, that of the network to train 2.0"),
        (["--teacher", "TEACHER", "--loss", "mse"], "its loss is cross_entropy, that of the network to train mse or ohkm"),
        (["--teacher", "TEACHER", "--teacher-weight", "0"], "teacher-weight"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(
    root: Path, teacher: Path, flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [str(teacher) if flag == "TEACHER" else flag for flag in flags]
    out = tmp_path / "run"
    assert cli.run(train.main, pose(root, out, "--stages", "2", "--sharing", "none", "--max-steps", "1", *flags)) == 2
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    assert words in line
    assert not out.exists()


def test_a_weight_without_a_teacher_is_told(people: Path) -> None:
    config = dataclasses.replace(Config(), teacher_weight=0.7)
    assert config.without_effect() == ["`teacher_weight` without teacher"]
