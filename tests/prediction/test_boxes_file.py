"""Boxes from a file: which image they are of, and whose they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpgmt.errors import UserError
from rpgmt.prediction.command.boxes import Boxes, read_boxes


def document(*names: str) -> dict[str, Any]:
    return {
        "images": [{"id": 10 + i, "file_name": name, "width": 100, "height": 80} for i, name in enumerate(names)],
        "annotations": [],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "person", "keypoints": ["nose", "tail"]}],
    }


def person(image: int | str, box: list[float], **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image, "category_id": 7, "bbox": box, **more}


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_whose_boxes_count_is_as_in_an_evaluation(tmp_path: Path) -> None:
    found = document("a.jpg")
    found["annotations"] = [
        person(10, [1, 2, 30, 40], keypoints=[5, 5, 2, 0, 0, 0]),
        person(10, [1, 2, 30, 41], keypoints=[0] * 6),  # nothing is labelled
        person(10, [1, 2, 30, 42], iscrowd=1),
        person(10, [1, 2, 30, 43]) | {"category_id": 3},
        person(10, [90, 70, 30, 40]),  # goes over the edge
        person(10, [200, 70, 30, 40]),  # outside
    ]
    boxes = read_boxes(write(tmp_path / "a.json", found), None)
    assert boxes.category_id == 7
    image = boxes.of("some/where/a.jpg")
    assert (image.id, image.size) == (10, (100, 80))
    np.testing.assert_array_equal(image.boxes, [[1, 2, 30, 40, 1], [90, 70, 10, 10, 1]])  # type: ignore[arg-type]


def test_categories_with_key_points_count_as_one_as_in_training(tmp_path: Path) -> None:
    found = document("a.jpg")
    found["categories"].append({"id": 9, "name": "dog", "keypoints": ["nose", "tail"]})
    found["images"][0]["id"] = 10.0  # of a table
    found["annotations"] = [person(10.0, [1, 2, 30, 40]), person(10, [1, 2, 30, 41], id=2) | {"category_id": 9.0}]
    image = read_boxes(write(tmp_path / "a.json", found), None).of("a.jpg")
    np.testing.assert_array_equal(image.boxes[:, 3], [40, 41])  # type: ignore[index]


def test_the_folders_of_a_name_count(tmp_path: Path) -> None:
    found = document("x.jpg", "b/x.jpg", "y.jpg")
    found["annotations"] = [person(10, [0, 0, 1, 1]), person(11, [0, 0, 2, 2]), person(12, [0, 0, 3, 3])]
    boxes = read_boxes(write(tmp_path / "a.json", found), None)
    assert [boxes.of(path).id for path in ("a/x.jpg", "a/b/x.jpg", "c/y.jpg", "c/y.jpg")] == [10, 11, 12, 12]
    with pytest.raises(UserError, match=r"names one image, y\.jpg, for it and for c/y\.jpg"):
        boxes.of("d/y.jpg")
    with pytest.raises(UserError, match=r"z\.jpg: .* names no such image"):
        boxes.of("z.jpg")


def test_results_find_their_images_by_a_document_or_by_their_own_names(tmp_path: Path) -> None:
    rows = [{"image_id": 10, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.25}]
    images = write(tmp_path / "images.json", {"images": document("a.jpg")["images"], "categories": document()["categories"]})
    for boxes in (
        read_boxes(write(tmp_path / "1.json", rows), images),
        read_boxes(write(tmp_path / "2.json", [{**rows[0], "category_id": 1, "file_name": "a.jpg"}]), None),
        read_boxes(write(tmp_path / "3.json", [{"file_name": "a.jpg", "bbox": [1, 2, 3, 4], "score": 0.25}]), None),
    ):
        np.testing.assert_array_equal(boxes.of("a.jpg").boxes, [[1, 2, 3, 4, 0.25]])  # type: ignore[arg-type]
    assert boxes.of("a.jpg").id == "a.jpg"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (1, "neither a COCO document nor a list"),
        ({"images": []}, "needs a list `annotations`"),
        ([], "nobody with a box"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], "has no `file_name`: give the document with its images by --annotations"),
        ([{"file_name": "a", "bbox": [1, 2, 3]}], r"entry 0: `bbox` is '\[1, 2, 3\]'"),
        ([{"file_name": "a", "bbox": [1, 2, 3, 4], "score": "x"}], "`score` is 'x': give a number"),
        ([5], "entry 0 has no `file_name`"),
        ({**document("a"), "annotations": [5]}, "nobody with a box"),
        ({**document(), "images": [{"id": 1}], "annotations": [person(1, [1, 2, 3, 4])]}, "no `id` or no `file_name`"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(value: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line) as error:
        read_boxes(write(tmp_path / "a.json", value), None)
    assert "\n" not in str(error.value)


def test_an_image_without_boxes_has_none() -> None:
    boxes = Boxes([{"id": 1, "file_name": "a.jpg"}], [], 1, "file")
    assert boxes.of("a.jpg").boxes.shape == (0, 5)  # type: ignore[union-attr]
