"""Object key-point similarity between detections, and the suppression of those that find a person again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.metrics.results import checked_points

Suppression = Literal["hard", "soft"]

MAX_DETECTIONS = 20
"""Of an image: as many as COCO's evaluation looks at."""


def oks(
    points: np.ndarray, others: np.ndarray, areas: np.ndarray, other_areas: np.ndarray, keypoints: KeypointSet
) -> np.ndarray:
    """Object key-point similarity of each of M detections and each of N others, float64 (M, N), from 0 to 1.

    As COCO defines it (cocodataset.org, "Keypoint Evaluation"), where the area of a pair is the mean of the two and all
    key points count.

    Args:
        points: (M, K, 2), (x, y) in image pixels.
        others: (N, K, 2), the same.
        areas: (M,), in square pixels.
        other_areas: (N,), the same.
        keypoints: gives the sigmas.
    """
    squares = np.square(points[:, None, :, :2] - others[None, :, :, :2]).sum(-1)
    variances = np.square(2 * np.array(keypoints.sigmas))
    mean_areas = (areas[:, None] + other_areas[None]) / 2 + np.spacing(1)
    return np.exp(-squares / (2 * variances * mean_areas[..., None])).mean(-1)


def oks_nms(
    points: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    keypoints: KeypointSet,
    kind: Suppression = "hard",
    threshold: float = 0.9,
) -> np.ndarray:
    """Which of the N detections of one image to keep: int64 indices, in the order in which they are chosen.

    The best is kept, again and again. `hard`: what is more similar to it than the threshold goes (Papandreou et al.,
    arXiv 1701.01779). `soft`: the scores of the others fall by exp(-oks² / threshold) (Bodla et al., arXiv 1704.04503)
    until 20 are chosen; so with 20 detections or fewer all stay. Scores only rank here: the caller's stay as they are, as in
    the field's tools. Equal scores are ranked in the order given.

    Args:
        points: (N, K, 2), (x, y) in image pixels.
        scores: (N,).
        areas: (N,), in square pixels; by the field's rule of the enlarged box, as it is cut out.
        keypoints: gives the sigmas.
        kind: hard or soft.
        threshold: above 0.

    Raises:
        ValueError: the threshold is not above 0 or there is no such kind.
    """
    if kind not in ("hard", "soft"):
        raise ValueError(f"`kind` is {kind!r}: give hard or soft")
    if not threshold > 0:
        raise ValueError(f"`threshold` is {threshold}: give a number above 0, e.g. 0.9")
    similar = oks(points, points, areas, areas, keypoints)
    ranks = np.array(scores, np.float64)
    left = np.ones(len(ranks), dtype=bool)
    kept: list[int] = []
    while left.any() and (kind == "hard" or len(kept) < MAX_DETECTIONS):
        best = int(np.argmax(np.where(left, ranks, -np.inf)))  # of equal ones the first
        kept.append(best)
        left[best] = False
        if kind == "hard":
            left &= similar[best] <= threshold
        else:
            ranks *= np.exp(-np.square(similar[best]) / threshold)
    return np.array(kept, dtype=np.int64)


def suppress(
    results: Sequence[dict[str, Any]],
    areas: np.ndarray,
    keypoints: KeypointSet,
    kind: Suppression = "hard",
    threshold: float = 0.9,
) -> list[dict[str, Any]]:
    """The detections that `oks_nms` keeps, image by image, in the order given.

    Args:
        results: detections in COCO's result format.
        areas: one for each, in square pixels; by the field's rule of the enlarged box, as it is cut out.
        keypoints: gives the sigmas.
        kind: see `oks_nms`.
        threshold: see `oks_nms`.

    Raises:
        ValueError: a detection is not in the format, not every one has a finite area, or as `oks_nms`.
    """
    areas = np.asarray(areas, np.float64)
    if areas.shape != (len(results),) or not np.isfinite(areas).all():
        raise ValueError(f"`areas` has shape {areas.shape}: give a finite number for each of {len(results)} detections")
    points = checked_points(results, len(keypoints))[..., :2]
    scores = np.array([result["score"] for result in results], np.float64)
    by_image: dict[Any, list[int]] = defaultdict(list)
    for number, result in enumerate(results):
        by_image[result["image_id"]].append(number)
    kept: list[int] = []
    for numbers in map(np.array, by_image.values()):
        kept += numbers[oks_nms(points[numbers], scores[numbers], areas[numbers], keypoints, kind, threshold)].tolist()
    return [results[number] for number in sorted(kept)]
