"""A small COCO document with one person whose key points can be seen in the image."""

from __future__ import annotations

import numpy as np

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS


def one_person() -> CocoPeople:
    """One person whose every labelled point is a bright pixel on black, each of its own colour."""
    rng = np.random.default_rng(0)
    x, y = rng.choice(np.arange(30, 70), 17, replace=False), rng.choice(np.arange(20, 100), 17, replace=False)
    visibility = np.array([2, 1, 0] + [2] * 14)
    image = np.zeros((120, 100, 3), dtype=np.uint8)
    image[y, x] = rng.integers(100, 256, (17, 3))
    document = {
        "images": [{"id": 5, "width": 100, "height": 120}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS.names)}],
        "annotations": [
            {
                "id": 1,
                "image_id": 5,
                "category_id": 1,
                "bbox": [28, 18, 44, 84],
                "area": 2000,
                "keypoints": np.stack([x, y, visibility], axis=1).ravel().tolist(),
            }
        ],
    }
    return CocoPeople(document, lambda *_: image)
