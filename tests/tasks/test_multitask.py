"""The multi-task training task from end to end: train, evaluate, go on, missing labels, what the user can mend."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers.people_files import write_coco
from safetensors import safe_open

import rpgmt
from rpgmt import cli
from rpgmt.config import ModelConfig, TrainConfig
from rpgmt.errors import UserError
from rpgmt.heads.staged_task import StagedTask
from rpgmt.synthetic.body import PARTS
from rpgmt.synthetic.cache import load
from rpgmt.visualize import contact_sheet
from tasks.multitask import Config, DataConfig, build
from tools import evaluate, summary, train

NETWORK = ["--channels", "8", "--depth", "1", "--stages", "2", "--rpg-size", "50%", "--input-size", "32,32"]
SHORT = [
    "--batch-size",
    "4",
    "--max-steps",
    "2",
    "--precision",
    "32",
    "--workers",
    "0",
    "--device",
    "cpu",
    "--warmup-steps",
    "0",
]
TINY = ["multitask", *NETWORK, *SHORT, "--train-images", "8", "--val-images", "6"]
PAIR = [*TINY, "--heads", "segmentation=2,depth=1", "--schedule", "constant"]
FIVE = "keypoints=17,segmentation=2,depth=1,normals=3,parts=15"

FIGURES = {
    "keypoints": {*(f"A{kind}{of}" for kind in "PR" for of in ("", "50", "75", "M", "L")), "PCK@0.2"},
    "segmentation": {"mIoU", "accuracy", "mIoU:background", "mIoU:person"},
    "depth": {"abs", "rel", "rmse", "delta1"},
    "normals": {"mean", "median", "within_11.25", "within_22.5", "within_30"},
    "parts": {"mIoU", "accuracy", "mIoU_sides_joined", *(f"mIoU:{name}" for name in PARTS)},
}
SCORED = {"keypoints": "AP", "segmentation": "mIoU", "depth": "delta1", "normals": "within_30", "parts": "mIoU"}

LACKING = pytest.mark.filterwarnings("ignore:.*images without a label")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the synthetic images of the tests."""
    folder = tmp_path_factory.mktemp("data")
    load(folder, count=8, split="train", dense=True, processes=1, progress=False)
    load(folder, count=6, split="val", dense=True, processes=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training with five tasks."""
    out = tmp_path_factory.mktemp("runs") / "five"
    assert train.main([*TINY, "--heads", FIVE, "--data-root", str(root), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def pair(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training with two tasks: curves of few figures are drawn sooner."""
    out = tmp_path_factory.mktemp("runs") / "pair"
    assert train.main([*PAIR, "--data-root", str(root), "--out", str(out)]) == 0
    return out


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def same_metrics(found: dict[str, float | None], expected: dict[str, float | None]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, rel=1e-4, abs=1e-6)), name


