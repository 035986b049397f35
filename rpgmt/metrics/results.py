"""Detections in COCO's result format: made from decoded key points, scored, checked and saved."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rpgmt.errors import UserError
from rpgmt.whole_files import write_text

Rescoring = Literal["mean", "box_mean", "box_mean_max"]

RESCORING_THRESHOLD = 0.2
"""`box_mean` leaves out key points that do not score above it: the value that the field's tables are made with."""


def keypoint_results(poses: np.ndarray, scores: np.ndarray, image_ids: Sequence[Any], category_id: int) -> list[dict[str, Any]]:
    """Detections in COCO's result format, one a person.

    Args:
        poses: (P, K, 3), x and y in pixels of the images, and the key points' scores.
        scores: (P,), by which people are ranked: see `rescore`.
        image_ids: P ids.
        category_id: of the persons.
    """
    people = zip(image_ids, poses.reshape(len(poses), -1).tolist(), scores.tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_id, "keypoints": pose, "score": score}
        for image_id, pose, score in people
    ]


def rescore(box_scores: np.ndarray, keypoint_scores: np.ndarray, rule: Rescoring) -> np.ndarray:
    """The scores by which people are ranked, float64 (P,), from those of their boxes and key points.

    Args:
        box_scores: (P,), of the detector; ones for true boxes.
        keypoint_scores: (P, K).
        rule: `mean` of the key points, the box does not count; `box_mean`, box × mean of the key points above
            `RESCORING_THRESHOLD`, 0 where there is none (Xiao et al., arXiv 1804.06208; Sun et al., arXiv 1902.09212);
            `box_mean_max`, box + mean + maximum of the key points (of regression with likelihoods, Li et al.,
            arXiv 2107.11291).

    Raises:
        ValueError: there is no such rule.
    """
    box = np.asarray(box_scores, np.float64)
    # Contiguous, for NumPy's order of summation depends on the layout, and ranks of people who are all but tied on it.
    points = np.ascontiguousarray(keypoint_scores)
    if rule == "mean":
        return points.mean(-1, dtype=np.float64)
    if rule == "box_mean":
        good = points > RESCORING_THRESHOLD
        return box * np.where(good, points, 0).sum(-1, dtype=np.float64) / np.maximum(good.sum(-1), 1)
    if rule == "box_mean_max":
        # In the scores' own precision: published numbers on small sets depend on how float32 breaks ties.
        return box + points.mean(-1) + points.max(-1)
    raise ValueError(f"`rule` is {rule!r}: give mean, box_mean or box_mean_max")


def checked_points(results: Sequence[dict[str, Any]], count: int) -> np.ndarray:
    """The key points of detections, float64 (N, K, 3): x, y, score.

    Raises:
        ValueError: a detection is not in COCO's result format, has a number that is not finite, or has not K key points.
    """
    points = np.zeros((len(results), count, 3))
    for number, result in enumerate(results):
        values = _checked(number, result)
        if len(values) != 3 * count:
            raise ValueError(f"detection {number}: `keypoints` has {len(values)} numbers for {count} key points")
        points[number] = values.reshape(count, 3)
    return points


def save_results(path: str | Path, results: Sequence[dict[str, Any]]) -> None:
    """Write detections as a JSON list in COCO's result format, which COCO's tools and servers read.

    Each has `image_id`, `category_id`, `keypoints` ([x, y, score] · K, in image pixels) and `score`; other keys are left
    out. (pycocotools cannot load a list without detections.)

    Args:
        path: of the file; its folder is made if it is missing.
        results: detections, as `keypoint_results` gives them.

    Raises:
        ValueError: a detection is not in COCO's result format or has a number that is not finite; nothing is written.
        UserError: the file cannot be written.
    """
    plain = [
        {
            "image_id": _plain(result["image_id"]),
            "category_id": _plain(result["category_id"]),
            "keypoints": values.tolist(),
            "score": float(result["score"]),
        }
        for result, values in [(result, _checked(number, result)) for number, result in enumerate(results)]
    ]
    write_text(Path(path), json.dumps(plain, allow_nan=False), folders=True)


def _checked(number: int, result: dict[str, Any]) -> np.ndarray:
    """The `keypoints` of a detection in COCO's result format."""
    if not isinstance(result, dict):
        raise UserError(f"detection {number} is {_short(result)}: give an object in COCO's result format")
    for key in ("image_id", "category_id", "keypoints", "score"):
        if key not in result:
            raise UserError(f"detection {number} has no `{key}`: give COCO's result format")
    for key in ("image_id", "category_id"):
        if isinstance(result[key], bool) or not isinstance(result[key], Real | str):
            raise UserError(f"detection {number}: `{key}` is {_short(result[key])}: give an id of the ground truth")
    score = result["score"]
    if isinstance(score, bool) or not isinstance(score, Real) or not math.isfinite(score):
        raise UserError(f"detection {number}: `score` is {_short(score)}: give a finite number")
    try:
        values = np.asarray(result["keypoints"])
    except ValueError:  # lists of unequal lengths
        values = np.array(None)
    if values.dtype.kind not in "iuf" or values.ndim != 1 or len(values) % 3:
        raise UserError(
            f"detection {number}: `keypoints` is {_short(result['keypoints'])}: give [x, y, score] · K, all numbers"
        )
    finite = np.isfinite(values)
    if not finite.all():
        raise UserError(f"detection {number}: `keypoints` holds {values[~finite][0]}: give finite numbers")
    return values


def _plain(number: Any) -> Any:
    return number.item() if isinstance(number, np.generic) else number


def _short(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 40 else text[:37] + "…"
