"""The people of synthetic scenes in COCO's format: key points, boxes and areas."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.synthetic.render import Scene
from rpgmt.synthetic.shapes import Array, Index

VERSION = 1
"""Of what is drawn: raise it when the same (seed, index) gives other scenes, so that old caches are not read."""


class PeopleLabels:
    """Key points, boxes and areas of many scenes' people, collected scene by scene."""

    def __init__(self) -> None:
        self._rows: list[tuple[Index, Array, Index, Index]] = []

    def add(self, image: int, scene: Scene) -> None:
        """Add the people of image number ``image``."""
        self._rows.append((np.full(len(scene.areas), image), scene.keypoints, scene.boxes, scene.areas))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """One row for each person: image number, key points (17, 3), box (4,) and area."""
        names = ("person_image", "keypoints", "boxes", "areas")
        return {name: np.concatenate(rows) for name, rows in zip(names, zip(*self._rows, strict=True), strict=True)}


def coco_document(labels: dict[str, NDArray[Any]], count: int, size: int) -> dict[str, Any]:
    """The COCO key-point document of ``PeopleLabels.arrays()`` for ``count`` images; image ids are their numbers.

    Numbers are Python's, and a JSON file gives back exactly these. Edges of the skeleton count from one, as COCO's.
    """
    people = zip(*(labels[name].tolist() for name in ("person_image", "keypoints", "boxes", "areas")), strict=True)
    annotations = []
    for i, (image, keypoints, box, area) in enumerate(people, 1):
        flat = [number for x, y, v in keypoints for number in (x, y, int(v))]
        annotations.append(
            {
                "id": i,
                "image_id": image,
                "category_id": 1,
                "bbox": [float(number) for number in box],
                "area": float(area),
                "iscrowd": 0,
                "keypoints": flat,
                "num_keypoints": sum(v > 0 for v in flat[2::3]),
            }
        )
    return {
        "info": {"description": "People drawn by rpgmt", "version": str(VERSION)},
        "images": [{"id": i, "file_name": f"{i:06d}.png", "width": size, "height": size} for i in range(count)],
        "annotations": annotations,
        "categories": [
            {
                "id": 1,
                "name": "person",
                "supercategory": "person",
                "keypoints": list(COCO_KEYPOINTS.names),
                "skeleton": [[a + 1, b + 1] for a, b in COCO_KEYPOINTS.skeleton],
            }
        ],
    }
