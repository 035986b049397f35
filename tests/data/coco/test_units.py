"""Numbers that do not fit are noted with the likely cause, and good ones never."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.units import unit_note

Change = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[Any, Any]]


def _document(count: int = 20) -> dict[str, Any]:
    """Two people with four points in each of some images of 160×120, boxes and points anywhere."""
    random = np.random.default_rng(0)
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 160, "height": 120} for number in range(count)]
    annotations = []
    for number in range(2 * count):
        box = np.concatenate([random.uniform(5, 60, 2), random.uniform(40, 60, 2)])
        points = box[:2] + random.uniform(0.1, 0.9, (4, 2)) * box[2:]
        flat = np.concatenate([points, random.integers(1, 3, (4, 1))], axis=1).ravel().tolist()
        annotations.append({"id": number, "image_id": number % count, "category_id": 1, "bbox": box.tolist(), "area": 9})
        annotations[-1]["keypoints"] = flat
    category = {"id": 1, "keypoints": ["a", "b", "c", "d"], "sigmas": [0.1] * 4, "flip_pairs": []}
    return {"images": images, "annotations": annotations, "categories": [category]}


def _notes(document: dict[str, Any], **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CocoPeople(document, lambda _: None, name="x", **options)  # type: ignore[arg-type,return-value]
    return [str(warning.message) for warning in caught if "taken from the names" not in str(warning.message)]


SIZE = np.array([160, 120])

MISTAKES: dict[str, tuple[Change, str]] = {
    "corners": (lambda x, y, p: ([*x, *(x + y)], p), "if `bbox` were x1, y1, x2, y2: give x, y, width, height"),
    "corners, y first": (lambda x, y, p: ([*x[::-1], *(x + y)[::-1]], p), "if `bbox` were y1, x1, y2, x2"),
    "middle": (lambda x, y, p: ([*(x + y / 2), *y], p), "if `bbox` were the middle, width and height"),
    "points in 0…1": (lambda x, y, p: ([*x, *y], p / SIZE), "all numbers of the key points are at most 1.5, as parts"),
    "boxes in 0…1": (lambda x, y, p: ([*x / SIZE, *y / SIZE], p), "all numbers of the boxes are at most 1.5, as parts"),
    "all in 0…1": (lambda x, y, p: ([*x / SIZE, *y / SIZE], p / SIZE), "numbers of the boxes and the key points are at most"),
    "points of twice the size": (lambda x, y, p: ([*x, *y], 2 * p), "if `bbox` and `keypoints` had one scale"),
    "points of half the size": (lambda x, y, p: ([*x, *y], p / 2), "if `bbox` and `keypoints` had one scale"),
    "boxes of thrice the size": (lambda x, y, p: ([*3 * x, *3 * y], p), "if `bbox` and `keypoints` had one scale"),
    "all of twice the size": (lambda x, y, p: ([*2 * x, *2 * y], 2 * p), "if `bbox` and `keypoints` were of larger images"),
    "points from the box": (lambda x, y, p: ([*x, *y], p - x), "if `keypoints` were relative to their box"),
    "points y first": (lambda x, y, p: ([*x, *y], p[:, ::-1]), "if x and y were exchanged in `bbox`, or in `keypoints`"),
    "boxes y first": (lambda x, y, p: ([*x[::-1], *y[::-1]], p), "if x and y were exchanged in `bbox`, or in `keypoints`"),
}


def _changed(document: dict[str, Any], change: Change) -> dict[str, Any]:
    document = copy.deepcopy(document)
    for entry in document["annotations"]:
        box, flat = np.array(entry["bbox"]), np.array(entry["keypoints"]).reshape(-1, 3)
        bbox, flat[:, :2] = change(box[:2], box[2:], flat[:, :2])
        entry |= {"bbox": [float(value) for value in bbox], "keypoints": flat.ravel().tolist()}
    return document


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_numbers_and_its_cause(mistake: str) -> None:
    change, text = MISTAKES[mistake]
    notes = [note for note in _notes(_changed(_document(), change)) if "left out" not in note]
    assert len(notes) == 1
    assert text in notes[0]
    assert "\n" not in notes[0]
    if "all numbers" not in notes[0]:
        count = int(notes[0].removeprefix("x: ").partition(" of ")[0].replace(",", ""))
        assert count >= 5, notes


@pytest.mark.parametrize("every", [2, 3, 4, 8])
def test_of_boxes_some_of_which_are_corners_these_are_named(every: int) -> None:
    document = _document()
    random = np.random.default_rng(5)
    for number, entry in enumerate(document["annotations"]):
        start, size = np.array([40, 30]) + random.uniform(10, 30, 2), random.uniform(30, 45, 2)
        if number % every == 0:
            start = SIZE - size - 1
        points = start + random.uniform(0.1, 0.9, (4, 2)) * size
        entry["bbox"] = [*start, *(start + size if number % every == 0 else size)]
        entry["keypoints"] = np.concatenate([points, np.full((4, 1), 2)], axis=1).ravel().tolist()
    (note,) = (note for note in _notes(document) if "left out" not in note)
    count = -(-len(document["annotations"]) // every)
    told = f"{count} of 40 boxes stick out of their image; nearly all would fit if `bbox` of the {count} that stick out were x1"
    assert told in note
    assert "larger images" not in note


def test_some_boxes_that_are_too_large_are_no_sign_of_larger_images() -> None:
    document = _document()
    for entry in document["annotations"][::3]:
        entry["bbox"][2:] = [400, 300]
    (note,) = _notes(document)
    assert "14 of 40 boxes stick out of their image: give x, y, width, height and x, y, v in pixels" in note


def test_what_no_reading_explains_is_told_without_a_cause() -> None:
    document = _document()
    random = np.random.default_rng(1)
    shuffled = _changed(document, lambda x, y, p: ([*x, 5, 5], random.uniform(0, 100, (4, 2))))
    (note,) = _notes(shuffled)
    assert "labelled key points lie outside their person's box: give x, y, width, height and x, y, v in pixels" in note


def test_few_people_and_good_sets_are_silent(shared_data: Path, shared_fixtures: Path) -> None:
    assert _notes(_document()) == []
    assert _notes(_changed(_document(2), MISTAKES["middle"][0])) == []  # four people may be anything
    wide = _changed(_document(), lambda x, y, p: ([*x - 100, *y + 200], p))
    assert _notes(wide, clip=False) == []  # MPII's boxes stick out
    files = [*(shared_data / "coco").glob("*.json"), *(shared_fixtures / "coco_eval").glob("*_val.json")]
    files.append(shared_fixtures / "coco_eval/fce_keypoints_gt.json")
    assert len(files) >= 5
    for file in files:
        document = json.loads(file.read_text())
        document["annotations"] = [{"area": 1, **entry} for entry in document["annotations"]]  # CrowdPose has none
        assert not [note for note in _notes(document) if "box" in note or "pixels" in note], file


def test_a_detector_s_boxes_as_corners_are_noted(tmp_path: Path) -> None:
    document = _document()
    boxes = [
        {
            "image_id": e["image_id"],
            "category_id": 1,
            "score": 1,
            "bbox": [*e["bbox"][:2], *np.add(e["bbox"][:2], e["bbox"][2:])],
        }
        for e in document["annotations"]
    ]
    for name, sign in (("corners", 1), ("boxes", -1)):
        found = [
            {**box, "bbox": box["bbox"] if sign > 0 else e["bbox"]}
            for box, e in zip(boxes, document["annotations"], strict=True)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    people = CocoPeople(document, lambda _: None)  # type: ignore[arg-type,return-value]
    people.with_detections(tmp_path / "boxes.json")
    with pytest.warns(UserWarning, match="boxes stick out of their image; nearly all would fit if `bbox` were x1, y1, x2, y2"):
        people.with_detections(tmp_path / "corners.json")


def test_of_a_detector_s_boxes_some_corners_are_told_without_a_cause_and_larger_images_with_it() -> None:
    document = _document()
    images = [document["images"][entry["image_id"]] for entry in document["annotations"]]
    boxes = np.array([entry["bbox"] for entry in document["annotations"]])
    boxes[:, 0] += 35
    larger = unit_note((boxes * 2).tolist(), (), images)
    assert larger is not None
    assert "were of larger images" in larger
    boxes[::3, 2:] += boxes[::3, :2]
    some = unit_note(boxes.tolist(), (), images)
    assert some is not None
    assert "of 40 boxes stick out of their image: give x, y, width, height" in some
