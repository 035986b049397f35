"""Labels go with the picture that they were made on, and what is passed over is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.labelled_set import random_document, write_set

from rpgmt.data.convert import deeplabcut
from rpgmt.data.convert.conversion import convert
from rpgmt.errors import UserError


def named_set(root: Path, names: list[str], splits: tuple[str, ...] = ("train",)) -> None:
    document = random_document(np.random.default_rng(0), len(names), least=1)
    for image, name in zip(document["images"], names, strict=True):
        image["file_name"] = name
    write_set(root, dict.fromkeys(splits, document))


def to_coco(source: Path, out: Path, origin: str, **more: Any) -> None:
    convert(source, out, origin=origin, target="coco", val=0, **more)


@pytest.mark.parametrize("names", [["a/0.jpg", "b/0.jpg"], ["b/0.jpg", "a/0.jpg"]])
@pytest.mark.parametrize("emptied", [False, True])  # the folder of the missing image is gone, or there
@pytest.mark.parametrize("target", ["coco", "yolo-pose"])
def test_a_missing_image_is_not_another_ones(tmp_path: Path, names: list[str], emptied: bool, target: str) -> None:
    named_set(tmp_path / "source", names)
    shutil.rmtree(tmp_path / "source/images/train/b")
    if emptied:
        (tmp_path / "source/images/train/b").mkdir()
    with pytest.raises(UserError, match=r"image b/0\.jpg is (not at its place.*a/0\.jpg|missing)"):
        convert(tmp_path / "source", tmp_path / "out", origin="coco", target=target)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("origin", ["cvat", "label-studio", "sleap", "yolo-pose"])
def test_nor_is_it_in_other_formats(tmp_path: Path, origin: str) -> None:
    named_set(tmp_path / "source", ["a/0.jpg", "b/0.jpg", "b/1.jpg"])
    done = convert(tmp_path / "source", tmp_path / "there", origin="coco", target=origin, val=0)
    (tmp_path / "there/images/train/b/0.jpg").unlink()
    if origin == "yolo-pose":  # its labels are found by the images
        to_coco(done.result, tmp_path / "out", origin)
        assert not (tmp_path / "out/images/train/b/0.jpg").exists()
        return
    with pytest.raises(UserError, match=r"b/0\.jpg is (not at its place|missing)"):
        to_coco(done.result, tmp_path / "out", origin)


@pytest.mark.parametrize("origin", ["coco", "cvat", "label-studio", "sleap"])
@pytest.mark.parametrize("gone", ["train", "val"])
def test_nor_that_of_another_split(tmp_path: Path, origin: str, gone: str) -> None:
    named_set(tmp_path / "source", ["0.jpg", "1.jpg"], ("train", "val"))
    convert(tmp_path / "source", tmp_path / "there", origin="coco", target=origin)
    shutil.rmtree(tmp_path / f"there/images/{gone}")
    with pytest.raises(UserError, match=r"0\.jpg is (not at its place|missing)"):
        to_coco(tmp_path / "there", tmp_path / "out", origin)


def test_frames_of_two_videos_have_the_same_names(tmp_path: Path) -> None:
    head = "scorer,,,me,me\nbodyparts,,,nose,nose\ncoords,,,x,y\n"
    for video in ("v1", "v2"):
        folder = tmp_path / "labeled-data" / video
        folder.mkdir(parents=True)
        assert cv2.imwrite(str(folder / "img1.png"), np.zeros((20, 30, 3), np.uint8))
        (folder / "CollectedData_me.csv").write_text(f"{head}labeled-data,{video},img1.png,3,4\n")
    (tmp_path / "labeled-data/v2/img1.png").unlink()
    (tmp_path / "labeled-data/v1/CollectedData_me.csv").unlink()  # that nobody labelled the other one makes it no better
    with pytest.raises(UserError, match=r"v2/img1\.png is missing"):
        deeplabcut.read(tmp_path, None, [])


def test_images_that_were_moved_are_found_by_their_names(tmp_path: Path) -> None:
    named_set(tmp_path / "source", ["a/0.jpg", "b/1.jpg"])
    path = tmp_path / "source/annotations/person_keypoints_train.json"
    document = json.loads(path.read_text())
    for image in document["images"]:
        image["file_name"] = f"/home/me/pictures/{image['file_name'][2:]}"
    path.write_text(json.dumps(document))
    to_coco(path, tmp_path / "out", "coco", images=tmp_path / "source/images")
    for name, place in (("0.jpg", "a/0.jpg"), ("1.jpg", "b/1.jpg")):
        copy = tmp_path / "out/images/train/home/me/pictures" / name
        assert copy.read_bytes() == (tmp_path / "source/images/train" / place).read_bytes()
