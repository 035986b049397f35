"""What is written about an image: maps as numbers, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.errors import UserError
from rpgmt.prediction.meaning import KeypointMaps, Reading
from rpgmt.prediction.people import People
from rpgmt.prediction.results import DenseMap
from rpgmt.prediction.source import SourceImage
from rpgmt.whole_files import whole_file, write_bytes

Image = NDArray[np.uint8]

_QUALITY = 92
_LARGEST_JPEG = 65500
"""Pixels of a side: libjpeg's limit."""


def write_maps(people: People, folder: Path, name: str) -> list[Path]:
    """Each head's map of the whole image: classes as PNG, depth and normals as NPY.

    Args:
        people: what was found.
        folder: where to; it is made if there is something to write.
        name: `NAME_HEAD.png` or `NAME_HEAD.npy` is written.

    Returns:
        the files. A PNG holds the numbers of classes, and 255 where there is no crop; of more than 255 classes 16 bits, and
        65535. An NPY holds float32 (H, W), or (H, W, 3) of normals, and 0 where there is no crop.
    """
    files = []
    for head, result in people.results.items():
        if isinstance(result, DenseMap):
            folder.mkdir(exist_ok=True)
            if result.label.categorical:
                files.append(folder / f"{name}_{head}.png")
                _write(files[-1], _class_numbers(result), [cv2.IMWRITE_PNG_COMPRESSION, 3])
            else:
                files.append(folder / f"{name}_{head}.npy")
                with whole_file(files[-1], durable=False) as part:
                    np.save(part, result.image, allow_pickle=False)
    return files


def write_pictures(drawn: Mapping[str, Image], folder: Path, name: str) -> list[Path]:
    """Pictures by what they show: `NAME.jpg` of the first, `NAME_WHAT.jpg` of the others; smaller where JPEG has a limit."""
    folder.mkdir(exist_ok=True)
    files = [folder / (f"{name}_{what}.jpg" if number else f"{name}.jpg") for number, what in enumerate(drawn)]
    for file, image in zip(files, drawn.values(), strict=True):
        _write(file, _fitting_jpeg(image)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return files


def draw(people: People, source: SourceImage, *, stages: bool, min_score: float) -> dict[str, Image]:
    """Pictures of what was found in an image: `people` and each map, or with `stages` all stages side by side in one."""
    if stages:
        return {"stages": people.draw_stages(source, min_score=min_score)}
    return people.pictures(source, min_score=min_score)


def category(reading: Reading, number: int) -> dict[str, Any]:
    """The category of the people as COCO's documents have it, with the names of the key points."""
    entry: dict[str, Any] = {"id": number, "name": "person"}
    for meaning in reading.heads.values():
        if isinstance(meaning, KeypointMaps):
            points = meaning.keypoints
            return entry | {"keypoints": list(points.names), "skeleton": [[a + 1, b + 1] for a, b in points.skeleton]}
    return entry


def _class_numbers(result: DenseMap) -> NDArray[Any]:
    small = len(result.classes) <= 255
    numbers = result.image.astype(np.uint16)  # -1 becomes 65535
    return np.minimum(numbers, 255).astype(np.uint8) if small else numbers


def _fitting_jpeg(image: Image) -> Image:
    height, width = image.shape[:2]
    scale = _LARGEST_JPEG / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _write(file: Path, image: NDArray[Any], options: list[int]) -> None:
    there, data = cv2.imencode(file.suffix, np.ascontiguousarray(image), options)
    if not there:
        raise UserError(f"{file}: an image of {image.shape[1]}×{image.shape[0]} cannot be written in this format")
    write_bytes(file, data.tobytes(), durable=False)
