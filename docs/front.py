"""Cuts docs/front.png, the picture of the README, out of the other pictures here: `python docs/front.py`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

DOCS = Path(__file__).resolve().parent
WIDTH, HEIGHT, GAP, TITLE = 144, 192, 6, 30
"""Pixels of a cell, of the space between cells, and of the line of titles above them."""


def compose() -> np.ndarray:
    """Three rows of five cells: one person by stage, and another one's labels and predictions by task."""
    stages, tasks, people = (_read(name) for name in ("predictions", "multitask", "synthetic"))
    by_stage = [_title(stages, column) for column in range(5)], [_cell(stages, 3, column) for column in range(5)]
    titles = [_title(people, column) for column in (0, 1, 2, 4, 5)]
    image = _cell(tasks, 4, 0)
    labels, predicted = ([image, *(_cell(tasks, row, column) for row in (4, 5, 6, 7))] for column in (1, 4))
    rows = [*by_stage, titles, labels, predicted]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _read(name: str) -> np.ndarray:
    image = cv2.imread(str(DOCS / f"{name}.png"))
    assert image is not None, name
    return image


def _cell(image: np.ndarray, row: int, column: int) -> np.ndarray:
    """A cell with the gap at its left and below it."""
    top, left = TITLE + row * (HEIGHT + GAP), column * (WIDTH + GAP)
    return image[top : top + HEIGHT + GAP, left : left + WIDTH + GAP]


def _title(image: np.ndarray, column: int) -> np.ndarray:
    return image[:TITLE, column * (WIDTH + GAP) : (column + 1) * (WIDTH + GAP)]


if __name__ == "__main__":
    cv2.imwrite(str(DOCS / "front.png"), compose(), [cv2.IMWRITE_PNG_COMPRESSION, 9])
