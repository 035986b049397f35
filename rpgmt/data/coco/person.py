"""The people of a document: who is cut out of which image."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from rpgmt.data.coco.annotations import are_numbers, person_annotations
from rpgmt.data.coco.units import unit_note
from rpgmt.data.regions import Box, Entry, Region
from rpgmt.errors import UserError


@dataclass(frozen=True)
class Person:
    """An annotated person, or a box in which a detector found one.

    Attributes:
        annotation_id: its id in the document; -1 for a detection.
        image: the document's entry of its image: `id`, `width`, `height`, `file_name`.
        box: (x, y, w, h) in image pixels.
        keypoints: float64 (K, 2), x and y in image pixels; (0, 0) where not labelled, so everywhere for a detection.
        visibility: int64 (K,): 0 not labelled, 1 labelled and hidden, 2 visible.
        area: of the person's segment, in square pixels; of the box for a detection.
        score: of the detector; 1 for an annotation.
    """

    annotation_id: int
    image: Entry
    box: Box
    keypoints: np.ndarray
    visibility: np.ndarray
    area: float
    score: float = 1.0

    @property
    def region(self) -> Region:
        """What is cut out."""
        return Region(self.image, self.box)


def annotated_people(document: dict[str, Any], name: str, clip: bool) -> list[Person]:
    """Everybody with a labelled key point who is no crowd and whose box overlaps the image.

    Args:
        document: in COCO's format.
        name: of the data set, for messages.
        clip: cut the boxes off at the image's edges; else they stay as they are, wherever they lie.

    Raises:
        UserError: the document is malformed, or nobody is left.
    """
    images = {image["id"]: image for image in document["images"]}
    people, outside = [], 0
    boxes, poses, shown = [], [], []
    for annotation in person_annotations(document, name):
        points = np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
        if annotation["iscrowd"] or annotation["num_keypoints"] == 0:
            continue
        image = images[annotation["image_id"]]
        inside = clip_box(annotation["bbox"], image, name)
        boxes.append(annotation["bbox"])
        poses.append(points)
        shown.append(image)
        if inside is None:
            outside += 1
            continue
        x, y, w, h = annotation["bbox"]
        labelled = points[:, 2:] > 0
        people.append(
            Person(
                annotation_id=annotation["id"],
                image=image,
                box=inside if clip else (float(x), float(y), float(w), float(h)),
                keypoints=np.where(labelled, points[:, :2], 0.0),
                visibility=points[:, 2].astype(np.int64),
                area=float(annotation["area"]),
            )
        )
    if note := unit_note(boxes, poses, shown, clip=clip):
        warnings.warn(f"{name}: {note}", stacklevel=3)
    if not people:
        raise UserError(f"{name}: nobody to train on or evaluate: no person has a labelled key point and a box in the image")
    if outside:
        warnings.warn(f"{name}: {outside} people are left out: their boxes are empty or outside the image", stacklevel=3)
    return people


def has_size(image: Entry) -> bool:
    """Whether an image's entry has a width and a height in whole pixels."""
    size = image.get("width"), image.get("height")
    return are_numbers(size) and min(size) > 0 and all(value == int(value) for value in size)


def clip_box(box: Any, image: Entry, name: str) -> Box | None:
    """The part of a box (x, y, w, h) that lies in its image; None where that is empty.

    Raises:
        UserError: the image has no size.
    """
    if not has_size(image):
        given = f"{image.get('width', 'missing')!r} and {image.get('height', 'missing')!r}"
        raise UserError(f"{name}: image {image['id']} needs `width` and `height` in whole pixels: they are {given}")
    width, height = image["width"], image["height"]
    x, y, w, h = box
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, width), min(y + h, height)
    if right <= left or bottom <= top:
        return None
    return float(left), float(top), float(right - left), float(bottom - top)
