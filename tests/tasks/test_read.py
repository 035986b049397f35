"""Data before the network: they are read and checked without torch, and say which heads there are."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.people_files import write_coco

from rpgmt import cli
from rpgmt.errors import UserError
from rpgmt.synthetic.files import write_split
from tasks import classification, multitask, pose
from tools import summary, train

REPOSITORY = Path(__file__).parents[2]
SHORT = ["--channels", "8", "--depth", "1", "--stages", "1", "--input-size", "32,32", "--batch-size", "2", "--max-steps", "1"]
SHORT += ["--workers", "0", "--device", "cpu", "--precision", "32", "--rpg-size", "50%"]


@pytest.fixture(scope="module")
def three_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People of whom three key points are labelled."""
    folder = tmp_path_factory.mktemp("three")
    write_coco(folder, 4)
    for file in (folder / "annotations").iterdir():
        document = json.loads(file.read_text())
        category = document["categories"][0]
        category |= {"skeleton": [], "keypoints": category["keypoints"][:3], "sigmas": [0.05] * 3}
        category["flip_pairs"] = [["left_eye", "right_eye"]]
        for person in document["annotations"]:
            person["keypoints"] = person["keypoints"][:9]
            person["num_keypoints"] = sum(v > 0 for v in person["keypoints"][2::3])
        file.write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with masks and depth, and the file that describes them."""
    folder = tmp_path_factory.mktemp("folders")
    for split in ("train", "val"):
        write_split(folder, split, count=2, size=64, processes=1, progress=False)
    maps = "{segmentation: {folder: 'masks/{split}', kind: classes, classes: [background, person], instances: true}"
    maps += ", depth: {folder: 'depth/{split}', kind: depth}}"
    (folder / "dataset.yaml").write_text(f"images: images/{{split}}\nmaps: {maps}\n")
    return folder


def test_the_network_has_a_map_for_each_key_point_of_the_data(three_points: Path, tmp_path: Path) -> None:
    flags = ["--data", "coco", "--data-root", str(three_points), "--out", str(tmp_path / "run"), *SHORT]
    assert train.main(["pose", *flags]) == 0
    assert "keypoints: 3" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_network_predicts_what_the_folders_have_labels_for(labelled: Path, tmp_path: Path) -> None:
    flags = ["--config", "folders", "--data-root", str(labelled), "--out", str(tmp_path / "run"), *SHORT]
    assert train.main(["multitask", *flags]) == 0
    saved = (tmp_path / "run" / "config.yaml").read_text()
    assert "segmentation: 2" in saved
    assert "depth: 1" in saved
    assert "keypoints" not in saved.partition("heads")[2].partition("input_size")[0]


def test_heads_that_are_given_are_kept(three_points: Path) -> None:
    _, config = cli.parse_train(
        ["pose", "--data", "coco", "--data-root", str(three_points), "--heads", "keypoints=17"], {"pose": pose}
    )
    with pytest.raises(UserError, match="the data has 3 key points; train with --heads keypoints=3"):
        pose.read(config)


def test_a_network_is_counted_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.main(["pose", "--config", "coco_json", "--channels", "8", "--depth", "1", "--rpg-size", "50%"]) == 0
    assert capsys.readouterr().out.startswith("heads: COCO's 17 key points; a training takes those of its data")
    with pytest.raises(UserError, match="`heads` is null: the data decide"):
        summary.main(["multitask", "--config", "folders"])


@pytest.mark.parametrize("task", ["pose", "multitask", "classification"])
def test_what_is_wrong_with_the_data_is_said_before_torch_is_loaded(task: str, tmp_path: Path) -> None:
    flags = {"pose": ["--data", "coco"], "multitask": ["--config", "folders"], "classification": ["--config", "folder"]}[task]
    program = (
        "import sys; from rpgmt import cli; from tools import train\n"
        f"status = cli.run(train.main, {[task, *flags, '--data-root', str(tmp_path / 'nowhere')]!r}, 'train.py')\n"
        "print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "2 False", done
    assert "nowhere" in done.stderr.splitlines()[-1]


def test_what_is_read_needs_no_torch(three_points: Path, labelled: Path) -> None:
    program = f"""
import sys
from rpgmt import cli
from tasks import multitask, pose
for task, module, words in (
    ("pose", pose, ["--data", "coco", "--data-root", {str(three_points)!r}]),
    ("multitask", multitask, ["--config", "folders", "--data-root", {str(labelled)!r}]),
):
    module.read(cli.parse_train([task, *words], {{task: module}})[1], training=True)
    assert "torch" not in sys.modules, task
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_tasks_have_examples_that_parse() -> None:
    for module in (pose, multitask, classification):
        for example in module.Config.examples:
            words = example.replace("key points of your own", "").split("  ")[0].split()
            name, _ = cli.parse_train(words, {words[0]: module})
            assert name == words[0]


@pytest.mark.parametrize(
    ("task", "name"),
    [(pose, "coco"), (multitask, "coco"), (classification, "folder")],
    ids=["pose", "multitask", "classification"],
)
def test_what_a_kind_of_sharing_does_not_use_is_told_to_who_trains(task: Any, name: str, tmp_path: Path) -> None:
    config = task.Config()
    model = dataclasses.replace(config.model, sharing="none", rpg_block=2)
    data = dataclasses.replace(config.data, name=name, root=tmp_path / "missing")
    config = dataclasses.replace(config, model=model, data=data)
    with pytest.raises(UserError, match="missing"):
        task.read(config)  # whoever evaluates has nothing to change
    line = "without effect: `rpg_block`, which is of banks, with sharing none"
    with pytest.warns(UserWarning, match=line), pytest.raises(UserError, match="missing"):
        task.read(config, training=True)
