"""The image to try a model on where there is none at hand: people that the project draws."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from rpgmt.synthetic.render import render

_SEED, _INDEX, _SIZE = 7, 6, 480  # three people side by side, whole


@dataclass(frozen=True)
class Example:
    """An image of people, and where they are.

    Attributes:
        png: the file.
        boxes: (P, 4), x, y, w, h in pixels.
    """

    png: bytes
    boxes: list[list[int]]


def draw_example() -> Example:
    """The example: always the same; it takes about half a second."""
    scene = render(_SEED, _INDEX, size=_SIZE)
    _, png = cv2.imencode(".png", np.ascontiguousarray(scene.image[:, :, ::-1]))  # OpenCV writes BGR
    return Example(png.tobytes(), scene.boxes.tolist())
