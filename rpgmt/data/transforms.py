"""One affine map for crop, flip, scale and rotation, applied to points and to the image in one warp.

An affine is a float64 matrix A of shape (2, 3) that sends (x, y) to A · (x, y, 1). Pixel centres lie at integers: pixel
x covers [x - 0.5, x + 0.5], and an image of width w covers [-0.5, w - 0.5]. A box (x, y, w, h) covers the pixels
x … x + w - 1, that is [x - 0.5, x + w - 0.5]: the box (0, 0, width, height) is the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import cv2
import numpy as np

_SLACK = 1e-6
"""Keeps a shrink by an exact k from rounding to k - 1."""


def crop_affine(
    box: Iterable[float],
    size: tuple[int, int],
    *,
    padding: float = 1.25,
    flip: bool = False,
    scale: float = 1.0,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """The affine from image pixels to the pixels of a crop round a box.

    The box is enlarged by `padding` and then, along one axis, to the crop's aspect ratio: with a crop of (W, H) pixels
    it becomes (b, b·H/W), b = padding · max(w, h·W/H). With c the box's centre, (x + (w-1)/2, y + (h-1)/2), a point p
    goes to

        q = (W-1, H-1)/2 + F · s · R · (p - c - d),    s = scale · W / b,   d = shift · (b, b·H/W)

    where R turns by `rotation` and F mirrors x. With scale 1 and no rotation the edges of the enlarged box fall on the
    edges of the crop, -0.5 and W - 0.5.

    Args:
        box: (x, y, w, h) in image pixels, w and h positive.
        size: (W, H), the crop in pixels.
        padding: enlargement of the box.
        flip: mirror the crop, x → W - 1 - x. The points' left and right are the caller's to swap.
        scale: size of the person relative to the crop without it.
        rotation: degrees, positive clockwise as seen on the screen (x to the right, y down).
        shift: by how much of the enlarged box the crop's centre moves, (x, y).
    """
    x, y, w, h = (float(value) for value in box)  # plain numbers: arrays as small as these take many times as long
    width, height = size
    enlarged, _ = enlarged_size((w, h), size, padding)
    factor = scale * width / enlarged
    angle = math.radians(rotation)
    c, d = factor * math.sin(angle), factor * math.cos(angle)
    a, b = (-d, c) if flip else (d, -c)
    x += (w - 1) / 2 + shift[0] * enlarged
    y += (h - 1) / 2 + shift[1] * enlarged * height / width
    return np.array([[a, b, (width - 1) / 2 - a * x - b * y], [c, d, (height - 1) / 2 - c * x - d * y]])


def enlarged_size(box_size: tuple[float, float], size: tuple[int, int], padding: float) -> tuple[float, float]:
    """Width and height of a box of (w, h) pixels, enlarged as `crop_affine` does: (b, b·H/W), b = padding · max(w, h·W/H)."""
    width, height = size
    enlarged = padding * max(box_size[0], box_size[1] * width / height)
    return enlarged, enlarged * height / width


def invert(affine: np.ndarray) -> np.ndarray:
    """The affine that undoes `affine`."""
    (a, b, x), (c, d, y) = affine.tolist()
    return np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / (a * d - b * c)


def transform_points(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Send points (…, P, 2) through affines (…, 2, 3); leading dimensions broadcast."""
    return points @ affine[..., :2].swapaxes(-1, -2) + affine[..., None, :, 2]


def shrink_factor(affine: np.ndarray) -> float:
    """How many pixels of the source, along a side, fall on one of the target: above 1 the affine makes things smaller."""
    (a, b, _), (c, d, _) = affine.tolist()
    return 1 / math.sqrt(abs(a * d - b * c))


def spare_reduction(affine: np.ndarray) -> int:
    """The largest of 1, 2, 4, 8 by which the image may be reduced first without `affine` having to enlarge it again."""
    shrink = shrink_factor(affine) + _SLACK
    return next(s for s in (8, 4, 2, 1) if s == 1 or shrink >= s)


