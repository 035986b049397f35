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
from PIL import Image

from rpgmt.data.catalog import read_people
from rpgmt.data.convert import deeplabcut, yolo
from rpgmt.data.convert.conversion import FORMATS, convert
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


def turned_set(root: Path, orientation: int, *, stored: bool) -> None:
    """One image whose Exif turns it, labelled as it lies in the file or as it is shown."""
    document = random_document(np.random.default_rng(0), 1)
    document["categories"][0]["sigmas"] = [0.05] * 6
    points = [value for number in range(1, 7) for value in (4.5 * number, 9.0 * number, 2)]
    document["annotations"] = [{**document["annotations"][0], "bbox": [3, 5, 30, 50], "keypoints": points, "num_keypoints": 6}]
    document["images"][0] |= {"file_name": "0.jpg", "width": 90, "height": 60}
    write_set(root, {"train": document})
    size = (90, 60) if stored or orientation < 5 else (60, 90)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(root / "images/train/0.jpg", exif=exif)


@pytest.mark.parametrize("target", [name for name in FORMATS if name != "coco"])
@pytest.mark.parametrize("orientation", [5, 6])
def test_labels_of_a_picture_as_it_lies_in_its_file(tmp_path: Path, target: str, orientation: int) -> None:
    turned_set(tmp_path / "stored", orientation, stored=True)
    with pytest.raises(UserError, match=r"0\.jpg: is shown as 60×90, and its labels are for 90×60.*remove Exif"):
        convert(tmp_path / "stored", tmp_path / "out", origin="coco", target=target, val=0)
    assert not (tmp_path / "out").exists()
    to_coco(tmp_path / "stored", tmp_path / "out", "coco")
    assert read_people("coco", tmp_path / "out", "train").people  # which knows both ways


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_labels_of_a_picture_as_it_is_shown(tmp_path: Path, orientation: int) -> None:
    turned_set(tmp_path / "shown", orientation, stored=False)
    convert(tmp_path / "shown", tmp_path / "there", origin="coco", target="yolo-pose", val=0)
    to_coco(tmp_path / "there", tmp_path / "back", "yolo-pose")
    documents = [tmp_path / name / "annotations/person_keypoints_train.json" for name in ("shown", "back")]
    shown, back = (json.loads(path.read_text())["annotations"][0]["keypoints"] for path in documents)
    assert back == shown


YOLO = "path: .\ntrain: images\nkpt_shape: [2, 3]\nflip_idx: [0, 1]\nnames: [cat]\nkpt_names: {0: [nose, tail]}\n"
LINE = "0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 1\n"


def yolo_set(root: Path, lines: list[str | None]) -> Path:
    """A set with an image for each of the lines, None being one without a label file."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number, line in enumerate(lines):
        assert cv2.imwrite(str(root / f"images/{number}.png"), np.zeros((120, 160, 3), np.uint8))
        if line is not None:
            (root / f"labels/{number}.txt").write_text(line)
    (root / "data.yaml").write_text(YOLO)
    return root


def said_of(root: Path) -> list[str]:
    notes: list[str] = []
    yolo.read(root, None, notes)
    return notes


@pytest.mark.parametrize(
    "line",
    [
        "0 80 60 40 40 70 60 2 90 70 1",  # all in pixels
        "0 80 60 40 40 0.4 0.4 2 0.6 0.6 1",  # the box, or the points
        "0 0.5 0.5 0.4 0.4 70 60 2 90 70 1",
    ],
)
def test_yolo_in_pixels_is_refused(tmp_path: Path, line: str) -> None:
    root = yolo_set(tmp_path, [LINE, line])
    with pytest.raises(UserError, match=r"1\.txt, line 1: 80 is|1\.txt, line 1: 70 is|1\.txt, line 1: 90 is"):
        yolo.read(root, None, [])


def test_yolo_beyond_the_image_is_noted(tmp_path: Path) -> None:
    assert said_of(yolo_set(tmp_path / "a", [LINE, "0 0.5 0.5 1.0001 1 1 1 2 80 60 0\n"])) == []  # rounding; not labelled
    (note,) = said_of(yolo_set(tmp_path / "b", [LINE + LINE.replace("0.6 0.6", "1.2 0.6"), LINE]))
    assert note.startswith("1 line of labels with numbers beyond 1")


def test_what_yolo_passes_over_is_counted(tmp_path: Path) -> None:
    root = yolo_set(tmp_path, [LINE, LINE, LINE, None])
    (note,) = said_of(root)
    assert note.startswith("1 of 4 images of train without a label file")
    (root / "labels/3.txt").write_text("")
    assert said_of(root) == []  # an empty file says that nobody is there
    for name in ("3.png", "2.png"):
        (root / "images" / name).rename(root / "images" / name.replace("png", "heic"))
    (root / "images/1.png").unlink()
    files, labels = said_of(root)
    assert files.startswith("2 files of train passed over with their labels, 2.heic the first")
    assert labels.startswith("1 label file of train without an image passed over, 1.txt the first")
    (root / "list.txt").write_text("images/0.png\n")
    (root / "images/1.png").write_bytes((root / "images/0.png").read_bytes())
    (root / "data.yaml").write_text(YOLO.replace("train: images", "train: list.txt"))
    assert said_of(root) == [files]  # a label file whose image is not listed has one all the same
    for path in (root / "labels").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"none of the images.*labels/0\.txt"):
        yolo.read(root, None, [])


@pytest.mark.parametrize("target", FORMATS)
def test_names_with_signs_that_addresses_use(tmp_path: Path, target: str) -> None:
    names = ["a%20b.jpg", "a b.jpg", "c#1.jpg", "d?e&d=f.jpg", "g+h.jpg", "ü<'>;.jpg", "i%/j#/k.jpg"]
    named_set(tmp_path / "source", names)
    there = convert(tmp_path / "source", tmp_path / "there", origin="coco", target=target, val=0)
    to_coco(there.result, tmp_path / "back", target)
    for name in names:
        back = tmp_path / "back/images/train" / (name.replace("/", "_") if target == "deeplabcut" else name)
        assert back.read_bytes() == (tmp_path / "source/images/train" / name).read_bytes()
