"""Crops of people for top-down pose estimation, and their augmentation."""

from __future__ import annotations

import bisect
import itertools
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rpgmt.data.coco.people import CocoPeople, Person
from rpgmt.data.transforms import (
    crop_affine,
    enlarged_size,
    from_reduced,
    invert,
    seen_rows,
    spare_reduction,
    transform_points,
    warp,
)

HALF_BODY_PADDING = 1.5
"""Enlargement of the box round half a body, in place of the data set's padding."""
UPPER_BODY = 0.7
"""Probability of the upper body when a body is cut down to a half of it."""
HALF_BODY_POINTS = 3
"""Fewer labelled points do not show where a half is."""

_PHILOX, _PHILOX_LOCK = np.random.Philox(0), threading.Lock()
_PHILOX_START = _PHILOX.state


@dataclass(frozen=True)
class Changes:
    """What changes a crop: the arguments of `crop_affine`, and what `PoseCrops` does besides."""

    flip: bool = False
    scale: float = 1.0
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    half_body: Literal["upper", "lower"] | None = None
    pixel_seed: int | None = None
    occlusion_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of a crop, all uniform and independent.

    Args:
        flip: probability of a mirror image; left and right points are swapped.
        scale: the box is enlarged by a factor from [1 - scale, 1 + scale], as the field has it: the person shrinks or grows.
        rotation: the crop is turned by up to ± this many degrees.
        rotation_probability: of being turned at all.
        shift: the crop's centre moves by up to ± this part of the crop, along either axis.
        shift_probability: of being moved at all.
        half_body: probability that a person with more than half of the key points labelled (9 of COCO's 17) is cut down
            to the upper body (in 7 of 10 cases) or the rest. Of the half, 3 points are to be labelled, or it is the
            other one (Sun et al., HRNet, arXiv 1902.09212, section 4.1, after Wang et al., MSCOCO Keypoints Challenge 2018).
        zooms: the crop shows a part of the box, of 1/zoom its width and height and anywhere in it; one of these by chance, all
            as likely (Liu et al., MTAN, arXiv 1803.10704, public code: 1, 1.2 and 1.5).
        pixels: probability of other colours, sharpness or noise, see `rpgmt.data.pixels.change_pixels`.
        occlusion: probability of a box over a part of the crop, see `rpgmt.data.pixels.hide_part`.

    Raises:
        ValueError: a value is out of range.
    """

    flip: float = 0.5
    scale: float = 0.25
    rotation: float = 30.0
    rotation_probability: float = 1.0
    shift: float = 0.0
    shift_probability: float = 1.0
    half_body: float = 0.0
    zooms: tuple[float, ...] = (1.0,)
    pixels: float = 0.0
    occlusion: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "rotation_probability", "shift_probability", "half_body", "pixels", "occlusion"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: give a probability from 0 to 1")
        if not 0 <= self.scale < 1:
            raise ValueError(f"`scale` is {self.scale}: give a number from 0 to below 1, e.g. 0.25")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"`rotation` is {self.rotation}: give degrees from 0 to 180")
        if not self.zooms or min(self.zooms) < 1:
            raise ValueError(f"`zooms` is {self.zooms}: give at least one number, each from 1, e.g. 1, 1.2, 1.5")
        if not 0 <= self.shift <= 1:
            raise ValueError(f"`shift` is {self.shift}: give a part of the crop from 0 to 1, e.g. 0.1")

    def draw(self, seed: int, epoch: int, index: int, stream: int = 0) -> Changes:
        """The changes of a sample: a function of (seed, epoch, index, stream) alone."""
        # One number for each question, asked or not: switching one change on leaves the others as they were.
        numbers = _random_numbers(seed, epoch, index, stream, 16)
        flip, scale, angle, right, down, turn, move, halve, half, pixels, occlusion, pixel_seed, occlusion_seed = numbers[:13]
        zoom = self.zooms[int(numbers[13] * len(self.zooms))]
        free = 1 - 1 / zoom  # of the box, which the crop may move in
        rotation = self.rotation if turn < self.rotation_probability else 0.0
        shift = self.shift if move < self.shift_probability else 0.0
        return Changes(
            flip=flip < self.flip,
            scale=zoom / (1 + self.scale * (2 * scale - 1)),
            rotation=rotation * (2 * angle - 1),
            shift=(shift * (2 * right - 1) + free * (numbers[14] - 0.5), shift * (2 * down - 1) + free * (numbers[15] - 0.5)),
            half_body=("upper" if half < UPPER_BODY else "lower") if halve < self.half_body else None,
            pixel_seed=int(pixel_seed * 2**32) if pixels < self.pixels else None,
            occlusion_seed=int(occlusion_seed * 2**32) if occlusion < self.occlusion else None,
        )


class PoseCrops:
    """One crop for each person: a map-style data set, asked by (epoch, index).

    A sample is a dict of

    - `image`: uint8 (H, W, 3), RGB
    - `keypoints`: float32 (K, 2), (x, y) in pixels of the crop
    - `visibility`: int64 (K,), 0 not labelled, 1 hidden, 2 visible; how far outside the crop a point counts, the codec says
    - `to_image`: float64 (2, 3), the affine from pixels of the crop to pixels of the person's image
    - `index`: of the person in `people.people`, where the rest stands (image, box, area, score)

    A crop meets one interpolation, whatever changes it. Where a person is larger than the crop, the image is asked for
    reduced by a power of two, and in any case without the rows below the crop: that spares much of a JPEG's decoding. The
    last image is kept, for the next person on it.

    Args:
        people: who is cut out, and of what. Detections, without labels, give samples whose visibility is all 0.
        input_size: (W, H) of the crop in pixels.
        augment: random changes; None gives the same crop in every epoch.
        seed: of the augmentation.
        padding: enlargement of the box.
        stream: of the random changes: parts of a mixed data set that have one seed have streams of their own.
    """

    def __init__(
        self,
        people: CocoPeople,
        input_size: tuple[int, int],
        *,
        augment: Augmentation | None = None,
        seed: int = 0,
        padding: float = 1.25,
        stream: int = 0,
    ) -> None:
        self.people = people
        self.input_size = input_size
        self.augment = augment
        self.seed = seed
        self.padding = padding
        self.stream = stream
        self._last: tuple[Any, dict[int, tuple[int, np.ndarray]]] = (None, {})
        self._flip_order = np.array(people.keypoints.flip_order, np.int64)
        self._upper = np.isin(np.arange(len(people.keypoints)), people.keypoints.upper)
        if augment and augment.half_body and not self._upper.any():
            text = f"{people.name}: no key points are known as the upper body, so `half_body` {augment.half_body} has no effect"
            warnings.warn(text, stacklevel=2)

    def __len__(self) -> int:
        """The number of people."""
        return len(self.people.people)

    def areas(self) -> np.ndarray:
        """(P,) square pixels of the image that each crop shows when nothing changes it."""
        sizes = (enlarged_size(person.box[2:], self.input_size, self.padding) for person in self.people.people)
        return np.array([width * height for width, height in sizes])

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The sample of person `index` in epoch `epoch`."""
        epoch, index = key
        person = self.people.people[index]
        changes = self.augment.draw(self.seed, epoch, index, self.stream) if self.augment else Changes()
        affine = self._affine(person, changes)
        to_image = invert(affine)
        points, visibility = transform_points(affine, person.keypoints), person.visibility
        if changes.flip:
            points, visibility = points[self._flip_order], visibility[self._flip_order]
        return {
            "image": self._pixels(person.image, affine, to_image, changes),
            "keypoints": points.astype(np.float32),
            "visibility": visibility,
            "to_image": to_image,
            "index": index,
        }

    def _affine(self, person: Person, changes: Changes) -> np.ndarray:
        box, padding = person.box, self.padding
        if changes.half_body and (half := half_body_box(person, self._upper, changes.half_body)):
            box, padding = half, HALF_BODY_PADDING
        return crop_affine(
            box,
            self.input_size,
            padding=padding,
            flip=changes.flip,
            scale=changes.scale,
            rotation=changes.rotation,
            shift=changes.shift,
        )

    def _pixels(self, entry: dict[str, Any], affine: np.ndarray, to_image: np.ndarray, changes: Changes) -> np.ndarray:
        rows = min(max(1, seen_rows(to_image, self.input_size)), entry["height"])
        image = self._image(entry, spare_reduction(affine), rows)
        crop = warp(image, from_reduced(affine, _reduction(image, entry, rows)), self.input_size)
        if changes.pixel_seed is not None or changes.occlusion_seed is not None:
            from rpgmt.data import pixels

            if changes.pixel_seed is not None:
                crop = pixels.change_pixels(crop, changes.pixel_seed)
            if changes.occlusion_seed is not None:
                crop = pixels.hide_part(crop, changes.occlusion_seed)
        return crop

    def _image(self, entry: dict[str, Any], reduction: int, rows: int) -> np.ndarray:
        """An image down to a row, or further: whatever was read before, the crop is the same bit for bit."""
        number, images = self._last
        if number != entry["id"]:
            self._last = entry["id"], (images := {})
        known, image = images.get(reduction, (0, None))
        if image is None or known < rows:
            rows = entry["height"] if known else rows  # for the second person who sees more, all that others may see
            image = self.people.read_image(entry, reduction, rows)
            images[reduction] = rows, image
        return image


class MixedCrops:
    """Several `PoseCrops`, one after another, as one data set; a sample's `index` runs through all of them.

    Args:
        parts: with crops of one size and with as many key points.

    Raises:
        ValueError: there are none, or they do not fit together.
    """

    def __init__(self, parts: Sequence[PoseCrops]) -> None:
        if not parts:
            raise ValueError("`parts` is empty: give at least one data set")
        if len(kinds := {(part.input_size, len(part.people.keypoints)) for part in parts}) > 1:
            found = ", ".join(f"{width}×{height} with {count}" for (width, height), count in sorted(kinds))
            raise ValueError(f"`parts` are {found} key points: give parts that agree, so that their samples fit in one batch")
        self.parts = list(parts)
        self._ends = list(itertools.accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        """The number of people in all parts."""
        return self._ends[-1]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The sample of person `index`, counted through all parts, in epoch `epoch`."""
        epoch, index = key
        if not 0 <= index < len(self):
            raise IndexError(f"`index` is {index}: give a number from 0 to {len(self) - 1}")
        number = bisect.bisect_right(self._ends, index)
        start = self._ends[number] - len(self.parts[number])
        return {**self.parts[number][epoch, index - start], "index": index}


def _random_numbers(seed: int, epoch: int, index: int, stream: int, count: int) -> list[float]:
    """The first uniform numbers, from 0 to 1, of a stream of their own for each (seed, epoch, index, stream).

    Distinct keys and counters of Philox are independent streams; the first word counts within the stream. One generator is
    set to all of them: a new one asks the system for entropy, even if it is given its key, which takes far longer.
    """
    start = {"key": np.array([seed, 0], np.uint64), "counter": np.array([0, epoch, index, stream], np.uint64)}
    state: Any = {**_PHILOX_START, "state": start}
    with _PHILOX_LOCK:
        _PHILOX.state = state
        return np.random.Generator(_PHILOX).random(count).tolist()


def half_body_box(
    person: Person, upper: np.ndarray, half: Literal["upper", "lower"]
) -> tuple[float, float, float, float] | None:
    """A box (x, y, w, h) of the size of the labelled points of half a body, round their mean.

    None where the labels do not allow to halve the body.

    Args:
        person: with more than half of the key points labelled, or nothing is halved.
        upper: bool (K,), whether a point belongs to the upper body.
        half: which one, or the other one if fewer than 3 of its points are labelled.
    """
    labelled = person.visibility > 0
    if 2 * labelled.sum() <= len(labelled) or not upper.any():
        return None
    halves = [labelled & upper, labelled & ~upper]
    chosen = next((h for h in (halves if half == "upper" else halves[::-1]) if h.sum() >= HALF_BODY_POINTS), None)
    if chosen is None:
        return None
    points = person.keypoints[chosen]
    size = points.max(0) - points.min(0) + 1  # it covers the pixels at both of its ends
    corner = points.mean(0) - (size - 1) / 2
    return float(corner[0]), float(corner[1]), float(size[0]), float(size[1])


def _reduction(image: np.ndarray, entry: dict[str, Any], rows: int) -> int:
    """By how much an image came smaller than its entry says; rows after the first `rows` may be missing."""
    for s in (1, 8, 4, 2):
        if image.shape[1] == -(-entry["width"] // s) and -(-rows // s) <= image.shape[0] <= -(-entry["height"] // s):
            return s
    size = f"{image.shape[1]}×{image.shape[0]}"
    raise ValueError(f"image {entry['id']} is {size}: give one of {entry['width']}×{entry['height']}, or reduced by 2, 4 or 8")
