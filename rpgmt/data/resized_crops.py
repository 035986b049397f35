"""Which part of an image is cut out and scaled to the input of a classifier."""

from __future__ import annotations

import math

import numpy as np

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