def error_line(main: Any, argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.run(main, argv) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def small_task(root: Path, heads: dict[str, int], **changes: Any) -> StagedTask:
    model = ModelConfig(stages=2, channels=8, depth=1, rpg_size="50%", input_size=(32, 32), heads=heads)
    data = changes.pop("data", DataConfig(root=root, train_images=8, val_images=6))
    return build(Config(model=model, data=data, train=TrainConfig(batch_size=4), **changes))


def test_every_stage_has_the_figures_of_every_task_and_their_score(run: Path) -> None:
    val = record(run)["val"]
    names = {f"{head}.{figure}" for head, figures in FIGURES.items() for figure in figures}
    for stage in ("", "stage_1/", "stage_2/"):
        found = {name.removeprefix(stage) for name in val if name.startswith(stage) and (stage or "/" not in name)}
        assert {name for name in found if not name.startswith("keypoints.PCK@0.2:")} == names | {"score"}
        assert f"{stage}keypoints.PCK@0.2:left_ankle" in val
        known = [val[f"{stage}{head}.{figure}"] for head, figure in SCORED.items()]
        assert val[f"{stage}score"] == pytest.approx(np.mean([value for value in known if value is not None]))
    assert all(val[name] == val[f"stage_2/{name}"] for name in names)


def test_the_run_folder_holds_what_it_promises(run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "metrics.json",
        "metrics.csv",
        "checkpoints",
        "model.safetensors",
        "predictions.png",
        "curves.png",
    }
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    found = record(run)
    assert set(found) >= {"task", "val", "parameters", "bytes", "macs", "data", "seed", "steps", "seconds", "versions"}
    assert (found["task"], found["steps"], found["data"]["name"]) == ("multitask", 2, "synthetic")
    assert found["data"]["boxes"] == "gt boxes"
    assert found["bytes"]["model_file"] == (run / "model.safetensors").stat().st_size
    outputs = rpgmt.load(run)(torch.zeros(1, 3, 32, 32))
    shapes = {"keypoints": 17, "segmentation": 2, "depth": 1, "normals": 3, "parts": 15}
    assert [{name: tuple(out.shape) for name, out in stage.items()} for stage in outputs] == [
        {name: (1, channels, 8, 8) for name, channels in shapes.items()}
    ] * 2


def test_the_picture_has_a_row_for_each_task_of_each_sample(run: Path) -> None:
    """Image, labels and two stages, four samples, five tasks."""
    picture = cv2.imread(str(run / "predictions.png"))
    crop = np.zeros((192, 192, 3), np.uint8)
    wanted = contact_sheet([[crop] * 4] * 20, ["image", "labels", "stage 1", "stage 2"])
    assert picture is not None
    assert picture.shape == wanted.shape
    assert picture.std() > 10


def test_evaluate_finds_what_training_measured_whatever_the_batches(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "evaluation.json"
    arguments = [str(run), "--json", str(path), "--pictures", str(tmp_path / "pictures"), "--device", "cpu"]
    for size in ("1", "4"):
        assert evaluate.main([*arguments, "--batch-size", size]) == 0
        same_metrics(json.loads(path.read_text())["val"], record(run)["val"])
    text = capsys.readouterr().out
    for word in ("gt boxes", "depth.rmse", "normals.within_30", "score", "left_hand", "stage 2"):
        assert word in text
    pictures = [cv2.imread(str(folder / "predictions.png")) for folder in (tmp_path / "pictures", run)]
    assert (pictures[0] != pictures[1]).mean() < 0.01  # rounding decides which of two likely classes a pixel has


def test_evaluating_the_first_stage_alone(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "first.json"
    arguments = [str(run), "--json", str(path), "--stop-after", "1", "--device", "cpu", "--pictures", str(tmp_path)]
    assert evaluate.main(arguments) == 0
    found, trained = json.loads(path.read_text())["val"], record(run)["val"]
    expected = {name: value for name, value in trained.items() if name.startswith("stage_1/")}
    same_metrics(found, {name.removeprefix("stage_1/"): value for name, value in expected.items()} | expected)


def test_key_points_are_saved_in_cocos_format(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    assert evaluate.main([str(run), "--save-results", str(path), "--device", "cpu"]) == 0
    results = json.loads(path.read_text())
    task = small_task(root, {"keypoints": 17})
    assert len(results) == len(task.val_data)
    assert all(len(result["keypoints"]) == 51 for result in results)
    evaluator = task.heads["keypoints"].evaluation._evaluator  # type: ignore[attr-defined]
    same_metrics(
        evaluator.metrics(results), {name: record(run)["val"][f"keypoints.{name}"] for name in evaluator.metrics(results)}
    )


def test_summary_of_a_run_and_of_the_flags_agree(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.main([str(run), "--json", str(tmp_path / "a.json"), "--modules"]) == 0
    assert summary.main(["multitask", *NETWORK, "--heads", FIVE, "--json", str(tmp_path / "b.json")]) == 0
    assert summary.main(["--config", str(run / "config.yaml"), "--json", str(tmp_path / "c.json")]) == 0
    a, b, c = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "abc")
    assert a["parameters"] == b["parameters"] == c["parameters"] == record(run)["parameters"]
    assert a["macs"] == b["macs"] == c["macs"]
    assert "heads.0.parts" in capsys.readouterr().out


def test_a_stopped_run_goes_on_to_the_same_weights(pair: Path, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "part"
    assert train.main([*PAIR, "--data-root", str(root), "--max-steps", "1", "--out", str(out)]) == 0
    assert train.main(["multitask", "--resume", "--max-steps", "2", "--out", str(out)]) == 0
    whole, part = weights(pair), weights(out)
    assert whole.keys() == part.keys()
    assert all(torch.equal(whole[name], part[name]) for name in whole)
    same_metrics(record(out)["val"], record(pair)["val"])


def test_a_balanced_run_trains_to_other_weights_and_evaluates(pair: Path, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "balanced"
    assert train.main([*PAIR, "--data-root", str(root), "--balance", "uncertainty", "--out", str(out)]) == 0
    assert evaluate.main([str(out), "--json", str(tmp_path / "found.json"), "--device", "cpu"]) == 0
    same_metrics(json.loads((tmp_path / "found.json").read_text())["val"], record(out)["val"])
    equal, other = weights(pair), weights(out)
    assert equal.keys() == other.keys()
    assert not torch.equal(equal["bank_stage_1.values"], other["bank_stage_1.values"])


def test_a_single_task(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "depth"
    assert train.main([*TINY, "--heads", "depth=1", "--data-root", str(root), "--out", str(out)]) == 0
    assert {name.split("/")[-1].split(".")[0] for name in record(out)["val"]} == {"score", "depth"}
    line = error_line(evaluate.main, [str(out), "--save-results", str(tmp_path / "x.json"), "--json", "y.json"], capsys)
    assert "the network has no head `keypoints`" in line
    assert not Path("y.json").exists()  # refused before anything is measured


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--heads", "depth=1,ship=3"],
            "synthetic val has no labels 'ship', it has keypoints, segmentation, parts, depth, normals",
        ),
        (["--heads", "segmentation=3,depth=1"], "the labels of synthetic val need --heads segmentation=2,depth=1"),
        (["--heads", "keypoints=16"], "the labels of synthetic val need --heads keypoints=17"),
        (["--heads", "depth"], "`--heads` is 'depth'"),
        (["--stop-after", "3"], "`stop_after` is 3: the network has 2 stages"),
        (["--data", "nyuv2", "--data-root", "/nowhere"], "/nowhere/val/image: no such folder"),
        (["--data", "cityscapes", "--data-root", "/nowhere"], "/nowhere/val/image: no such folder"),
        (["--data", "folders", "--data-root", "/nowhere"], "/nowhere/dataset.yaml: No such file or directory"),
        (["--data", "coco", "--data-root", "/nowhere"], "/nowhere: no such data root"),
        (["--data", "ship"], "`--data` is 'ship'"),
        (["--balance", "fixed"], "balance fixed needs one for each task"),
        (["--balance", "fixed", "--task-weights", "ship=1"], "ship"),
        (["--depth-loss", "l2"], "`--depth-loss` is 'l2'"),
        (["--zooms", "0.5"], "`--zooms`"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    flags: list[str], message: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_line(train.main, [*TINY, "--data-root", str(root), "--out", str(tmp_path / "out"), *flags], capsys)
    assert message in line
    assert not (tmp_path / "out").exists()


@LACKING
def test_evaluating_on_labels_that_the_network_has_not_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_garden(tmp_path)
    line = error_line(evaluate.main, [str(run), "--data", "folders", "--data-root", str(tmp_path), "--device", "cpu"], capsys)
    assert "has no labels 'keypoints', it has segmentation, depth, scene" in line


def write_garden(root: Path, count: int = 4, classes: tuple[str, ...] = ("sky", "grass", "dog")) -> None:
    """Folders of images, of two sizes, in which image 0 has no depth, image 1 no segmentation and image 2 no scene."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        rows = ["image,class"]
        for kind in ("images", "masks", "depth"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            size = (40, 40) if i % 2 else (20, 30)
            cv2.imwrite(str(root / f"images/{split}/a{i}.png"), rng.integers(0, 256, (*size, 3), np.uint8))
            if i != 0:
                np.save(root / f"depth/{split}/a{i}.npy", rng.uniform(1, 4, size).astype(np.float32))
            if i != 1:
                cv2.imwrite(str(root / f"masks/{split}/a{i}.png"), rng.integers(0, len(classes), size, np.uint8))
            if i != 2:
                rows.append(f"a{i}.png,{('indoor', 'outdoor')[i % 2]}")
        (root / f"scenes_{split}.csv").write_text("\n".join(rows))
    description = {
        "images": "images/{split}",
        "maps": {
            "segmentation": {"folder": "masks/{split}", "kind": "classes", "classes": list(classes)},
            "depth": {"folder": "depth/{split}", "kind": "depth"},
        },
        "classes": {"scene": {"file": "scenes_{split}.csv", "classes": ["indoor", "outdoor"]}},
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(description, sort_keys=False))


@LACKING
def test_a_network_is_measured_without_the_data_that_it_was_trained_on(tmp_path: Path) -> None:
    """And what it says of itself is the same before and after the training data are read."""
    write_garden(tmp_path)
    data = DataConfig(name="folders", root=tmp_path)
    heads = {"segmentation": 3, "depth": 1, "scene": 2}
    late = small_task(tmp_path, heads, data=data)
    summary = late.data_summary()
    assert summary == {"name": "folders", "root": str(tmp_path), "boxes": "whole images", "train_samples": 4, "val_samples": 4}
    shutil.rmtree(tmp_path / "images/train")
    task = small_task(tmp_path, heads, data=data)
    batch = batch_of(task)
    with torch.no_grad():
        outputs = task.model.eval()(task.images(batch))
    assert task.metrics(task.predictions(outputs, batch))["score"] is not None
    assert (task.metric_label, task.details) == (late.metric_label, late.details)
    assert task.details == ("segmentation.mIoU", "scene.accuracy")
    assert task.resolved() == late.resolved() == task.config
    with pytest.raises(UserError, match="train"):
        task.data_summary()


@LACKING
@pytest.mark.parametrize(("loss", "balance"), [("l1", "pcgrad"), ("silog", "equal")])
def test_images_that_lack_labels_train_and_evaluate(loss: str, balance: str, tmp_path: Path) -> None:
    """Batches of one image: in each, another task has nothing to learn from."""
    data = tmp_path / "data"
    write_garden(data)
    out = tmp_path / "out"
    arguments = [*TINY, "--data", "folders", "--data-root", str(data), "--heads", "segmentation=3,depth=1,scene=2"]
    arguments += ["--batch-size", "1", "--max-steps", "4", "--depth-loss", loss, "--balance", balance]
    assert train.main([*arguments, "--out", str(out)]) == 0
    found = record(out)
    assert found["data"]["boxes"] == "whole images"
    assert found["val"].keys() >= {"segmentation.mIoU:dog", "depth.abs", "scene.accuracy", "scene.mean_accuracy", "score"}
    assert all(value is None or math.isfinite(value) for value in found["val"].values())
    assert (out / "predictions.png").is_file()
    assert evaluate.main([str(out), "--json", str(tmp_path / "found.json"), "--batch-size", "3", "--device", "cpu"]) == 0
    same_metrics(json.loads((tmp_path / "found.json").read_text())["val"], found["val"])


@LACKING
def test_classes_of_whole_images_alone(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    write_garden(data)
    arguments = [*TINY, "--data", "folders", "--data-root", str(data / "dataset.yaml"), "--heads", "scene=2"]
    assert train.main([*arguments, "--out", str(out)]) == 0
    val = record(out)["val"]
    assert val["scene.accuracy"] in (pytest.approx(0), pytest.approx(1 / 3), pytest.approx(2 / 3), 1)
    assert val["score"] == val["scene.mean_accuracy"]


@LACKING
def test_classes_in_another_order_are_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, other, out = tmp_path / "data", tmp_path / "other", tmp_path / "out"
    write_garden(data)
    write_garden(other, classes=("grass", "sky", "dog"))
    arguments = [*TINY, "--data", "folders", "--heads", "segmentation=3,scene=2", "--out", str(out)]
    assert train.main([*arguments, "--data-root", str(data)]) == 0
    line = error_line(evaluate.main, [str(out), "--data-root", str(other)], capsys)
    assert "of segmentation 'grass' stands where" in line
    assert "has 'sky': give the names in the model's order" in line
    more = [*arguments, "--epochs", "30", "--max-steps", "60", "--resume", "--data-root", str(other)]
    assert "of segmentation 'grass' stands where" in error_line(train.main, more, capsys)


def test_a_label_that_one_split_lacks_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, kinds in (("train", ["image", "label"]), ("val", ["image", "label", "depth"])):
        for kind in kinds:
            (tmp_path / split / kind).mkdir(parents=True)
            shape = {"image": (16, 16, 3), "label": (16, 16), "depth": (16, 16, 1)}[kind]
            np.save(tmp_path / split / kind / "0.npy", np.ones(shape))
    arguments = [*TINY, "--data", "nyuv2", "--data-root", str(tmp_path), "--heads", "depth=1", "--out", str(tmp_path / "out")]
    line = error_line(train.main, arguments, capsys)
    assert f"NYUv2 ({tmp_path}, train) has no labels 'depth', which it is to be trained on, it has segmentation" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:.* taken from the names of the key points")  # asserted in tests/data
def test_key_points_of_the_two_splits_that_differ_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are as many, in another order: what is trained would not be what is measured."""
    write_coco(tmp_path, 3)
    path = tmp_path / "annotations/person_keypoints_val.json"
    document = json.loads(path.read_text())
    names = document["categories"][0]["keypoints"]
    names[5], names[6] = names[6], names[5]
    path.write_text(json.dumps(document))
    arguments = [*TINY, "--data", "coco", "--data-root", str(tmp_path), "--heads", "keypoints=17", "--out", str(tmp_path / "o")]
    line = error_line(train.main, arguments, capsys)
    assert "its key points are nose, left_eye, right_eye, left_ear, right_ear, left_shoulder" in line
    assert "those to validate on nose, left_eye, right_eye, left_ear, right_ear, right_shoulder" in line


def batch_of(task: StagedTask) -> dict[str, torch.Tensor]:
    return torch.utils.data.default_collate([task.val_data[0, i] for i in range(len(task.val_data))])


def test_a_gradient_reaches_every_parameter(root: Path) -> None:
    task = small_task(root, {"keypoints": 17, "segmentation": 2, "depth": 1, "normals": 3, "parts": 15})
    batch = batch_of(task)
    outputs = task.model(task.images(batch))
    losses = task.losses(outputs, batch)
    assert list(losses) == [f"stage_{k}/{name}" for k in (1, 2) for name in task.heads]
    sum(total / count for total, count in losses.values()).backward()
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_training_crops_change_with_the_epoch_and_labels_with_them(root: Path) -> None:
    task = small_task(root, {"parts": 15, "normals": 3})
    first, again, other = task.train_data[0, 1], task.train_data[0, 1], task.train_data[1, 1]
    assert set(first) == {"image", "keypoints", "visibility", "to_image", "index", "parts", "normals"}
    for name in ("image", "parts", "normals"):
        assert np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
    assert np.array_equal(task.val_data[0, 1]["parts"], task.val_data[1, 1]["parts"])


def test_metrics_do_not_depend_on_the_order_of_records(root: Path, tmp_path: Path) -> None:
    """Nor does the picture: several processes each have some of the samples."""
    task = small_task(root, {"keypoints": 17, "segmentation": 2, "depth": 1, "normals": 3})
    batch = batch_of(task)
    with torch.no_grad():
        outputs = task.model.eval()(task.images(batch))
    whole, parts = task.predictions(outputs, batch), []
    for i in reversed(range(len(batch["image"]))):
        one = [{name: output[name][i : i + 1] for name in output} for output in outputs]
        parts += task.predictions(one, {key: value[i : i + 1] for key, value in batch.items()})
    same_metrics(task.metrics(parts), task.metrics(whole))
    for number, records in enumerate((whole, parts)):
        (tmp_path / str(number)).mkdir()
        task.draw(records, tmp_path / str(number))
    assert (tmp_path / "0/predictions.png").read_bytes() == (tmp_path / "1/predictions.png").read_bytes()


def test_a_task_without_labels_is_no_part_of_the_score(root: Path) -> None:
    task = small_task(root, {"segmentation": 2, "depth": 1})
    batch = batch_of(task)
    batch["depth"] = torch.zeros_like(batch["depth"])
    with torch.no_grad():
        outputs = task.model.eval()(task.images(batch))
    metrics = task.metrics(task.predictions(outputs, batch))
    assert metrics["depth.abs"] is None
    assert metrics["score"] == metrics["segmentation.mIoU"] is not None
    batch["segmentation"] = torch.full_like(batch["segmentation"], -1)
    assert task.metrics(task.predictions(outputs, batch))["score"] is None


def test_the_depth_loss_is_the_one_asked_for(root: Path) -> None:
    tasks = {loss: small_task(root, {"depth": 1}, depth_loss=loss) for loss in ("l1", "silog")}
    counts = {}
    for loss, task in tasks.items():
        batch = batch_of(task)
        with torch.no_grad():
            outputs = task.model(task.images(batch))
        counts[loss] = int(task.losses(outputs, batch)["stage_1/depth"][1])
    assert counts == {"l1": int((batch["depth"] > 0).sum()), "silog": len(batch["depth"])}  # pixels, images
