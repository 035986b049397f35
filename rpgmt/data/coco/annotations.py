"""Documents in COCO's key-point format, read and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from rpgmt.errors import UserError

AREA_RULE = 0.53
"""Area of a person without a segment as part of a box, CrowdPose's rule: it brings boxes to the level of COCO's segments."""


def keypoint_category(document: Any, name: str = "annotations") -> dict[str, Any]:
    """The document's one category with key points.

    Raises:
        UserError: the document lacks one of COCO's three lists, ids are missing, doubled or no numbers, there is no such
            category or more than one, or its key points are not different names.
    """
    check_lists(document, name)
    found = [category for category in document["categories"] if category.get("keypoints")]
    if len(found) != 1:
        names = ", ".join(str(category.get("name", category["id"])) for category in found) or "none"
        raise UserError(f"{name}: one category with a list `keypoints` of names is needed, found: {names}")
    keypoint_names(found[0], name)
    return found[0]


def keypoint_names(category: dict[str, Any], name: str) -> list[str]:
    """The `keypoints` of a category that has them.

    Raises:
        UserError: they are not different names.
    """
    points = category["keypoints"]
    if not isinstance(points, list) or not all(isinstance(point, str) and point for point in points):
        raise UserError(f"{name}: category {category['id']}: `keypoints` is to be a list of names, e.g. [nose, left_eye]")
    doubled = [point for point in points if points.count(point) > 1]
    if doubled:
        raise UserError(f"{name}: category {category['id']}: `keypoints` has {doubled[0]!r} twice: give different names")
    return points


def check_lists(document: Any, name: str = "annotations") -> None:
    """Raise UserError where one of COCO's three lists is missing or empty, or ids are missing, doubled or no numbers."""
    if not isinstance(document, dict):
        raise UserError(f"{name}: not a COCO document: the top level is to be an object, not {_kind(document)}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            raise UserError(f"{name}: not a COCO document: it needs a list `{key}`")
        if not document[key]:
            raise UserError(f"{name}: the list `{key}` is empty: give at least one entry")
        if not all(isinstance(entry, dict) and "id" in entry for entry in document[key]):
            raise UserError(f"{name}: not a COCO document: every entry of `{key}` is to be an object with an `id`")
        _check_ids(document[key], key, name)


def _check_ids(entries: list[dict[str, Any]], key: str, name: str) -> None:
    text = "an integer or a string" if key == "images" else "an integer"
    numbers = [entry["id"] for entry in entries]
    plain: set[type] = {int, str} if key == "images" else {int}
    if plain.issuperset(map(type, numbers)) and len(set(numbers)) == len(numbers):
        return
    seen: dict[Any, dict[str, Any]] = {}
    for entry in entries:
        if not is_id(entry["id"], key):
            raise UserError(f"{name}: an `id` in `{key}` is {entry['id']!r}: give {text}")
        other = seen.setdefault(entry["id"], entry)
        if other is not entry:
            differing = next((field for field in {**other, **entry} if other.get(field) != entry.get(field)), None)
            which = f" and differ in `{differing}`" if differing else ""
            raise UserError(f"{name}: two entries of `{key}` have the `id` {entry['id']!r}{which}: give each one of its own")


def is_id(value: Any, key: str) -> TypeGuard[int | str]:
    """Whether it may be an `id` in a list of a document: an integer, of `images` also a name, as many files have it."""
    return is_integer(value) or (key == "images" and isinstance(value, str))


def person_annotations(document: dict[str, Any], name: str = "annotations") -> list[dict[str, Any]]:
    """The annotations of the category with key points, checked, with what may be left out filled in.

    Copies: the document stays as it is. `iscrowd` is 0, `keypoints` are not labelled, `num_keypoints` is counted anew and
    the `area` of a person without labelled key points, whom the evaluation ignores, is that of the box.

    Raises:
        UserError: a box, an image or the area of a labelled person is missing, or key points do not fit the category.
    """
    category = keypoint_category(document, name)
    count = len(category["keypoints"])
    images = {image["id"] for image in document["images"]}
    return [
        complete_annotation(annotation, count, images, name)
        for annotation in document["annotations"]
        if annotation.get("category_id") == category["id"]
    ]


def complete_annotation(annotation: dict[str, Any], count: int, images: set[Any], name: str) -> dict[str, Any]:
    """A copy of an annotation of a category with `count` key points, checked and completed as `person_annotations` does.

    Args:
        annotation: of the document, with an `id`.
        count: of the category's key points.
        images: ids of the document's images.
        name: of the document, for messages.

    Raises:
        UserError: see `person_annotations`.
    """
    where = f"{name}: annotation {annotation['id']}"
    image = annotation.get("image_id")
    if not is_id(image, "images") or image not in images:
        raise UserError(f"{where}: `image_id` is {image!r}, which is not in `images`")
    box = annotation.get("bbox")
    if not is_box(box):
        raise UserError(f"{where}: `bbox` is {box!r}: give [x, y, width, height] in pixels")
    points = annotation.get("keypoints") or [0] * (3 * count)
    if not isinstance(points, list | tuple) or len(points) != 3 * count:
        raise UserError(
            f"{where}: `keypoints` is to be {3 * count} numbers, x, y, v for each of the category's {count} names"
            + (f"; there are {len(points)}" if isinstance(points, list) else "")
        )
    if not are_numbers(points):
        wrong = next(value for value in points if not are_numbers([value]))
        raise UserError(f"{where}: `keypoints` holds {wrong!r}: give numbers, x, y, v for each point")
    flags = points[2::3]
    if strange := set(flags) - {0, 1, 2}:
        raise UserError(f"{where}: v of a key point is {min(strange)}: give 0 not labelled, 1 hidden or 2 visible")
    # Counted anew: the evaluation trusts the count, and people whose count is wrong would be looked for or ignored in vain.
    labelled = len(flags) - flags.count(0)
    complete = {"iscrowd": 0, "area": 0, **annotation, "keypoints": points, "num_keypoints": labelled}
    if not are_numbers([complete["iscrowd"]]) or complete["iscrowd"] not in (0, 1):
        raise UserError(f"{where}: `iscrowd` is {complete['iscrowd']!r}: give 0 or 1, or leave it out")
    if not are_numbers([complete["area"]]) or complete["area"] <= 0:
        if complete["num_keypoints"] > 0:
            given = repr(annotation["area"]) if "area" in annotation else "missing"
            raise UserError(
                f"{where}: `area` is {given}: give the segment's area in square pixels, "
                f"or where there are no segments {AREA_RULE} · width · height of the box"
            )
        complete["area"] = box[2] * box[3]
    return complete


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Whether it is four numbers, as of (x, y, width, height)."""
    return are_numbers(value) and len(value) == 4


def are_numbers(values: Any) -> TypeGuard[Sequence[float]]:
    """Whether it is a list or tuple of finite numbers."""
    if not isinstance(values, list | tuple):
        return False
    # In a few calls for all of them, as there may be 262,000 annotations: min and max may overlook NaN, a sum does not.
    plain = {int, float}.issuperset(map(type, values)) or all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    return plain and (not values or (-1e9 < min(values) <= max(values) < 1e9 and not math.isnan(sum(values))))


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether it is an integer, and neither true nor false."""
    return isinstance(value, int) and not isinstance(value, bool)


def folder_of(name: str) -> str:
    """Where a document's file lies, or its name where it is none: notes that the files of two splits share name it."""
    return str(Path(name).parent) if name.endswith(".json") else name


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")
