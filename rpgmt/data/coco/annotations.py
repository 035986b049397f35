"""Documents in COCO's key-point format, read and checked."""

from __future__ import annotations

from collections.abc import Sequence
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
    points = found[0]["keypoints"]
    if not isinstance(points, list) or not all(isinstance(point, str) and point for point in points):
        raise UserError(f"{name}: category {found[0]['id']}: `keypoints` is to be a list of names, e.g. [nose, left_eye]")
    doubled = [point for point in points if points.count(point) > 1]
    if doubled:
        raise UserError(f"{name}: category {found[0]['id']}: `keypoints` has {doubled[0]!r} twice: give different names")
    return found[0]


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
    # COCO's are integers; images go by their name in many files of others.
    types, text = ((int, str), "an integer or a string") if key == "images" else ((int,), "an integer")
    seen = set()
    for entry in entries:
        if not isinstance(entry["id"], types):
            raise UserError(f"{name}: an `id` in `{key}` is {entry['id']!r}: give {text}")
        if entry["id"] in seen:
            raise UserError(f"{name}: two entries of `{key}` have the `id` {entry['id']!r}: give each one of its own")
        seen.add(entry["id"])


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
    if not isinstance(image, int | str) or image not in images:
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
    if strange := set(points[2::3]) - {0, 1, 2}:
        raise UserError(f"{where}: v of a key point is {min(strange)}: give 0 not labelled, 1 hidden or 2 visible")
    # Counted anew: the evaluation trusts the count, and people whose count is wrong would be looked for or ignored in vain.
    labelled = sum(v > 0 for v in points[2::3])
    complete = {"iscrowd": 0, "area": 0, **annotation, "keypoints": points, "num_keypoints": labelled}
    if not are_numbers([complete["iscrowd"]]):
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
    # The range rejects NaN and infinities; one pass without NumPy, as there may be 262,000 annotations.
    return isinstance(values, list | tuple) and all(isinstance(value, int | float) and -1e9 < value < 1e9 for value in values)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")
