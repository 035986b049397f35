"""Boxes of a person detector, from files in COCO's result format."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt.config.json_files import read_json
from rpgmt.data.coco.annotations import are_numbers, is_box, is_id, is_integer
from rpgmt.data.coco.person import Person, clip_box
from rpgmt.data.coco.units import unit_note
from rpgmt.errors import UserError


def detected_people(
    document: dict[str, Any], category: dict[str, Any], numbers: Collection[int], path: Path, threshold: float
) -> list[Person]:
    """The detections of a category on the images of a document, clipped to them.

    Args:
        document: whose images count; detections on others, and on none of it, are left out.
        category: with the key points.
        numbers: `category_id` of detections that count.
        path: a JSON list of {`image_id`, `category_id`, `bbox`: [x, y, w, h], `score`}.
        threshold: detections with a lower score are left out.

    Raises:
        UserError: the file is not such a list, or nothing is left of it.
    """
    if not path.is_file():
        raise UserError(f"`detections` is {path}: no such file: give a JSON list of COCO's box results")
    results = read_json(path)
    if not isinstance(results, list) or not results:
        raise UserError(f"{path}: not a list of detections: give COCO's box results, {{image_id, category_id, bbox, score}}")
    for number, result in enumerate(results):
        _check(result, f"{path}: detection {number}")
    found = [result for result in results if result["category_id"] in numbers]
    if not found:
        listed = ", ".join(map(str, sorted(numbers)))
        raise UserError(f"{path}: no detection has the `category_id` {listed} ({category.get('name', 'person')})")
    images = {image["id"]: image for image in document["images"]}
    here = [result for result in found if result["image_id"] in images]
    if not here:
        example, own = found[0]["image_id"], next(iter(images))
        if type(example) is not type(own):
            raise UserError(
                f"{path}: `image_id` is {example!r} where the annotations' images are {own!r}: give ids of one type"
            )
        raise UserError(f"{path}: none of {len(found)} detections is on an image of the annotations: give those of this split")
    if len(here) < len(found):
        warnings.warn(f"{path}: {len(found) - len(here)} of {len(found)} detections are on other images", stacklevel=3)
    points = len(category["keypoints"])
    if note := unit_note([result["bbox"] for result in here], [], [images[result["image_id"]] for result in here]):
        warnings.warn(f"{path}: {note}", stacklevel=3)
    below = sum(result["score"] < threshold for result in here)
    if below and threshold <= 0:  # a threshold that somebody chose needs no word
        warnings.warn(f"{path}: {below} of {len(here)} scores are below {threshold:g}: these do not count", stacklevel=3)
    people = []
    for result in here:
        box = clip_box(result["bbox"], images[result["image_id"]], str(path)) if result["score"] >= threshold else None
        if box is not None:
            people.append(
                Person(
                    annotation_id=-1,
                    image=images[result["image_id"]],
                    box=box,
                    keypoints=np.zeros((points, 2)),
                    visibility=np.zeros(points, dtype=np.int64),
                    area=box[2] * box[3],
                    score=float(result["score"]),
                )
            )
    if not people:
        best = max(result["score"] for result in here)
        if best >= threshold:
            raise UserError(f"{path}: no box overlaps its image: give `bbox` as [x, y, width, height] in its pixels")
        raise UserError(f"{path}: no detection has a score of {threshold} or more (the best is {best}): lower the threshold")
    return people


def _check(result: Any, where: str) -> None:
    if not isinstance(result, dict):
        raise UserError(f"{where} is {result!r}: give an object {{image_id, category_id, bbox, score}}")
    for key, valid, text in (
        ("image_id", is_id(result.get("image_id"), "images"), "the id of an image"),
        ("category_id", is_integer(result.get("category_id")), "the id of a category"),
        ("bbox", is_box(result.get("bbox")), "[x, y, width, height] in pixels"),
        ("score", are_numbers([result.get("score")]), "a number"),
    ):
        if not valid:
            raise UserError(f"{where}: `{key}` is {result.get(key, 'missing')!r}: give {text}")
