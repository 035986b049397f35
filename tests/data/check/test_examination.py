"""A check finds what was broken, all of it at once, and refuses exactly what training refuses."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.damage import damaged
from helpers.image_folders import write_folders
from helpers.labelled_set import random_document, write_set
from helpers.people_files import write_coco, write_crowdpose, write_mpii

from rpgmt.data.catalog import read_multitask_set, read_people
from rpgmt.data.check.examination import Report, examine
from rpgmt.data.check.sheet import COLUMNS, write_sheet
from rpgmt.data.sets.image_classes import read_folder
from rpgmt.errors import UserError

SIZE = (48, 64)


def titles(report: Report, *, refused: bool) -> dict[str, int]:
    return {one.title: one.count for one in (report.findings.refused if refused else report.findings.notes)}


def text_of(report: Report) -> str:
    return json.dumps(report.as_data())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    random = np.random.default_rng(4)
    documents = {split: random_document(random, count, least=1) for split, count in (("train", 6), ("val", 3))}
    for document in documents.values():
        for person in document["annotations"]:
            image = next(image for image in document["images"] if image["id"] == person["image_id"])
            person["bbox"] = [0, 0, image["width"], image["height"]]
            person["area"] = 0.5 * image["width"] * image["height"]
            person["keypoints"][2::3] = [2] * 6
            person["num_keypoints"] = 6
            person["keypoints"][:2] = [1 + person["id"], 3]
    write_set(root, documents)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "set"))


def change(root: Path, edit: Callable[[dict[str, Any]], Any], split: str = "train") -> None:
    path = root / f"annotations/person_keypoints_{split}.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))


def test_nothing_is_wrong_with_a_sound_set(root: Path) -> None:
    report = examine(root)
    assert titles(report, refused=True) == {}
    assert (report.recognised.task, report.recognised.data) == ("pose", "coco")
    assert list(report.counts) == ["train", "val"]
    assert report.heads == {"keypoints": 6}
    # Sigmas are inferred, and some images may have nobody: facts, and no cases of anything.
    assert set(titles(report, refused=False).values()) <= {0}
    assert "sigma" in text_of(report)


def person(document: dict[str, Any], number: int) -> dict[str, Any]:
    return document["annotations"][number]


def drop(entry: dict[str, Any], key: str) -> None:
    del entry[key]


def without_area(document: dict[str, Any]) -> None:
    for number in (0, 1):
        drop(person(document, number), "area")


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str, int]] = {
    "area": (without_area, "labelled people without an area", 2),
    "area 0": (lambda d: person(d, 0).update(area=0), "labelled people without an area", 1),
    "box": (lambda d: person(d, 0).update(bbox=[1, 2, 3]), "annotations without a box of four numbers", 1),
    "v": (lambda d: person(d, 1)["keypoints"].__setitem__(2, 3), "annotations with a visibility that is not 0, 1 or 2", 1),
    "points": (lambda d: person(d, 0)["keypoints"].pop(), "annotations without x, y, v for each key point", 1),
    "text": (lambda d: person(d, 0)["keypoints"].__setitem__(0, "1"), "annotations without x, y, v for each key point", 1),
    "image": (lambda d: person(d, 0).update(image_id=999), "annotations of no image", 1),
    "crowd": (lambda d: person(d, 0).update(iscrowd="no"), "malformed annotations", 1),
    "id": (lambda d: person(d, 1).update(id=person(d, 0)["id"]), "`annotations` with the `id` of another", 1),
    "no object": (lambda d: d["annotations"].append(5), "`annotations` that are no objects with an `id`", 1),
    "no id": (lambda d: d["images"].append({"id": [1]}), "`images` that are no objects with an `id`", 1),
    "image id": (
        lambda d: d["images"].append({**d["images"][0], "file_name": "x.jpg"}),
        "`images` with the `id` of another",
        1,
    ),
    "size": (lambda d: drop(d["images"][0], "width"), "images without `file_name`, `width` or `height`", 1),
    "list": (lambda d: d.update(images=[]), "files that are no COCO key-point documents", 1),
    "category": (
        lambda d: d["categories"].append({**d["categories"][0], "id": 8, "keypoints": ["tip"]}),
        "files that are no COCO key-point documents",
        1,
    ),
    "missing": (lambda d: d["images"][1].update(file_name="none.jpg"), "images that are missing", 1),
    "first": (lambda d: d["images"][0].update(file_name="none.jpg"), "images that are missing", 1),
    "pairs": (
        lambda d: d["categories"][0].update(flip_pairs=[["nose", "ear"]]),
        "what the reader refuses (the first of it)",
        1,
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_training_refuses_is_found(root: Path, fault: str) -> None:
    edit, title, count = REFUSED[fault]
    change(root, edit)
    report = examine(root)
    assert titles(report, refused=True).get(title) == count
    with pytest.raises(UserError):
        read_people("coco", root, "train", sigmas=[0.05] * 6)


def test_many_faults_are_found_at_once(root: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        for number, fault in enumerate(("area", "box")):
            entry = document["annotations"][number]
            document["annotations"][number] = entry = copy.deepcopy(entry)
            entry.pop(fault, None) if fault == "area" else entry.update(bbox="x")
        person(document, 2)["keypoints"][2] = 7
        document["images"][-1]["file_name"] = "none.jpg"
        person(document, 3).update(image_id=document["images"][-1]["id"])

    change(root, edit)
    change(root, lambda d: d["images"][0].update(width=d["images"][0]["width"] + 1), "val")
    found = titles(examine(root), refused=True)
    assert len(found) >= 5, found
    assert found["images of another size than their entry"] == 1


NOTED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "outside": (lambda d: person(d, 0)["keypoints"].__setitem__(0, 5000), "labelled key points outside their image"),
    "empty box": (lambda d: person(d, 0).update(bbox=[5, 5, 0, 9]), "people whose box is narrower than 2 pixels"),
    "box beside": (lambda d: person(d, 0).update(bbox=[5000, 5, 9, 9]), "people left out, as their box lies outside the image"),
    "sticks out": (
        lambda d: person(d, 0).update(bbox=[-20, 0, 200, 200]),
        "boxes that stick out of the image (they are cut off)",
    ),
    "not in box": (lambda d: person(d, 0).update(bbox=[0, 0, 2, 2]), "people most of whose points lie outside their box"),
    "num": (lambda d: person(d, 0).update(num_keypoints=1), "people whose `num_keypoints` is wrong (it is counted anew)"),
    "twin": (lambda d: d["annotations"].append({**person(d, 0), "id": 777}), "people labelled twice, with the same points"),
    "area": (lambda d: person(d, 0).update(area=1e6), "people whose area is larger than their box"),
    "entry": (lambda d: d["images"].append({**d["images"][0], "id": 777}), "images with several entries"),
    "place": (lambda d: person(d, 0).update(keypoints=[5, 5, 2] * 6), "people all of whose points lie at one place"),
    "side": (
        lambda d: d["categories"][0].update(flip_pairs=[["left eye", "right eye"]]),
        "key points with a side that no mirror image exchanges: give `flip_pairs`",
    ),
    "wrong pair": (
        lambda d: d["categories"][0].update(flip_pairs=[["left eye", "right_paw"], ["left_paw", "right eye"]]),
        "pairs that a mirror image exchanges, and their names do not say why",
    ),
    "never": (
        lambda d: [entry["keypoints"].__setitem__(5, 0) for entry in d["annotations"]],
        "key points that are labelled on nobody",
    ),
}


@pytest.mark.parametrize("oddity", NOTED)
def test_what_training_takes_is_noted(root: Path, oddity: str) -> None:
    edit, title = NOTED[oddity]
    change(root, edit)
    report = examine(root)
    assert titles(report, refused=False).get(title, 0) >= 1, titles(report, refused=False)
    assert titles(report, refused=True) == {}
    with pytest.warns():  # sigmas are inferred
        assert read_people("coco", root, "train").people


def test_boxes_as_corners_and_numbers_as_parts_are_suspected(root: Path) -> None:
    def corners(document: dict[str, Any]) -> None:
        sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
        for entry in document["annotations"]:
            width, height = sizes[entry["image_id"]]
            entry["bbox"] = [width / 2, height / 2, width - 1, height - 1]
            entry["keypoints"] = [0.6 * width, 0.7 * height, 2, 0.9 * width, 0.8 * height, 2] * 3

    def parts(document: dict[str, Any]) -> None:
        for entry in document["annotations"]:
            entry["bbox"] = [0.1, 0.1, 0.5, 0.5]

    assert "x1, y1" not in text_of(examine(root))
    change(root, corners)
    change(root, parts, "val")
    text = text_of(examine(root))
    assert "boxes stick out of their image; nearly all would fit if `bbox` were x1, y1, x2, y2" in text
    assert "parts of the image's size" in text


def test_what_the_readers_make_plain_is_said(root: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["images"].append(dict(document["images"][0]))
        document["images"][1]["width"] = float(document["images"][1]["width"])
        document["annotations"].append({**person(document, 0), "id": 777, "category_id": "1"})
        document["annotations"].append({**person(document, 0), "id": 778, "category_id": 99})

    change(root, edit)
    report = examine(root)
    assert titles(report, refused=True) == {"annotations whose `category_id` is no integer": 1}
    text = text_of(report)
    assert "entries of `images` stand twice and count once" in text
    assert "annotations are left out: `categories` lacks their `category_id` 99" in text


def test_image_files(root: Path) -> None:
    document = json.loads((root / "annotations/person_keypoints_train.json").read_text())
    used = [
        image["file_name"] for image in document["images"] if image["id"] in {a["image_id"] for a in document["annotations"]}
    ]
    files = [root / "images/train" / name for name in used]
    files[1].write_bytes(b"no image")
    data = files[2].read_bytes()
    files[2].write_bytes(data[: len(data) // 2])
    files[3].write_bytes(files[0].read_bytes())
    shutil.copy(files[0], root / "images/val/copy.jpg")
    change(root, lambda d: [image.update(file_name="copy.jpg") for image in d["images"]], "val")
    report = examine(root)
    refused, notes = titles(report, refused=True), titles(report, refused=False)
    assert refused["images that cannot be decoded"] == 1
    assert refused["images of another size than their entry"] >= 2  # the copies
    short = "image files that end too early"
    assert refused.get(short, 0) + notes.get(short, 0) == 1  # OpenCV 4 reads what there is
    assert notes["images that occur twice in a split"] == 1
    assert notes["images that are in train and in val"] == 1


def test_sixteen_bits_and_transparency(root: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        for number, (depth, channels) in enumerate(((np.uint16, 3), (np.uint8, 4))):
            image = document["images"][number]
            image["file_name"] = f"{number}.png"
            pixels = np.zeros((image["height"], image["width"], channels), depth)
            assert cv2.imwrite(str(root / "images/train" / image["file_name"]), pixels)
        for number, entry in enumerate(document["annotations"][:2]):
            entry["image_id"] = document["images"][number]["id"]

    change(root, edit)
    notes = titles(examine(root), refused=False)
    assert notes["images of 16 bits (training sees the upper 8)"] == 1
    assert notes["images with transparency (training does not see it)"] == 1


def test_splits_that_do_not_fit_and_a_split_that_is_missing(root: Path) -> None:
    change(root, lambda d: d["categories"][0].update(keypoints=list("abcdef"), flip_pairs=[]), "val")
    assert "splits whose key points are not the same ones in the same order" in titles(examine(root), refused=True)
    (root / "annotations/person_keypoints_val.json").unlink()
    assert titles(examine(root), refused=True) == {"splits that cannot be read": 1}
    assert titles(examine(root, splits=["train"]), refused=True) == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", '{"images": 3}', '{"images": [1], "annotations": [2], "categories": [3]}']
)
def test_any_json_is_survived(root: Path, text: str) -> None:
    (root / "annotations/person_keypoints_train.json").write_text(text)
    assert titles(examine(root), refused=True)


@pytest.mark.parametrize(("write", "name"), [(write_crowdpose, "crowdpose"), (write_mpii, "mpii"), (write_coco, "coco")])
def test_the_kind_is_guessed(tmp_path: Path, write: Callable[[Path, int], None], name: str) -> None:
    write(tmp_path, 3)
    report = examine(tmp_path)
    assert report.recognised.data == name
    assert titles(report, refused=True) == {}
    assert report.counts["train"]["images"] == 3


def test_masks(tmp_path: Path) -> None:
    write_coco(tmp_path, 3)
    change(tmp_path, lambda d: person(d, 0).update(segmentation=[[1, 2]]))
    change(tmp_path, lambda d: person(d, 1).update(segmentation={"size": [1, 1], "counts": [1]}))
    report = examine(tmp_path, task="multitask")
    assert (report.recognised.task, report.recognised.data) == ("multitask", "coco")
    assert titles(report, refused=True) == {"malformed segments": 2}
    assert report.heads == {"keypoints": 17, "segmentation": 2}


def write_maps(root: Path, *, seed: int = 0) -> None:
    description = (
        "images: images/{split}\nmaps:\n  parts:\n    folder: parts/{split}\n    kind: classes\n"
        "    classes: [ground, left_arm, right_arm, head]\n  depth: {folder: 'depth/{split}', kind: depth}\n"
        "classes:\n  scene: {file: 'scene_{split}.csv', classes: [in, out, under]}\n"
    )
    root.mkdir()
    (root / "dataset.yaml").write_text(description)
    random = np.random.default_rng(seed)
    for split in ("train", "val"):
        for folder in ("images", "parts", "depth"):
            (root / folder / split).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 255, (32, 40, 3), np.uint8)
            assert cv2.imwrite(str(root / f"images/{split}/{number}.png"), pixels)
            assert cv2.imwrite(str(root / f"parts/{split}/{number}.png"), random.integers(0, 3, (32, 40), np.uint8))
            np.save(root / f"depth/{split}/{number}.npy", np.ones((32, 40), np.float32))
        (root / f"scene_{split}.csv").write_text("image,class\n0.png,in\n1.png,in\n2.png,out\n")


def test_folders_of_maps(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_maps(root)
    report = examine(root)
    assert titles(report, refused=True) == {}
    notes = titles(report, refused=False)
    assert notes["classes that no label has"] == 4  # head and under, twice
    assert "parts: mirror images exchange left_arm/right_arm, by their names" in notes
    assert "train: 1 of 4 images have no label scene" in notes
    assert report.heads == {"parts": 4, "depth": 1, "scene": 3}
    assert cv2.imwrite(str(root / "parts/train/0.png"), np.full((32, 40), 9, np.uint8))
    assert cv2.imwrite(str(root / "parts/train/1.png"), np.full((32, 41), 1, np.uint8))
    np.save(root / "depth/train/2.npy", np.full((32, 40), np.nan))
    (root / "depth/train/3.npy").write_bytes(b"no array")
    found = titles(examine(root / "dataset.yaml"), refused=True)
    assert found == {"files of the label parts": 2, "files of the label depth": 2}
    write_sheet(tmp_path / "sheet.png", report, SIZE)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[0] > 6 * 192


def test_bundles_of_arrays(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for folder, shape in (("image", (16, 24, 3)), ("label", (16, 24)), ("normal", (16, 24, 3))):
            (tmp_path / split / folder).mkdir(parents=True)
            for number in range(2):
                np.save(tmp_path / split / folder / f"{number}.npy", np.full(shape, number / 2 if folder != "label" else 1.0))
    report = examine(tmp_path)
    assert report.recognised.data == "nyuv2"
    assert titles(report, refused=True) == {}
    np.save(tmp_path / "train/label/1.npy", np.full((16, 24), 13.0))
    (tmp_path / "val/image/0.npy").write_bytes(b"cut")
    (tmp_path / "val/image/1.npy").write_bytes(b"cut")
    found = titles(examine(tmp_path), refused=True)
    assert found["files of the label segmentation"] == 1
    assert found["arrays that cannot be opened"] == 2
    with pytest.raises(UserError):
        read_multitask_set("nyuv2", tmp_path, "val")


def test_folders_of_classes(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 26, "val": 4})
    report = examine(tmp_path)
    assert (report.recognised.task, report.counts["train"]) == ("classification", {"images": 26, "classes": 2})
    assert titles(report, refused=True) == {}
    write_sheet(tmp_path / "sheet.png", report, SIZE)
    assert (tmp_path / "sheet.png").is_file()
    for number in range(1, 13):
        (tmp_path / f"train/dog/{2 * number + 1}.jpg").unlink()
    (tmp_path / "val/cat/0.jpg").write_bytes(b"no image")
    (tmp_path / "train/empty").mkdir()
    (tmp_path / "train/bare").mkdir()
    report = examine(tmp_path)
    assert titles(report, refused=True) == {"classes without images": 2, "images that cannot be decoded": 1}
    for name in ("empty", "bare"):
        (tmp_path / "train" / name).rmdir()
    (tmp_path / "train/cow").mkdir()
    shutil.copy(tmp_path / "train/dog/1.jpg", tmp_path / "train/cow/1.jpg")
    report = examine(tmp_path)
    assert titles(report, refused=True)["classes to train on or to validate on, and not both"] == 1
    assert "classes are uneven" in text_of(report)
    assert read_folder(tmp_path, "train").classes == ("cat", "cow", "dog")


@pytest.mark.parametrize(
    ("name", "origin"), [("data.yaml", "yolo-pose"), ("annotations.xml", "cvat"), ("tasks.json", "label-studio")]
)
def test_other_formats_are_to_be_converted(tmp_path: Path, name: str, origin: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=f"--from {origin} --to coco"):
        examine(tmp_path)


def test_what_is_no_data_set(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no data set is recognised"):
        examine(tmp_path / "empty")
    with pytest.raises(UserError, match=r"one in .*/set: give that folder"):
        examine(tmp_path)
    (tmp_path / "empty/labels.json").write_text("{}")
    for path in (tmp_path / "empty", tmp_path / "empty/labels.json"):
        with pytest.raises(UserError, match=r"labels\.json.*convert .*labels.json --from coco --to coco --out NEW"):
            examine(path)
    with pytest.raises(UserError, match="no such file"):
        examine(tmp_path / "none")
    with pytest.raises(UserError, match="--task classification; it looks like --task pose --data coco"):
        examine(root, task="classification")


def test_the_sheet_shows_each_way_a_sample_is_seen(root: Path, tmp_path: Path) -> None:
    """Where no point has a side, the mirror image of the labels is the labels of training's mirror image."""
    change(root, lambda d: d["categories"][0].update(flip_pairs=[]))
    change(root, lambda d: [entry.update(bbox=[0, 0, 60, 60]) for entry in d["annotations"]])
    report = examine(root)
    write_sheet(tmp_path / "sheet.png", report, SIZE)
    sheet = cv2.imread(str(tmp_path / "sheet.png")).astype(int)
    width = (sheet.shape[1] - 6) // len(COLUMNS)
    cells = [sheet[30:-6, 6 + i * width : i * width + width] for i in range(len(COLUMNS))]
    labels, mirrored, training = cells[1], cells[2], cells[3]
    assert np.abs(labels[:, ::-1] - mirrored).mean() < 1
    assert np.abs(training - mirrored).mean() < 4 < np.abs(training - labels).mean()


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_of_damaged_documents_it_refuses_those_that_training_refuses(root: Path, first: int) -> None:
    path = root / "annotations/person_keypoints_train.json"
    document = json.loads(path.read_text())
    outcomes = set()
    for seed in range(first, first + 20):
        path.write_text(json.dumps(damaged(document, seed)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sigmas are inferred
            try:
                read_people("coco", root, "train")
                refused = False
            except UserError:
                refused = True
        report = examine(root)
        assert bool(report.findings.refused) == refused, f"seed {seed}: {text_of(report)}"
        outcomes.add(refused)
    assert outcomes == {True, False}
