"""Where the people of a COCO document are: its segments as a dense label."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from rpgmt.data.coco.annotations import are_numbers, person_annotations
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.dense.label_maps import IGNORE, LabelMap
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.regions import Entry
from rpgmt.errors import UserError

MOST_PIXELS = 2**28
"""Of an image whose map is drawn: a byte each."""
_FAR, _LONGEST = 1000, 10**6
"""Pixels that a polygon may stick out beyond an image of twice the size, and that it may be round: COCO's code takes memory
for each pixel of the outline, inside the image or not."""


def with_person_masks(people: CocoPeople) -> MultiTaskSet:
    """People and, of each image, a map `segmentation` with the classes background and person.

    A pixel is a person where any of the image's annotated people is, whether with key points or without. It has no label
    (-1) in a crowd's segment or in the box of somebody without a segment, where nobody else is: there may be people.

    Segments are COCO's: polygons, drawn by COCO's own code at the image's size, run lengths, or run lengths as text.

    Args:
        people: of a document, whose other categories do not count.

    Raises:
        UserError: a segment is malformed; the line names the annotation. (Run lengths as text when they are read.)
    """
    return MultiTaskSet(
        regions=people.regions,
        people=people,
        maps={"segmentation": LabelMap(kind="classes", classes=("background", "person"))},
        read_maps=_Masks(people).read_maps,
    )


class _Masks:
    """Draws the map of an image when it is asked for, and keeps the last one for the next person on it."""

    def __init__(self, people: CocoPeople) -> None:
        self.name = people.name
        images = {person.image["id"]: person.image for person in people.people}
        self._segments: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in person_annotations(people.annotations, people.name):
            image = images.get(annotation["image_id"])
            if image is None:
                continue
            _check_size(image, people.name)
            check_segment(annotation.get("segmentation"), image, f"{people.name}: annotation {annotation['id']}")
            self._segments[image["id"]].append({key: annotation.get(key) for key in ("id", "iscrowd", "bbox", "segmentation")})
        self._last: tuple[Any, NDArray[np.int8] | None] = None, None

    def read_maps(self, entry: Entry, names: Collection[str]) -> dict[str, NDArray]:
        if "segmentation" not in names:
            return {}
        number, mask = self._last
        if mask is None or number != entry["id"]:
            mask = self._draw(entry)
            self._last = entry["id"], mask
        return {"segmentation": mask}

    def _draw(self, entry: Entry) -> NDArray[np.int8]:
        size = int(entry["height"]), int(entry["width"])
        person, unknown = np.zeros(size, bool), np.zeros(size, bool)
        for annotation in self._segments[entry["id"]]:
            if not annotation["segmentation"]:
                x, y, w, h = annotation["bbox"]
                rows, columns = (slice(max(0, math.floor(a)), max(0, math.ceil(a + b))) for a, b in ((y, h), (x, w)))
                unknown[rows, columns] = True
            else:
                segment = _segment(annotation["segmentation"], size, f"{self.name}: annotation {annotation['id']}")
                (unknown if annotation["iscrowd"] else person)[segment] = True
        return np.where(person, 1, np.where(unknown, IGNORE, 0)).astype(np.int8)


def _check_size(image: Entry, name: str) -> None:
    width, height = image["width"], image["height"]
    if width % 1 or height % 1 or width * height > MOST_PIXELS:
        raise UserError(
            f"{name}: image {image['id']} is {width}×{height}: segments are drawn in images of whole pixels, at most "
            f"{MOST_PIXELS:,}"
        )


def _segment(segmentation: Any, size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """The pixels of a checked segment, bool (H, W)."""
    if isinstance(segmentation, list):
        segmentation = rle.merge(rle.frPyObjects(segmentation, *size))
    counts = segmentation["counts"]
    if not isinstance(counts, list):
        counts = _run_lengths(counts)
        _check_counts(counts, size, where)
    # Not COCO's own decoder, which calls NumPy in a way that warns.
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[::-1]).T


def _run_lengths(text: str | bytes) -> list[int]:
    """The numbers in COCO's text: characters of 5 bits each, the lowest first, a sixth where more follow, from "0" on.

    From the fourth on, a number is the difference to the last but one before it.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text.encode("latin-1", "replace") if isinstance(text, str) else text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if shift > 60:  # no number of pixels; one without end would take hours
            return []
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _check_counts(counts: list[Any], size: Sequence[int], where: str) -> None:
    if not all(isinstance(count, int) and count >= 0 for count in counts) or sum(counts) != size[0] * size[1]:
        raise UserError(f"{where}: the `counts` of `segmentation` do not fill {size[1]}×{size[0]} pixels")


def check_segment(segmentation: Any, image: Entry, where: str) -> None:
    """Raise UserError where a segment, of the annotation `where`, is malformed."""
    if not segmentation and not isinstance(segmentation, int | float):  # missing, null or empty
        return
    if isinstance(segmentation, list):
        for polygon in segmentation:
            # Four numbers would be drawn as a box, and fewer than three corners have no inside.
            if not are_numbers(polygon) or len(polygon) % 2 or len(polygon) < 6:
                raise UserError(f"{where}: a polygon of `segmentation` is {_short(polygon)}: give x, y of 3 or more corners")
        _check_outline(segmentation, image, where)
        return
    size = [image["height"], image["width"]]
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise UserError(f"{where}: `segmentation` is {_short(segmentation)}: give polygons, or run lengths as COCO does")
    if segmentation["size"] != size:
        raise UserError(f"{where}: `segmentation` has size {_short(segmentation['size'])}: its image's is {size}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        _check_counts(counts, size, where)
    elif not isinstance(counts, str | bytes) or not counts:
        raise UserError(f"{where}: the `counts` of `segmentation` are {_short(counts)}: give a list of numbers, or text")


def _check_outline(polygons: Sequence[Sequence[float]], image: Entry, where: str) -> None:
    """Raise UserError where polygons lie far outside the image, or are longer round than anything in it can be."""
    length = 0.0
    for polygon in polygons:
        for values, side in ((polygon[::2], image["width"]), (polygon[1::2], image["height"])):
            low, high = min(values), max(values)
            if low < -side - _FAR or high > 2 * side + _FAR:
                wrong = low if low < -side - _FAR else high
                raise UserError(
                    f"{where}: a polygon of `segmentation` has a corner at {wrong:g}, far outside its image of "
                    f"{image['width']}×{image['height']}: give x, y in its pixels"
                )
            length += len(values) * (high - low)  # at most; which is far more than it is
    if length > _LONGEST:
        outlines = (np.reshape(polygon, (-1, 2)) for polygon in polygons)
        length = sum(float(np.abs(corners - np.roll(corners, 1, axis=0)).sum()) for corners in outlines)
    if length > _LONGEST:
        raise UserError(
            f"{where}: the outline of `segmentation` is {length:.2g} pixels long, and {_LONGEST:.0e} are the most: "
            "give polygons, not a cloud of points"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
