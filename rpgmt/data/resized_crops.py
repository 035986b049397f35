"""The part of an image that is cut out and scaled to the input of a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""x, y, width, height in whole pixels."""

CENTRE = 0.875
"""Side of the part of a file that is validated on, of the largest in the input's shape: 224 of 256, the field's habit."""


def centre_box(width: int, height: int, input_size: tuple[int, int]) -> Box:
    """The centre of an image: `CENTRE` of the largest box that has the input's shape.

    Args:
        width, height: of the image in pixels.
        input_size: (width, height) of the network's input.
    """
    scale = CENTRE * min(width / input_size[0], height / input_size[1])
    w, h = (max(1, round(scale * side)) for side in input_size)
    return (width - w) // 2, (height - h) // 2, w, h


def random_box(width: int, height: int, smallest: float, random: np.random.Generator) -> Box:
    """A part of an image: area and logarithm of width / height drawn evenly; the centre after ten that do not fit.

    Args:
        width, height: of the image in pixels.
        smallest: the least part of its area.
        random: draws.
    """
    for _ in range(10):
        area = width * height * random.uniform(smallest, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(random.integers(width - w + 1)), int(random.integers(height - h + 1)), w, h
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    return (width - w) // 2, (height - h) // 2, w, h


def cut_and_scale(
    read: Callable[[int, int], NDArray[np.uint8]], width: int, box: Box, input_size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The pixels of a box, scaled to the input: uint8 (H, W, 3).

    Args:
        read: gives the image, reduced by a power of two up to the first argument and without what is below the second, a row,
            as `rpgmt.data.images.decode_image` does.
        width: of the image in pixels.
        box: the part.
        input_size: (width, height) of the network's input, 8 pixels or more each.
    """
    x, y, w, h = box
    # No larger than needed: a part that is shrunk anyway is decoded at a half, a quarter or an eighth of its size.
    shrunk = min(w / input_size[0], h / input_size[1])
    reduction = max(s for s in (1, 2, 4, 8) if s == 1 or s <= shrunk)
    array = read(reduction, y + h)
    factor = -(-width // array.shape[1])  # what it was reduced by: the input has 8 pixels or more, so this is exact
    part = array[y // factor : -(-(y + h) // factor), x // factor : -(-(x + w) // factor)]
    smaller = part.shape[1] >= input_size[0] and part.shape[0] >= input_size[1]
    return np.asarray(cv2.resize(part, input_size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR), np.uint8)


def scaled_to_image(box: Box, input_size: tuple[int, int]) -> NDArray[np.float64]:
    """The affine (2, 3) from pixels of the scaled part to pixels of the image, pixel centres at integers."""
    x, y, w, h = box
    across, down = w / input_size[0], h / input_size[1]
    return np.array([[across, 0, x + across / 2 - 0.5], [0, down, y + down / 2 - 0.5]])
