"""Small random sets of labelled animals in COCO's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rpgmt.data.coco.annotations import AREA_RULE

NAMES = ["nose", "left eye", "right eye", 'tail "tip" & <end>', "left_paw", "right_paw"]
SKELETON = [[1, 2], [1, 3], [4, 1]]
PAIRS = [["left eye", "right eye"], ["left_paw", "right_paw"]]


def random_document(random: np.random.Generator, images: int, *, least: int = 0, most: int = 3) -> dict[str, Any]:
    """Images of random sizes with `least` to `most` animals, the first one with one.

    Places have up to 6 decimals and all v occur; boxes lie within the image.
    """
    entries, annotations = [], []
    for number in range(images):
        width, height = (int(side) for side in random.integers(60, 200, 2))
        folder = ["", "a/", "b/c/"][int(random.integers(3))]
        entries.append({"id": 10 + number, "file_name": f"{folder}{number}.jpg", "width": width, "height": height})
        for _ in range(int(random.integers(max(least, not number), most + 1))):
            digits = int(random.integers(7))
            x, y = (round(float(random.uniform(0, side / 2)), digits) for side in (width, height))
            box = [x, y, *(round(float(random.uniform(5, side / 2)), digits) for side in (width, height))]
            points = np.round(random.uniform(0, 1, (len(NAMES), 2)) * [width, height], digits)
            v = random.integers(0, 3, len(NAMES))
            v[0] = 2
            flat = [value for (px, py), state in zip(points.tolist(), v.tolist(), strict=True) for value in (px, py, state)]
            flat = [0 if flat[i // 3 * 3 + 2] == 0 else value for i, value in enumerate(flat)]
            area = AREA_RULE * box[2] * box[3]
            person = {"id": len(annotations) + 1, "image_id": 10 + number, "category_id": 7, "bbox": box, "area": area}
            annotations.append({**person, "iscrowd": 0, "keypoints": flat, "num_keypoints": int((v > 0).sum())})
    category = {"id": 7, "name": "cat", "keypoints": NAMES, "skeleton": SKELETON, "flip_pairs": PAIRS}
    return {"images": entries, "annotations": annotations, "categories": [category]}


def write_set(root: Path, documents: dict[str, dict[str, Any]]) -> None:
    for seed, (split, document) in enumerate(documents.items()):
        for number, image in enumerate(document["images"]):
            path = root / "images" / split / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([seed, number]).integers(0, 255, (image["height"], image["width"], 3), np.uint8)
            assert cv2.imwrite(str(path), pixels)
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(document))
