from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.few_people import few_people

from rpgmt.data.catalog import read_people
from rpgmt.data.coco.people import CocoPeople
from rpgmt.errors import UserError
from rpgmt.metrics.coco import CocoEvaluator

pytestmark = pytest.mark.filterwarnings("ignore:.*taken from the names")


def _animals(other: tuple[str, ...] = ("a", "b")) -> dict[str, Any]:
    """Three images with an x, a dog and a car each."""
    document, _ = few_people([5000.0] * 3)
    document["categories"].append({"id": 9, "name": "dog", "keypoints": list(other)})
    for image in document["images"]:
        dog = {**document["annotations"][0], "id": 100 + image["id"], "image_id": image["id"], "category_id": 9}
        car = {"id": 200 + image["id"], "image_id": image["id"], "category_id": 4}
        document["annotations"] += [{**dog, "keypoints": [20, 20, 2] * len(other)}, car]
    return document


def _no_image(image: dict) -> np.ndarray:
    raise AssertionError(image)


def test_categories_with_the_same_points_are_one_by_default() -> None:
    document = _animals()
    before = copy.deepcopy(document)
    with pytest.warns(UserWarning, match="x: 2 categories with the same key points count as one: x, dog; --categories NAME"):
        found = CocoPeople(document, _no_image, name="x")
    assert document == before
    assert sorted(person.annotation_id for person in found.people) == [1, 2, 3, 100, 107, 114]
    assert (found.category_id, found.category_ids) == (3, {3, 9})
    everybody = [
        {"image_id": p.image["id"], "category_id": 3, "score": 1, "keypoints": [*p.keypoints[0], 1, *p.keypoints[1], 1]}
        for p in found.people
    ]
    assert CocoEvaluator(found.annotations, found.keypoints).metrics(everybody)["AR"] == 1


def test_what_the_first_of_joined_categories_decides_is_said() -> None:
    document = _animals()
    document["categories"][-1] |= {"sigmas": [0.5, 0.5], "flip_pairs": []}
    with (
        pytest.warns(UserWarning, match="count as one"),
        pytest.warns(UserWarning, match="x: the categories differ in sigmas, flip_pairs: those of x count for all"),
    ):
        CocoPeople(document, _no_image, name="x")


def test_categories_are_chosen_by_name_or_id() -> None:
    for chosen, people in ((("dog",), 3), (("9",), 3), (("x", "dog"), 6)):
        found = CocoPeople(_animals(), _no_image, categories=chosen)
        assert len(found.people) == people
    assert found.category_id == 3
    assert len(CocoPeople(_animals(("tip", "tail", "ear")), _no_image, categories=("dog",)).keypoints) == 3


def test_detections_of_all_joined_categories_count(tmp_path: Path) -> None:
    boxes = [{"image_id": 0, "category_id": number, "bbox": [1, 1, 50, 50], "score": 1} for number in (3, 9, 4)]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    people = CocoPeople(_animals(), _no_image, categories=("x", "dog"))
    assert len(people.with_detections(tmp_path / "boxes.json").people) == 2
    people = CocoPeople(_animals(), _no_image, categories=("dog",))
    assert len(people.with_detections(tmp_path / "boxes.json").people) == 1


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (None, "categories x and dog have other key points: choose by --categories NAME"),
        (("x", "dog"), "categories x and dog have other key points"),
        (("cat",), "`categories` has 'cat': the categories with key points of animals are x, dog"),
        (("car",), "`categories` has 'car': the categories with key points"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(chosen: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        CocoPeople(_animals(("tip",)), _no_image, name="animals", categories=chosen)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["3", None, True, [3], 3.5])
def test_a_category_id_that_is_no_integer_is_an_error(number: Any) -> None:
    document, _ = few_people([5000.0] * 3)
    for annotation in document["annotations"][1:]:
        annotation["category_id"] = number
    text = r"x: annotation 2: `category_id` is .*: give an integer, an `id` of `categories` \(3, 4\) \(2 of 3 annotations"
    with pytest.raises(UserError, match=text):
        CocoPeople(document, _no_image, name="x")
    del document["annotations"][1]["category_id"]
    with pytest.raises(UserError, match="annotation 2: `category_id` is missing"):
        CocoPeople(document, _no_image)


def test_annotations_of_categories_that_are_not_listed_are_counted() -> None:
    document, _ = few_people([5000.0] * 3)
    document["annotations"][1]["category_id"] = 77
    text = "x: 1 of 3 annotations are left out: `categories` lacks their `category_id` 77"
    with pytest.warns(UserWarning, match=text):
        assert len(CocoPeople(document, _no_image, name="x").people) == 2


def test_other_sets_have_no_categories_to_choose(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`categories` is .*: lsp has its own; give it for data coco only"):
        read_people("lsp", tmp_path, "val", categories=("a",))
