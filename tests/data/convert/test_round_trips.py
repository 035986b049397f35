"""What goes into a format and comes back is the same, up to what the format cannot hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.labelled_set import NAMES, PAIRS, SKELETON, random_document, write_set

from rpgmt.data.catalog import read_people
from rpgmt.data.coco.annotations import AREA_RULE
from rpgmt.data.convert.conversion import FORMATS, convert
from rpgmt.data.convert.labels import box_round
from rpgmt.errors import UserError


def read_split(root: Path, split: str) -> dict[str, Any]:
    return json.loads((root / f"annotations/person_keypoints_{split}.json").read_text())


def people_of(document: dict[str, Any], root: Path, split: str) -> dict[bytes, list[Any]]:
    """Of each image, by the bytes of its file, size and people: box, area and points."""
    found: dict[bytes, list[Any]] = {}
    for image in document["images"]:
        data = (root / "images" / split / image["file_name"]).read_bytes()
        people = [entry for entry in document["annotations"] if entry["image_id"] == image["id"]]
        rows = [(entry["bbox"], round(entry["area"], 6), entry["keypoints"], entry["num_keypoints"]) for entry in people]
        found[data] = [image["width"], image["height"], sorted(rows)]
    return found


def expected(document: dict[str, Any], target: str) -> dict[str, Any]:
    """What a format keeps of a document."""
    document = json.loads(json.dumps(document))
    sizes = {image["id"]: (image["width"], image["height"]) for image in document["images"]}
    for entry in document["annotations"]:
        if target in ("deeplabcut", "sleap"):  # no visibility, no boxes
            flat = entry["keypoints"] = [2 if i % 3 == 2 and value else value for i, value in enumerate(entry["keypoints"])]
            points = list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
            box = box_round(points, *sizes[entry["image_id"]])
            entry |= {"bbox": [round(value, 6) for value in box], "area": AREA_RULE * box[2] * box[3]}
    return document


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_there_and_back_is_the_same(tmp_path: Path, target: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    documents = {"train": random_document(random, 4, most=seed), "val": random_document(random, 2, most=seed)}
    write_set(tmp_path / "source", documents)
    convert(tmp_path / "source", tmp_path / "there", origin="coco", target=target)
    convert(tmp_path / "there", tmp_path / "back", origin=target, target="coco")
    for split, document in documents.items():
        back = read_split(tmp_path / "back", split)
        kept = expected(document, target)
        assert people_of(back, tmp_path / "back", split) == people_of(kept, tmp_path / "source", split)
        (category,) = back["categories"]
        assert category["keypoints"] == NAMES
        if target in ("coco", "cvat", "sleap"):
            assert category["skeleton"] == SKELETON
        if target in ("coco", "yolo-pose", "sleap"):
            assert category["flip_pairs"] == PAIRS
        if target not in ("deeplabcut",):
            assert category["name"] == "cat"
            assert {image["file_name"] for image in back["images"]} == {image["file_name"] for image in document["images"]}
        assert read_people("coco", tmp_path / "back", split, sigmas=[0.05] * 6, flip_pairs=PAIRS).people


def test_coco_itself_keeps_every_field(tmp_path: Path) -> None:
    document = random_document(np.random.default_rng(0), 3)
    document["annotations"][0] |= {"segmentation": [[1, 2, 3, 4, 5, 6]], "area": 12.5, "note": "x"}
    document["annotations"].append({**document["annotations"][0], "id": 99, "iscrowd": 1})
    document["categories"][0]["sigmas"] = [0.1] * 6
    write_set(tmp_path / "source", {"train": document, "val": document})
    done = convert(tmp_path / "source", tmp_path / "out", origin="coco", target="coco")
    assert read_split(tmp_path / "out", "train") == document
    assert done.notes == []


def test_what_yolo_refuses_is_cut_off(tmp_path: Path) -> None:
    document = random_document(np.random.default_rng(0), 1)
    image = document["images"][0]
    width = image["width"]
    person = document["annotations"][0]
    document["annotations"] = [person]
    person["bbox"] = [-10, 5, width + 30, 20]
    person["keypoints"][:3] = [width + 5, 1, 2]
    write_set(tmp_path / "source", {"train": document, "val": document})
    done = convert(tmp_path / "source", tmp_path / "there", origin="coco", target="yolo-pose")
    text = (tmp_path / "there/labels/train" / Path(image["file_name"]).with_suffix(".txt")).read_text()
    values = [float(word) for word in text.split()]
    assert min(values) >= 0
    assert max(values[1:5]) <= 1
    assert values[5:8] == [0, 0, 0]
    assert any(note.startswith("2 boxes cut off") for note in done.notes)  # the splits are alike
    assert any(note.startswith("2 key points outside") for note in done.notes)
    convert(tmp_path / "there", tmp_path / "back", origin="yolo-pose", target="coco")
    assert read_split(tmp_path / "back", "train")["annotations"][0]["bbox"] == [0, 5, width, 20]


@pytest.mark.parametrize("target", FORMATS)
def test_nothing_is_overwritten(tmp_path: Path, target: str) -> None:
    document = random_document(np.random.default_rng(0), 2)
    write_set(tmp_path / "source", {"train": document, "val": document})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="new or an empty folder"):
        convert(tmp_path / "source", tmp_path / "out", origin="coco", target=target)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_links_in_place_of_copies(tmp_path: Path) -> None:
    document = random_document(np.random.default_rng(0), 2)
    write_set(tmp_path / "source", {"train": document, "val": document})
    convert(tmp_path / "source", tmp_path / "out", origin="coco", target="coco", link=True)
    path = tmp_path / "out/images/train" / document["images"][0]["file_name"]
    assert path.is_symlink()
    assert path.read_bytes() == (tmp_path / "source/images/train" / document["images"][0]["file_name"]).read_bytes()


def test_a_source_without_splits_gets_images_to_validate_on(tmp_path: Path) -> None:
    document = random_document(np.random.default_rng(0), 10)
    write_set(tmp_path / "source", {"train": document})
    options = {"origin": "coco", "target": "coco", "val": 0.3}
    first = convert(tmp_path / "source", tmp_path / "a", seed=1, **options)  # type: ignore[arg-type]
    again = convert(tmp_path / "source", tmp_path / "b", seed=1, **options)  # type: ignore[arg-type]
    other = convert(tmp_path / "source", tmp_path / "c", seed=2, **options)  # type: ignore[arg-type]
    assert [len(part.images) for part in first.parts] == [7, 3]
    val = [{image["id"] for image in done.parts[1].images} for done in (first, again, other)]
    assert val[0] == val[1] != val[2]
    both = [image["id"] for part in first.parts for image in part.images]
    assert sorted(both) == [image["id"] for image in document["images"]]
    people = [entry["id"] for part in first.parts for entry in part.annotations]
    assert sorted(people) == [entry["id"] for entry in document["annotations"]]
    assert any("3 of 10 images" in note for note in first.notes)
