"""Crops of people with their key points, for top-down pose estimation."""

from __future__ import annotations

import bisect
import itertools
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from rpgmt.data.augmentation import Augmentation
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.person import Person
from rpgmt.data.crops import RegionCrops
from rpgmt.data.mirror_classes import lone_sides
from rpgmt.data.regions import Box, Region, Regions
from rpgmt.data.transforms import transform_points

HALF_BODY_PADDING = 1.5
"""Enlargement of the box round half a body, in place of the data set's padding."""
HALF_BODY_POINTS = 3
"""Fewer labelled points do not show where a half is."""


class PoseCrops:
    """One crop for each person: a map-style data set, asked by (epoch, index).

    A sample is that of `rpgmt.data.crops.RegionCrops` of the person's box, and besides

    - `keypoints`: float32 (K, 2), (x, y) in pixels of the crop
    - `visibility`: int64 (K,), 0 not labelled, 1 hidden, 2 visible; how far outside the crop a point counts, the codec says

    `index` is that of the person in `people.people`, where the rest stands (image, box, area, score).

    Args:
        people: who is cut out, and of what. Detections, without labels, give samples whose visibility is all 0.
        input_size, augment, seed, padding, stream: as of `RegionCrops`.
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
        options: Any = {"augment": augment, "seed": seed, "padding": padding, "stream": stream}
        self._crops = RegionCrops(people.regions, input_size, **options)
        self._flip_order = np.array(people.keypoints.flip_order, np.int64)
        self._upper = np.isin(np.arange(len(people.keypoints)), people.keypoints.upper)
        if augment and not self._upper.any():
            augment.warn_without_halves(people.name)
        if augment and augment.flip and (lone := lone_sides(people.keypoints.names, people.keypoints.flip_pairs)):
            text = f"{people.name}: mirror images keep the key points {', '.join(lone)}, which have a side and no flip pair"
            warnings.warn(f"{text}: give pairs, or --flip 0", stacklevel=2)

    @property
    def regions(self) -> Regions:
        """The people's boxes."""
        return self._crops.regions

    @property
    def input_size(self) -> tuple[int, int]:
        """(W, H) of the crop in pixels."""
        return self._crops.input_size

    def areas(self) -> np.ndarray:
        """(P,) square pixels of the image that each crop shows when nothing changes it."""
        return self._crops.areas()

    def __len__(self) -> int:
        """The number of people."""
        return len(self._crops)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The sample of person `index` in epoch `epoch`."""
        _, index = key
        person = self.people.people[index]
        changes = self._crops.changes(key)
        region, padding = person.region, None
        if changes.half_body and (half := half_body_box(person, self._upper, changes.half_body)):
            region, padding = Region(person.image, half), HALF_BODY_PADDING
        crop = self._crops.cut(region, changes, padding)
        points, visibility = transform_points(crop.affine, person.keypoints), person.visibility
        if changes.flip:
            points, visibility = points[self._flip_order], visibility[self._flip_order]
        return {
            "image": crop.image,
            "keypoints": points.astype(np.float32),
            "visibility": visibility,
            "to_image": crop.to_image,
            "index": index,
        }


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
        if len(shapes := {(part.input_size, len(part.people.keypoints)) for part in parts}) > 1:
            found = ", ".join(f"{width}×{height} with {count}" for (width, height), count in sorted(shapes))
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


def half_body_box(person: Person, upper: np.ndarray, half: Literal["upper", "lower"]) -> Box | None:
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
