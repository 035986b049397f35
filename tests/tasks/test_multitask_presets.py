"""Every preset of the multi-task task: it builds, and takes two steps, smaller, on files of its data set's format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.people_files import write_coco

import rpgmt
import tasks
from rpgmt import cli, models
from rpgmt.config.presets import CONFIGS
from rpgmt.data.dense.cityscapes import CITYSCAPES_GROUPS
from rpgmt.data.dense.nyuv2 import NYUV2_CLASSES
from rpgmt.synthetic.files import write_split
from tools import summary, train

PRESETS = sorted(path.stem for path in (CONFIGS / "multitask").glob("*.yaml"))
COUNT = 4
SMALL = ["--channels", "16", "--depth", "2", "--rpg-size", "50%"]
SHORT = ["--batch-size", "2", "--max-steps", "2", "--workers", "0", "--device", "cpu"]


def write_masks(root: Path) -> None:
    """COCO's format, with each person's box as the segment."""
    write_coco(root, COUNT)
    for path in (root / "annotations").iterdir():
        document = json.loads(path.read_text())
        for person in document["annotations"]:
            x, y, w, h = person["bbox"]
            person["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        path.write_text(json.dumps(document))


def write_bundle(root: Path, classes: int, size: tuple[int, int], *, normals: bool) -> None:
    """The `.npy` files of NYUv2 and Cityscapes, random."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(COUNT):
            vectors = rng.normal(size=(*size, 3))
            arrays = {
                "image": rng.random((*size, 3)),
                "label": rng.integers(-1, classes, size).astype(float),
                "depth": rng.uniform(0, 0.5, (*size, 1)),
                **({"normal": vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)} if normals else {}),
            }
            for kind, values in arrays.items():
                (root / split / kind).mkdir(parents=True, exist_ok=True)
                np.save(root / split / kind / f"{number}.npy", values)


def write_folders(root: Path) -> None:
    """Images with masks, depth and normals, and the file that describes them."""
    for split in ("train", "val"):
        write_split(root, split, count=COUNT, size=64, processes=1, progress=False)
    classes = {"kind": "classes", "classes": ["background", "person"], "instances": True}
    maps = {
        "segmentation": {"folder": "masks/{split}", **classes},
        "depth": {"folder": "depth/{split}", "kind": "depth"},
        "normals": {"folder": "normals/{split}", "kind": "normals"},
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump({"images": "images/{split}", "maps": maps}))


WRITERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "cityscapes": (lambda root: write_bundle(root, len(CITYSCAPES_GROUPS), (32, 64), normals=False), "128,64"),
    "coco": (write_masks, "96,128"),
    "folders": (write_folders, "128,96"),
    "nyuv2": (lambda root: write_bundle(root, len(NYUV2_CLASSES), (36, 48), normals=True), "128,96"),
}
"""Files of a data set's format, and an input of the preset's aspect, by preset."""


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_takes_two_steps(preset: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    arguments = ["multitask", "--config", preset, "--data-root", str(root), "--out", str(tmp_path / "run"), *SMALL, *SHORT]
    if preset in WRITERS:
        write, size = WRITERS[preset]
        write(root)
        arguments += ["--input-size", size]
    else:
        arguments += ["--train-images", str(COUNT), "--val-images", str(COUNT)]
    given = yaml.safe_load((CONFIGS / "multitask" / f"{preset}.yaml").read_text())["model"]
    given["heads"] = given["heads"] or {"segmentation": 2, "depth": 1, "normals": 3}  # what the files have labels for
    assert train.main(arguments) == 0
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["steps"] == 2
    assert record["data"]["name"] == (preset if preset in WRITERS else "synthetic")
    assert record["data"]["boxes"] == ("gt boxes" if "keypoints" in given["heads"] else "whole images")
    last = f"stage_{given['stages']}/"
    assert {name.removeprefix(last).split(".")[0] for name in record["val"] if name.startswith(last)} == {
        "score",
        *given["heads"],
    }
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    width, height = saved["model"]["input_size"]
    assert width * given["input_size"][1] == height * given["input_size"][0]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_builds_at_full_size_and_its_banks_are_smaller_than_what_they_make(preset: str) -> None:
    _, config = cli.parse_train(["multitask", "--config", preset], cli.find_tasks(tasks))
    found = rpgmt.report(models.build(config.model.with_heads()))
    assert len(found.banks) == config.model.stages
    assert 0 < found.bank < found.generated


def test_a_network_is_counted_without_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.main(["multitask", "--config", "cityscapes", *SMALL]) == 0
    assert "generated M" in capsys.readouterr().out