def from_reduced(affine: np.ndarray, reduction: int) -> np.ndarray:
    """The affine for an image reduced by `reduction`, where pixel x of the full one lies at (x + 0.5)/s - 0.5."""
    middle = (reduction - 1) / 2
    return np.array([[a * reduction, b * reduction, (a + b) * middle + offset] for a, b, offset in affine.tolist()])


def seen_rows(inverse: np.ndarray, size: tuple[int, int]) -> int:
    """How many rows of the image, from its top, `warp` may look at; they may be none (≤ 0) or more than it has.

    They are rows of the full image, and enough where it was reduced by up to `spare_reduction` first.

    Args:
        inverse: the affine from pixels of the result to those of the full image.
        size: (width, height) of the result.
    """
    a, b, offset = inverse[1].tolist()
    lowest = offset + max(0.0, a * (size[0] - 1)) + max(0.0, b * (size[1] - 1))
    # A sample between the centres of two blocks, of the shrink's size at most, sees both: 1.5 blocks further on.
    return math.ceil(lowest + 1.5 * max(1.0, 1 / shrink_factor(inverse))) + 2


def warp(image: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample an image through an affine from its pixels to those of the result.

    Bilinear; what lies outside the image is black, since repeating the border draws stripes that look like limbs and
    hides from the network where the image ends. A bilinear sample sees 2×2 pixels, so an image that shrinks by k ≥ 2
    would be aliased: whole blocks of ⌊k⌋×⌊k⌋ pixels are averaged first and the blocks' grid,
    x' = (x + 0.5) / ⌊k⌋ - 0.5, is folded into the affine. The image still meets one interpolation.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        affine: (2, 3), invertible.
        size: (width, height) of the result.
    """
    blocks = math.floor(shrink_factor(affine) + _SLACK)
    inverse = invert(affine)
    if blocks >= 2:
        image, origin = _average_blocks(image, inverse, size, blocks)
        inverse[:, 2] = (inverse[:, 2] - origin + 0.5) / blocks - 0.5
        inverse[:, :2] /= blocks
    else:
        (left, top), (right, bottom) = _seen(inverse, size)
        left, top = min(max(0, left - 1), image.shape[1] - 1), min(max(0, top - 1), image.shape[0] - 1)
        image = image[top : max(top + 1, bottom + 2), left : max(left + 1, right + 2)]
        inverse[:, 2] -= left, top
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)  # OpenCV interpolates four channels more than twice as fast as three
    result = cv2.warpAffine(
        image,
        inverse,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    return cv2.cvtColor(result, cv2.COLOR_RGBA2RGB) if image.ndim == 3 else result


def _seen(inverse: np.ndarray, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first and the last pixel, (x, y), between which the result looks at the image; they may lie outside of it."""
    (a, b, x), (c, d, y) = inverse.tolist()
    width, height = size
    first = x + min(-a, a * width) + min(-b, b * height), y + min(-c, c * width) + min(-d, d * height)
    last = x + max(-a, a * width) + max(-b, b * height), y + max(-c, c * width) + max(-d, d * height)
    return (math.floor(first[0]), math.floor(first[1])), (math.ceil(last[0]), math.ceil(last[1]))


def _average_blocks(
    image: np.ndarray, inverse: np.ndarray, size: tuple[int, int], blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Block means of the part of the image that the result can see, and that part's first pixel (x, y)."""
    limits = np.array([image.shape[1], image.shape[0]])
    first, last = (np.array(pixel) for pixel in _seen(inverse, size))
    first = np.clip((first - blocks) // blocks * blocks, 0, (limits - 1) // blocks * blocks)
    counts = np.clip(-((first - last - blocks) // blocks), 1, -(-(limits - first) // blocks))
    last = first + counts * blocks
    part = image[first[1] : last[1], first[0] : last[0]]
    # The last block of a row or column may stick out of the image, where everything is black.
    below, right = int(last[1] - first[1]) - part.shape[0], int(last[0] - first[0]) - part.shape[1]
    if below or right:
        part = cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_CONSTANT, value=0)
    return cv2.resize(part, (int(counts[0]), int(counts[1])), interpolation=cv2.INTER_AREA), first
