from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.people_files import SIZE, write_coco, write_detections

from rpgmt.data.coco.data_root import find_files
from rpgmt.data.coco.people import CocoPeople
from rpgmt.errors import UserError


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> CocoPeople:
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder, 3)
    return CocoPeople.from_files(*find_files(folder, "val"))


def _write(path: Path, *results: object) -> Path:
    path.write_text(json.dumps(results))
    return path


def _result(**changes: object) -> dict:
    return {"image_id": 0, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5, **changes}


def test_boxes_of_the_person_category_replace_the_annotated_ones(people: CocoPeople, tmp_path: Path) -> None:
    write_detections(tmp_path / "found.json", people.annotations)
    before = copy.deepcopy(people.annotations)
    for threshold, extra in ((0.0, 3), (0.05, 3), (0.1, 0)):
        found = people.with_detections(tmp_path / "found.json", threshold)
        assert len(found.people) == len(people.annotations["annotations"]) + extra  # and no car
    assert (found.boxes, people.boxes) == ("detected boxes", "gt boxes")
    assert found.annotations is people.annotations  # the evaluation's truth
    assert found.annotations == before
    assert (found.category_id, found.keypoints) == (people.category_id, people.keypoints)
    assert all(person.annotation_id > 0 and person.score == 1 for person in people.people)
    for person, annotation in zip(found.people, people.annotations["annotations"], strict=True):
        x, y, w, h = annotation["bbox"]
        assert person.box == (x + 1, y, min(w, SIZE - x - 1), min(h, SIZE - y))
        assert person.area == person.box[2] * person.box[3]
        assert (person.annotation_id, person.score, person.image["id"]) == (-1, 0.9, annotation["image_id"])
        assert person.keypoints.shape == (17, 2)
        assert not person.keypoints.any()
        assert not person.visibility.any()
    assert found.read_image(found.people[0].image).shape == (SIZE, SIZE, 3)


def test_boxes_are_clipped_and_empty_ones_left_out(people: CocoPeople, tmp_path: Path) -> None:
    path = _write(
        tmp_path / "found.json",
        _result(bbox=[-10, -20, 30, 40]),
        _result(bbox=[90, 90, 30, 40]),
        _result(bbox=[SIZE, 0, 5, 5]),
        _result(bbox=[5, 5, 0, 5]),
    )
    assert [person.box for person in people.with_detections(path, 0).people] == [(0, 0, 20, 20), (90, 90, 6, 6)]


def test_detections_on_other_images_are_left_out_with_a_note(people: CocoPeople, tmp_path: Path) -> None:
    path = _write(tmp_path / "found.json", _result(image_id=999), _result(), _result(image_id=998))
    with pytest.warns(UserWarning, match=r"found\.json: 2 of 3 detections are on other images"):
        assert len(people.with_detections(path, 0).people) == 1


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "not a list of detections"),
        ([3], "detection 0 is 3: give an object"),
        ([_result(), {}], "detection 1: `image_id` is 'missing': give the id of an image"),
        ([_result(image_id=[1])], r"detection 0: `image_id` is \[1\]"),
        ([_result(category_id=None)], "detection 0: `category_id` is None"),
        ([_result(bbox=[1, 2, 3])], r"detection 0: `bbox` is \[1, 2, 3\]: give \[x, y, width, height\]"),
        ([_result(bbox=[1, 2, 3, float("nan")])], "detection 0: `bbox` is .*nan"),
        ([_result(score="high")], "detection 0: `score` is 'high': give a number"),
        ([_result(category_id=5)], r"no detection has the `category_id` 1 \(person\)"),
        ([_result(image_id=77)], "none of 1 detections is on an image of the annotations"),
        ([_result(score=0.25)], r"has a score of 0\.3 or more \(the best is 0\.25\)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(people: CocoPeople, tmp_path: Path, results: list, message: str) -> None:
    with pytest.raises(UserError, match=rf"found\.json: .*{message}") as caught:
        people.with_detections(_write(tmp_path / "found.json", *results), 0.3)
    assert "\n" not in str(caught.value)


def test_a_document_instead_of_a_list_is_said(people: CocoPeople, tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("{}")
    with pytest.raises(UserError, match="not a list of detections"):
        people.with_detections(tmp_path / "found.json")
    with pytest.raises(UserError, match=r"`detections` is .*nowhere\.json: no such file"):
        people.with_detections(tmp_path / "nowhere.json")


def test_images_without_persons_count(people: CocoPeople, tmp_path: Path) -> None:
    """A detection there is of nobody and lowers AP, as in COCO's evaluation."""
    document = copy.deepcopy(people.annotations)
    document["images"].append({"id": 50, "width": 40, "height": 40, "file_name": "empty.jpg"})
    data = CocoPeople(document, lambda _: np.zeros((40, 40, 3), np.uint8))
    assert [person.annotation_id for person in data.people] == [person.annotation_id for person in people.people]
    found = data.with_detections(_write(tmp_path / "found.json", _result(image_id=50)), 0)
    assert [person.image["id"] for person in found.people] == [50]
