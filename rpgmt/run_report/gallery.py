"""Samples of the validation with the best, the middle and the worst predictions: pictures, and a JSON file that says of what.

FOLDER/gallery.json    groups (one a task), their rows of pictures, and how the figure spreads over all samples
FOLDER/….webp          the pictures
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.whole_files import write_bytes, write_text

RANKS = ("best", "median", "worst")
LARGEST = 256
"""Pixels of a picture's longer side."""


class Picture(NamedTuple):
    """A picture of a row.

    Args:
        title: what it shows, e.g. "stage 1".
        image: uint8 RGB, (H, W, 3).
        figure: the sample's, if there is one for it.
    """

    title: str
    image: NDArray[np.uint8]
    figure: float | None = None


class Row(NamedTuple):
    """Pictures that belong together.

    Args:
        rank: one of `RANKS`.
        sample: what is shown.
        pictures: of it.
    """

    rank: str
    sample: str
    pictures: Sequence[Picture]


def ranked(figures: NDArray[np.floating], each: int, *, higher: bool) -> dict[str, list[int]]:
    """The places of the best, the middle and the worst figures, the best first; of few figures fewer.

    Args:
        figures: one a sample; NaN has no place.
        each: how many of each rank.
        higher: whether a higher figure is better.
    """
    order = np.argsort(-figures if higher else figures, kind="stable")
    order = order[np.isfinite(figures[order])]
    if not len(order):
        return {}
    each = max(1, min(each, len(order) // 3))
    middle = (len(order) - each) // 2
    places = {"best": order[:each], "median": order[middle : middle + each], "worst": order[-each:]}
    chosen, taken = {}, set[int]()
    for rank in ("best", "worst", "median"):  # of two samples none is the middle one
        chosen[rank] = [int(place) for place in places[rank] if int(place) not in taken]
        taken.update(chosen[rank])
    return {rank: chosen[rank] for rank in RANKS if chosen[rank]}


def group(
    name: str,
    figure: str,
    higher: bool,
    figures: NDArray[np.floating],
    rows: Iterable[Row],
    parts: Mapping[str, Sequence[float]],
    folder: Path,
) -> dict[str, Any]:
    """What `gallery.json` says of one task; its pictures are written.

    Args:
        name: of the task, as it may be in metrics.
        figure: what the figure is.
        higher: whether a higher one is better.
        figures: (samples, stages).
        rows: of pictures.
        parts: the mean figure of each part by stage, e.g. of each key point; may be empty.
        folder: of the pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = figures[np.isfinite(figures).all(1)]
    spread = np.quantile(known, (0.1, 0.5, 0.9), axis=0).T if len(known) else np.zeros((0, 3))
    return {
        "name": name,
        "figure": figure,
        "higher": higher,
        "samples": len(known),
        "spread": spread.round(5).tolist(),
        "parts": {part: [number(value) for value in values] for part, values in parts.items()},
        "rows": [_written(row, f"{_file_name(name)}-{place}", folder) for place, row in enumerate(rows, 1)],
    }


def write(groups: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Writes `gallery.json`."""
    text = json.dumps({"groups": groups}, indent=1, allow_nan=False)
    write_text(folder / "gallery.json", text + "\n")


def number(value: float) -> float | None:
    """What JSON takes: None where there is no number."""
    return round(float(value), 5) if math.isfinite(value) else None


def _written(row: Row, stem: str, folder: Path) -> dict[str, Any]:
    pictures = []
    for place, picture in enumerate(row.pictures):
        file = f"{stem}-{place}.webp"
        write_bytes(folder / file, _webp(picture.image), durable=False)
        height, width = picture.image.shape[:2]
        figure = None if picture.figure is None else number(picture.figure)
        pictures.append({"title": picture.title, "file": file, "size": [width, height], "figure": figure})
    return {"rank": row.rank, "sample": row.sample, "pictures": pictures}


def _webp(image: NDArray[np.uint8]) -> bytes:
    factor = LARGEST / max(image.shape[:2])
    if factor < 1:
        size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    _, data = cv2.imencode(".webp", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_WEBP_QUALITY, 82])
    return data.tobytes()


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "_", name.lower())[:40]
