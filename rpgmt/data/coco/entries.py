"""Entries of a COCO document in memory, made from data sets in other formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt.data.coco.annotations import AREA_RULE
from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.image_headers import image_size
from rpgmt.data.images import check_files
from rpgmt.data.regions import Box


def image_entries(folder: Path, names: Sequence[str], source: str) -> list[dict[str, Any]]:
    """An entry of a document's `images` for each file; ids count from 1.

    The sizes come from the files' headers, a fraction of a millisecond each: formats other than COCO's do not give them. They
    are those of the upright pictures.

    Args:
        folder: of the images.
        names: of the files in it, each once.
        source: the annotation file that names them, for messages.

    Raises:
        UserError: an image is missing or none.
    """
    check_files(folder, names, source)
    entries = []
    for number, name in enumerate(names, 1):
        width, height = image_size(folder / name)
        entries.append({"id": number, "file_name": name, "width": width, "height": height})
    return entries


def annotation(number: int, image: int, points: np.ndarray, visibility: np.ndarray, box: Box, extent: Box) -> dict[str, Any]:
    """An entry of a document's `annotations`.

    Args:
        number: its id.
        image: id of its image.
        points: (K, 2), x and y in pixels.
        visibility: (K,) 0 not labelled, 1 hidden, 2 visible.
        box: (x, y, w, h) that is cut out.
        extent: (x, y, w, h) of which 0.53 is the area.
    """
    labelled = visibility > 0
    flat = np.column_stack([np.where(labelled[:, None], points, 0.0), visibility])
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [float(value) for value in box],
        "area": AREA_RULE * extent[2] * extent[3],
        "iscrowd": 0,
        "keypoints": flat.ravel().tolist(),
        "num_keypoints": int(labelled.sum()),
    }


def points_box(points: np.ndarray, margin: float = 0.0) -> Box:
    """The box (x, y, w, h) of pixels that holds the points (N, 2), N ≥ 1, and a margin in pixels on each side."""
    x, y = points.min(axis=0) - margin
    right, bottom = points.max(axis=0) + margin
    return float(x), float(y), float(right - x + 1), float(bottom - y + 1)


def person_category(keypoints: KeypointSet) -> dict[str, Any]:
    """A document's category with these key points: COCO's fields, `sigmas` and `flip_pairs`."""
    return {
        "id": 1,
        "name": "person",
        "keypoints": list(keypoints.names),
        "skeleton": [[a + 1, b + 1] for a, b in keypoints.skeleton],
        "sigmas": list(keypoints.sigmas),
        "flip_pairs": [[keypoints.names[a], keypoints.names[b]] for a, b in keypoints.flip_pairs],
    }
