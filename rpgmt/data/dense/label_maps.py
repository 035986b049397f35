"""Dense labels (a class, a depth or a normal for each pixel) under the affine that cuts a crop out of their image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.transforms import shrink_factor

Kind = Literal["classes", "parts", "depth", "normals"]

IGNORE = -1
"""Class of pixels without a label. Depth is 0 there, a normal (0, 0, 0)."""


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """What a label map holds, which says how it moves with its image and which head predicts it.

    Args:
        kind: "classes" and "parts" (of a body): whole numbers from 0, -1 where there is no label; "depth": a positive
            number, 0 where there is no label; "normals": unit vectors in the camera's frame (x right, y down, z forward),
            (0, 0, 0) where there is no label.
        classes: names of the classes, in their order.
        swaps: pairs of classes, left and right, that a mirror image exchanges.
        inverse: of depth: the numbers are in proportion to 1 / depth, as a disparity is.
    """

    kind: Kind
    classes: tuple[str, ...] = ()
    swaps: tuple[tuple[int, int], ...] = ()
    inverse: bool = False

    @property
    def categorical(self) -> bool:
        return self.kind in ("classes", "parts")

    def missing(self, shape: tuple[int, int]) -> NDArray:
        """A map of (height, width) without any label."""
        if self.categorical:
            return np.full(shape, IGNORE, np.int16)
        return np.zeros(shape if self.kind == "depth" else (*shape, 3), np.float32)


def warp_maps(
    maps: Mapping[str, NDArray], labels: Mapping[str, LabelMap], to_image: NDArray, size: tuple[int, int]
) -> dict[str, NDArray]:
    """Dense labels of a crop.

    Each pixel of the crop takes the label of the image's pixel that its centre falls on: labels are never mixed, as the mean of
    two depths on either side of an edge is the depth of nothing. Pixels outside of the image have no label.

    The labels themselves change as if a camera had seen the crop. A mirror image exchanges left and right classes and negates
    x of normals, a turn of the image turns their x and y. Where the crop enlarges the image by s, depth is divided by s: the
    usual convention, by which a person twice as large stands at half the distance of the same camera. Inverse depth is
    multiplied by s.

    Args:
        maps: for each of `labels` (H, W) or, normals, (H, W, 3); one that is missing gives a map without labels.
        labels: what the maps hold.
        to_image: the affine (2, 3) from pixels of the crop to pixels of the image.
        size: (width, height) of the crop.

    Returns:
        For each of `labels` an array of the crop: int16 (h, w), float32 (h, w) or float32 (h, w, 3).
    """
    width, height = size
    (a, b, x0), (c, d, y0) = to_image.tolist()
    x, y = np.arange(width), np.arange(height)[:, None]
    column = np.floor(a * x + b * y + (x0 + 0.5)).astype(np.int64)
    row = np.floor(c * x + d * y + (y0 + 0.5)).astype(np.int64)
    found: dict[tuple[int, ...], tuple[NDArray, NDArray]] = {}
    result = {}
    for name, kind in labels.items():
        if name not in maps:
            result[name] = kind.missing((height, width))
            continue
        values = maps[name]
        limits = values.shape[:2]
        if limits not in found:  # as a rule all maps of an image have its size
            outside = (column < 0) | (row < 0) | (column >= limits[1]) | (row >= limits[0])
            place = row * limits[1] + column
            place[outside] = 0
            found[limits] = place, outside
        place, outside = found[limits]
        taken = values.reshape(limits[0] * limits[1], *values.shape[2:])[place]
        taken = _as_seen(taken, kind, to_image)
        taken[outside] = IGNORE if kind.categorical else 0
        result[name] = taken
    return result


def _as_seen(values: NDArray, kind: LabelMap, to_image: NDArray) -> NDArray:
    """Labels as a camera that sees the crop would have them."""
    if kind.kind == "depth":
        enlarged = np.float32(shrink_factor(to_image))
        return values.astype(np.float32) * (enlarged if kind.inverse else 1 / enlarged)
    linear = to_image[:, :2]
    if kind.kind == "normals":
        turned = values.astype(np.float32)
        # The inverse of an affine that only turns, mirrors and enlarges is its transpose, over the square of the scale.
        turned[..., :2] = values[..., :2] @ (linear * shrink_factor(to_image)).astype(np.float32)
        return turned
    values = values.astype(np.int16)
    if kind.swaps and mirrors(to_image):
        order = np.arange(-1, max(len(kind.classes), 1 + max(map(max, kind.swaps))))  # looked up at the class + 1
        for left, right in kind.swaps:
            order[[left + 1, right + 1]] = right, left
        values = order[values + 1].astype(np.int16)
    return values


def mirrors(to_image: NDArray) -> bool:
    """Whether an affine (2, 3) of a crop makes a mirror image."""
    (a, b, _), (c, d, _) = to_image.tolist()
    return math.copysign(1, a * d - b * c) < 0
