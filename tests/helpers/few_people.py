"""A small COCO document whose metrics can be worked out by hand."""

from __future__ import annotations

from typing import Any

from rpgmt.data.coco.skeletons import KeypointSet


def few_people(areas: list[float], count: int = 2) -> tuple[dict[str, Any], KeypointSet]:
    """An image for each area, with one person with all its key points at (50, 50)."""
    keypoints = KeypointSet(names=("a", "b")[:count], flip_pairs=(), skeleton=(), sigmas=(0.05, 0.1)[:count])
    document = {
        "images": [{"id": 7 * number, "width": 200, "height": 200} for number in range(len(areas))],
        "categories": [{"id": 3, "name": "x", "keypoints": list(keypoints.names)}, {"id": 4, "name": "car"}],
        "annotations": [
            {"id": number + 1, "image_id": 7 * number, "category_id": 3, "bbox": [0, 0, 99, 99], "area": area}
            | {"keypoints": [50, 50, 2] * count}
            for number, area in enumerate(areas)
        ],
    }
    return document, keypoints


def found_at(image_id: Any, offset: float, score: float, count: int = 2) -> dict[str, Any]:
    """A detection whose key points are all `offset` pixels to the right of the person's."""
    return {"image_id": image_id, "category_id": 3, "keypoints": [50 + offset, 50, 1] * count, "score": score}


def found_each(document: dict[str, Any], offsets: list[float], scores: list[float]) -> list[dict[str, Any]]:
    """A detection in every image."""
    count = len(document["categories"][0]["keypoints"])
    return [
        found_at(image["id"], offset, score, count)
        for image, offset, score in zip(document["images"], offsets, scores, strict=True)
    ]
