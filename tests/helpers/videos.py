"""Videos of drawn squares, written with OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZE = (160, 120)
"""(W, H) of the frames."""


def frame(number: int) -> np.ndarray:
    """A red and a green square that walk towards each other on black, uint8 (H, W, 3) RGB."""
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for colour, (x, y, w, h) in enumerate(squares(number)):
        image[y : y + h, x : x + w, colour] = 255
    return image


def squares(number: int) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, w, h) of the squares of a frame."""
    return [(8 + 2 * number, 16, 24, 32), (128 - 2 * number, 64, 24, 32)]


def write_video(path: Path, count: int, *, codec: str = "mp4v", rate: float = 10) -> Path:
    """A video of `count` frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, SIZE)
    assert writer.isOpened()
    for number in range(count):
        writer.write(cv2.cvtColor(frame(number), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def break_off(path: Path, part: float) -> None:
    """Cuts a file off, in the given part of it."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
