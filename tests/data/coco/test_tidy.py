"""Documents as pandas, merging scripts and editors write them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.few_people import few_people

from rpgmt.config.json_files import read_json
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.tidy import tidy
from rpgmt.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:.*taken from the names")


def _no_image(image: dict) -> np.ndarray:
    raise AssertionError(image)


def test_whole_numbers_that_were_written_as_floats_are_read() -> None:
    document, _ = few_people([5000.0] * 2)
    plain = CocoPeople(document, _no_image).people
    floats = copy.deepcopy(document)
    for key, fields in {
        "images": ("id", "width", "height"),
        "annotations": ("id", "image_id", "category_id"),
        "categories": ("id",),
    }.items():
        for entry in floats[key]:
            entry |= {field: float(entry[field]) for field in fields}
    floats["annotations"][0]["iscrowd"] = False
    before = copy.deepcopy(floats)
    found = CocoPeople(floats, _no_image)
    assert floats == before
    assert json.dumps(found.annotations["images"]) == json.dumps(document["images"])
    assert [(p.annotation_id, p.image, p.box) for p in found.people] == [(p.annotation_id, p.image, p.box) for p in plain]
    assert all(type(value) is int for person in found.people for value in (person.annotation_id, person.image["width"]))
    assert found.category_id == 3


def test_what_is_plain_stays_the_same_object() -> None:
    document, _ = few_people([5000.0] * 2)
    assert tidy(document) is document
    assert CocoPeople(document, _no_image).annotations is document
    for anything in ([], None, {"images": 5}, {"images": [None, {"id": [1]}]}):
        assert tidy(anything) is anything


def test_entries_that_stand_twice_count_once() -> None:
    document, _ = few_people([5000.0] * 2)
    document["images"] += [dict(document["images"][1]), document["images"][0]]
    document["annotations"].append(dict(document["annotations"][0]))
    with pytest.warns(UserWarning, match="entries of `(images|annotations)` stand twice and count once") as caught:
        found = CocoPeople(document, _no_image, name="x")
    texts = [str(warning.message) for warning in caught if "twice" in str(warning.message)]
    assert [text.partition(": ")[2][:6] for text in texts] == ["2 of 4", "1 of 3"]
    assert [len(found.annotations[key]) for key in ("images", "annotations")] == [2, 2]
    document["images"][-1] = {**document["images"][0], "width": 7}
    with (
        pytest.warns(UserWarning, match="stand twice"),
        pytest.raises(
            UserError, match="two entries of `images` have the `id` 0 and differ in `width`: give each one of its own"
        ),
    ):
        CocoPeople(document, _no_image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["images"][0].update(id=True), "an `id` in `images` is True: give an integer or a string"),
        (lambda d: d["images"][0].update(id=7.5), "an `id` in `images` is 7.5: give an integer or a string"),
        (lambda d: d["images"][0].update(id=float("nan")), "an `id` in `images` is nan: give"),
        (lambda d: d["annotations"][0].update(id=False), "an `id` in `annotations` is False: give an integer"),
        (lambda d: d["annotations"][0].update(id="1"), "an `id` in `annotations` is '1': give an integer"),
        (lambda d: d["annotations"][0].update(image_id=True), "`image_id` is True, which is not in `images`"),
        (lambda d: d["annotations"][0].update(iscrowd=7), "annotation 1: `iscrowd` is 7: give 0 or 1"),
        (lambda d: d["annotations"][0].update(iscrowd=0.5), "annotation 1: `iscrowd` is 0.5: give 0 or 1"),
        (lambda d: d["annotations"][0]["keypoints"].__setitem__(0, True), "annotation 1: `keypoints` holds True: give numbers"),
        (
            lambda d: d["images"][0].update(width=64.5),
            "image 0 needs `width` and `height` in whole pixels: they are 64.5 and 200",
        ),
        (lambda d: d["images"][0].update(width=True), "image 0 needs `width` and `height` in whole pixels: they are True"),
    ],
)
def test_what_is_not_whole_is_said_in_one_line(change: Any, message: str) -> None:
    document, _ = few_people([5000.0] * 2)
    change(document)
    with pytest.raises(UserError, match=message) as caught:
        CocoPeople(document, _no_image)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "x.json") == {"a": 1}
