"""Crops of people for top-down pose estimation, and their augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rpgmt.data.coco import CocoPeople
from rpgmt.data.transforms import crop_affine, invert, transform_points, warp


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of a crop, all uniform and independent.

    Args:
        flip: probability of a mirror image; left and right points are swapped.
        scale: the person's size is multiplied by a factor from [1 - scale, 1 + scale].
        rotation: the crop is turned by up to ± this many degrees.
        shift: the crop's centre moves by up to ± this part of the crop, along either axis.

    Raises:
        ValueError: a value is out of range.
    """

    flip: float = 0.5
    scale: float = 0.25
    rotation: float = 30.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ValueError(f"`flip` is {self.flip}: give a probability from 0 to 1")
        if not 0 <= self.scale < 1:
            raise ValueError(f"`scale` is {self.scale}: give a number from 0 to below 1, e.g. 0.25")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"`rotation` is {self.rotation}: give degrees from 0 to 180")
        if not 0 <= self.shift <= 1:
            raise ValueError(f"`shift` is {self.shift}: give a part of the crop from 0 to 1, e.g. 0.1")

    def draw(self, seed: int, epoch: int, index: int) -> dict[str, Any]:
        """The arguments of `crop_affine` for a sample: a function of (seed, epoch, index) alone."""
        # Distinct keys and counters of Philox are independent streams; the first word counts within the stream.
        flip, scale, rotation, right, down = np.random.Generator(
            np.random.Philox(key=[seed, 0], counter=[0, epoch, index, 0])
        ).random(5)
        return {
            "flip": bool(flip < self.flip),
            "scale": 1 + self.scale * (2 * scale - 1),
            "rotation": self.rotation * (2 * rotation - 1),
            "shift": (self.shift * (2 * right - 1), self.shift * (2 * down - 1)),
        }


class PoseCrops:
    """One crop for each person: a map-style data set, asked by (epoch, index).

    A sample is a dict of

    - `image`: uint8 (H, W, 3), RGB
    - `keypoints`: float32 (K, 2), (x, y) in pixels of the crop
    - `visibility`: int64 (K,), 0 not labelled or outside the crop, 1 hidden, 2 visible
    - `to_image`: float64 (2, 3), the affine from pixels of the crop to pixels of the person's image
    - `index`: of the person in `people.people`, where the rest stands (image, box, area)

    Args:
        people: who is cut out, and of what.
        input_size: (W, H) of the crop in pixels.
        augment: random changes; None gives the same crop in every epoch.
        seed: of the augmentation.
        padding: enlargement of the box.
    """

    def __init__(
        self,
        people: CocoPeople,
        input_size: tuple[int, int],
        *,
        augment: Augmentation | None = None,
        seed: int = 0,
        padding: float = 1.25,
    ) -> None:
        self.people = people
        self.input_size = input_size
        self.augment = augment
        self.seed = seed
        self.padding = padding
        self._flip_order = np.array(people.keypoints.flip_order)

    def __len__(self) -> int:
        """The number of people."""
        return len(self.people.people)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The sample of person `index` in epoch `epoch`."""
        epoch, index = key
        person = self.people.people[index]
        changes = self.augment.draw(self.seed, epoch, index) if self.augment else {}
        affine = crop_affine(person.box, self.input_size, padding=self.padding, **changes)
        points, visibility = transform_points(affine, person.keypoints), person.visibility
        if changes.get("flip"):
            points, visibility = points[self._flip_order], visibility[self._flip_order]
        inside = ((points >= -0.5) & (points < np.array(self.input_size) - 0.5)).all(-1)
        return {
            "image": warp(self.people.read_image(person.image), affine, self.input_size),
            "keypoints": points.astype(np.float32),
            "visibility": np.where(inside, visibility, 0),
            "to_image": invert(affine),
            "index": index,
        }
