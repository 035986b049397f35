"""Image classification from end to end: what its parts agree on, training, evaluation, summary, presets, bad inputs."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.image_folders import write_cifar, write_folders
from helpers.threads import single_thread
from safetensors import safe_open

import rpgmt
from rpgmt import cli
from rpgmt.config import ClassifierConfig, TrainConfig, UserError
from rpgmt.config.presets import CONFIGS
from rpgmt.data.images import normalize
from rpgmt.metrics.ranks import ranks, top_k
from tasks.classification import ClassificationTask, Config, DataConfig, build
from tools import evaluate, summary, train

PRESETS = sorted(path.stem for path in (CONFIGS / "classification").glob("*.yaml"))
CLASSES = ("bird", "cat", "dog", "fish", "frog", "horse")
TINY = ["--width", "0.125", "--rpg-size", "25%", "--batch-size", "8", "--device", "cpu", "--precision", "32"]
JPEG = ["classification", "--data", "cifar10_jpeg", "--classes", "6", *TINY]
MODEL = ClassifierConfig(width=0.125, classes=6, rpg_size="25%")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small JPEG files of six classes that differ in colour."""
    folder = tmp_path_factory.mktemp("jpeg")
    write_folders(folder, {"train": 48, "test": 18}, CLASSES, size=(32, 32))
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training."""
    out = tmp_path_factory.mktemp("runs") / "classification"
    arguments = [*JPEG, "--data-root", str(root), "--epochs", "8", "--lr", "0.05", "--ema", "0.5", "--out", str(out)]
    assert train.main(arguments) == 0
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def small_task(root: Path, **changes: Any) -> ClassificationTask:
    return build(Config(model=MODEL, data=DataConfig(name="cifar10_jpeg", root=root), train=TrainConfig(seed=3), **changes))


def batch_of(data: Any, count: int) -> dict[str, torch.Tensor]:
    return torch.utils.data.default_collate([data[0, i] for i in range(count)])


# ---- metrics and losses


def test_ranks_and_accuracies_by_hand() -> None:
    nan = math.nan
    logits = torch.tensor(
        [
            [3.0, 1.0, 2.0, 0.0],  # 0 2 1 3
            [3.0, 1.0, 2.0, 0.0],
            [3.0, 1.0, 2.0, 0.0],
            [1.0, 1.0, 1.0, 1.0],  # equal: by number
            [1.0, 1.0, 1.0, 1.0],
            [nan, 1.0, 2.0, 0.0],  # a broken network is never right
            [nan, 1.0, 2.0, 0.0],
        ]
    )
    labels = torch.tensor([0, 1, 3, 0, 2, 0, 2])
    found = ranks(logits, labels)
    assert found.tolist() == [0, 2, 3, 0, 2, 4, 1]
    assert torch.equal(found[:5] == 0, logits[:5].argmax(1) == labels[:5])
    assert top_k(found.tolist(), 1) == 2 / 7
    assert top_k(found.tolist(), 3) == 5 / 7
    assert top_k(found.tolist(), 4) == 6 / 7
    assert top_k([], 1) is None


def test_metrics_and_losses_of_known_logits(root: Path) -> None:
    task = small_task(root)
    batch = batch_of(task.val_data, len(task.val_data))
    right = torch.nn.functional.one_hot(batch["label"], 6).float()
    outputs = [{"class": 100 * right}]
    predictions = task.predictions(outputs, batch)
    assert task.metrics(predictions) == {"top1": 1.0, "top5": 1.0}
    assert task.metrics(predictions[::-1]) == task.metrics(predictions)
    (total, count) = task.losses(outputs, batch)["class"]
    assert (total.item(), count.item()) == (0, 18)
    wrong = [{"class": -100 * right}]
    assert task.metrics(task.predictions(wrong, batch)) == {"top1": 0.0, "top5": 0.0}
    smooth = small_task(root, label_smoothing=0.3)
    uniform = torch.full((18, 6), 0.3 / 6)
    target = uniform + 0.7 * right
    best = -(target * target.log()).sum()  # cross entropy is least at the smoothed target, where it is that
    total, _ = smooth.losses([{"class": target.log()}], batch)["class"]
    assert total.item() == pytest.approx(best.item(), rel=1e-5)


def test_top5_of_five_classes_is_not_applicable(tmp_path: Path) -> None:
    write_folders(tmp_path, {"val": 4}, size=(40, 40))
    data = DataConfig(name="folder", root=tmp_path)
    task = build(Config(model=dataclasses.replace(MODEL, classes=2), data=data))
    batch = batch_of(task.val_data, 4)
    outputs = [{"class": torch.eye(2)[batch["label"]]}]
    assert task.metrics(task.predictions(outputs, batch)) == {"top1": 1.0, "top5": None}
    assert task.metric_label == "images in folders val"


def test_a_batch_of_training_is_changed_and_one_of_validation_is_not(root: Path) -> None:
    task = small_task(root)
    trained, validated = batch_of(task.train_data, 6), batch_of(task.val_data, 6)
    assert torch.equal(
        task.images(validated), normalize(torch.from_numpy(np.stack(list(map(task.val_data.picture, range(6))))))
    )
    plain = normalize(torch.from_numpy(np.stack(list(map(task.train_data.picture, range(6))))))
    assert task.images(trained).shape == task.images(validated).shape == plain.shape == (6, 3, 32, 32)
    assert torch.equal(task.images(trained), task.train_data.images(trained))
    assert not torch.equal(task.images(trained), plain)
    assert not torch.equal(plain, task.images(validated))


def test_answers_do_not_depend_on_what_is_asked_first(root: Path) -> None:
    early, late = small_task(root), small_task(root)
    batch = batch_of(late.train_data, 6)
    before = early.resolved(), early.metric_label, early.images(batch)
    summary = late.data_summary()
    assert (late.resolved(), late.metric_label) == before[:2]
    assert torch.equal(late.images(batch), before[2])
    assert early.data_summary() == summary
    assert before[0].data.class_names == CLASSES


# ---- from end to end


def test_training_learns_and_leaves_a_whole_run_folder(run: Path) -> None:
    record = json.loads((run / "metrics.json").read_text())
    assert record["task"] == "classification"
    assert set(record["val"]) == {"top1", "top5"}
    assert record["val"]["top5"] >= record["val"]["top1"]
    assert record["data"]["name"] == "CIFAR-10 (JPEG)"
    assert (record["data"]["train_images"], record["data"]["val_images"]) == (48, 18)
    assert record["parameters"]["bank"] == round(record["parameters"]["generated"] / 4)
    assert record["steps"] == 48
    assert {"predictions.png", "curves.png", "metrics.csv", "model.safetensors"} <= {path.name for path in run.iterdir()}
    rows = (run / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss")
    assert float(rows[-1].split(",")[column]) < 0.8 * float(rows[1].split(",")[column])
    assert rpgmt.load(run)(torch.zeros(2, 3, 32, 32))[0]["class"].shape == (2, 6)


def test_evaluate_finds_what_training_measured(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evaluation.json"
    assert evaluate.main([str(run), "--json", str(path), "--pictures", str(tmp_path), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "CIFAR-10 (JPEG)" in text
    assert "top1" in text
    assert json.loads(path.read_text())["val"] == json.loads((run / "metrics.json").read_text())["val"]
    assert (tmp_path / "predictions.png").stat().st_size > 10_000


def test_summary_counts_a_run_and_flags_alike(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.main([str(run), "--json", str(tmp_path / "a.json")]) == 0
    assert summary.main([*JPEG[:1], *JPEG[3:], "--json", str(tmp_path / "b.json"), "--modules"]) == 0
    text = capsys.readouterr().out
    assert "resnet18, sharing rpg" in text
    assert "which remains however small N is" in text
    assert "layer2.0.downsample.0" in text
    assert summary.main(["--config", "cifar100", *TINY[:2]]) == 0  # the preset tells the task
    assert "classification, resnet18" in capsys.readouterr().out
    a, b = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab")
    assert a["parameters"] == b["parameters"] == json.loads((run / "metrics.json").read_text())["parameters"]


def test_a_stopped_run_goes_on_to_the_same_weights(root: Path, tmp_path: Path) -> None:
    arguments = [*JPEG, "--data-root", str(root), "--accumulate", "2", "--lr", "0.05", "--schedule", "constant"]
    assert train.main([*arguments, "--max-steps", "5", "--out", str(tmp_path / "whole")]) == 0
    assert train.main([*arguments, "--max-steps", "2", "--out", str(tmp_path / "stopped")]) == 0
    assert train.main(["classification", "--resume", "--out", str(tmp_path / "stopped"), "--max-steps", "5"]) == 0
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[name], tensor) for name, tensor in stopped.items())


@pytest.mark.parametrize("flags", [["--sharing", "narrow"], ["--sharing", "tied"], ["--rpg-scope", "block", "--workers", "1"]])
def test_each_sharing_trains_by_one_flag(flags: list[str], root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [*JPEG, *flags, "--data-root", str(root), "--max-steps", "2", "--out", str(out), "--precision", "bf16"]
    assert train.main(arguments) == 0
    assert json.loads((out / "metrics.json").read_text())["steps"] == 2


def test_fine_tuning_takes_all_but_the_last_layer(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folders(tmp_path / "data", {"train": 8, "val": 4}, size=(48, 40))
    arguments = ["classification", "--config", "folder", *TINY, "--stem", "3x3", "--input-size", "32,32", "--workers", "0"]
    arguments += ["--data-root", str(tmp_path / "data"), "--max-steps", "1", "--init-from", str(run)]
    assert train.main([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert "fresh: fc.bias, fc.weight" in capsys.readouterr().out


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_takes_two_steps(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    arguments = ["classification", "--config", preset, "--data-root", str(data), "--out", str(tmp_path / "run")]
    arguments += ["--batch-size", "4", "--max-steps", "2", "--workers", "0", "--device", "cpu", "--width", "0.125"]
    arguments += ["--rpg-size", "25%"]
    if preset.startswith("cifar"):
        write_cifar(data, monkeypatch, int(preset.removeprefix("cifar")), train=8, test=4)
    else:
        write_folders(data, {"train": 8, "val": 4}, size=(60, 70))
        arguments += ["--classes", "2", "--input-size", "64,64"]
    assert train.main(arguments) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 2


def test_the_default_preset_is_cifar10_with_the_papers_recipe() -> None:
    _, config = cli.parse_train(["classification"], {"classification": __import__("tasks.classification").classification})
    own = config.train
    assert (config.data.name, own.batch_size, own.optimizer, own.lr, own.weight_decay) == ("cifar10", 128, "sgd", 0.1, 5e-4)
    assert [fraction * own.epochs for fraction in own.milestones] == pytest.approx([60, 120, 160])
    assert own.decay == 0.1


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_names_its_source_first(preset: str) -> None:
    lines = (CONFIGS / "classification" / f"{preset}.yaml").read_text().splitlines()
    comments = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert "arXiv 2107.07110" in "".join(comments) or "This project's own recipe" in "".join(comments)
    assert "DIR (--data-root)" in "".join(comments)


# ---- bad inputs


def error_line(main: Any, argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(main, argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--classes", "10"], "`classes` is 10: ROOT has 6 in train, train with --classes 6"),
        (["--input-size", "64,64"], "`input_size` is 64,64: CIFAR-10 (JPEG) is not scaled, give --input-size 32,32"),
        (["--val-split", "valid"], "ROOT/valid: no such folder: images belong in ROOT/<split>/<class>/"),
        (["--data", "imagenett"], "`--data` is 'imagenett': must be one of cifar10, cifar100, cifar10_jpeg, imagenet, folder"),
        (["--rpg-size", "3", "--rpg-scope", "block"], "--rpg-size 3: `size` is 3: 4 banks need at least 1 parameter each"),
        (["--width", "0"], "`--width` is 0: must be above 0"),
        (["--rpg-scope", "stage"], "`--rpg-scope` is 'stage': must be one of global, block"),
        (["--trunk-weights", "x.pth"], "`trunk_weights` is 'x.pth': the network has no trunk"),
        (["--stages", "3"], "`--stages` is not a flag of `train.py classification`"),
        (["--stem", "7x7", "--batch-size", "1"], "`batch_size` is 1: one cell is left in layer4"),
    ],
)
def test_bad_input_is_one_clear_line(
    flags: list[str], line: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*JPEG, "--data-root", str(root), "--out", str(tmp_path / "run"), *flags]
    assert line.replace("ROOT", str(root)) in error_line(train.main, argv, capsys)


def test_a_model_is_measured_on_its_own_classes(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folders(tmp_path, {"test": 6, "val": 6}, [*CLASSES[:5], "zebra"], size=(32, 32))
    line = error_line(evaluate.main, [str(run), "--data-root", str(tmp_path), "--device", "cpu"], capsys)
    assert line.endswith("class 'zebra' in test stands where the model has 'horse'")
    line = error_line(evaluate.main, [str(run), "--data", "folder", "--data-root", str(tmp_path), "--device", "cpu"], capsys)
    assert line.endswith("class 'zebra' in val stands where the model has 'horse'")
    line = error_line(evaluate.main, [str(run), "--costs"], capsys)
    assert "`--costs` is for networks that may stop after a stage" in line
    write_folders(tmp_path, {"train": 6}, CLASSES, size=(32, 32))
    config = Config(model=MODEL, data=DataConfig(name="cifar10_jpeg", root=tmp_path))
    with pytest.raises(UserError, match="'horse' is a class to train on or to validate on, and not both"):
        build(config).data_summary()
