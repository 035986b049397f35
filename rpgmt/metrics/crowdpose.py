"""CrowdPose's key-point metrics: average precision and recall, and average precision by how crowded images are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rpgmt.data.coco.annotations import AREA_RULE, keypoint_category, person_annotations
from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.coco.tidy import tidy
from rpgmt.errors import UserError
from rpgmt.metrics.matching import Evaluator, KeypointMatcher

CROWDPOSE_METRICS = ("AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP_easy", "AP_medium", "AP_hard")
LEVELS = {"easy": (-np.inf, 0.2), "medium": (0.2, 0.8), "hard": (0.8, np.inf)}
"""Crowd indices of a level, lower bound inclusive: the official tool's. The paper says 0.1 where it has 0.2, but the numbers
that are published come from the tool."""


class CrowdPoseEvaluator:
    """CrowdPose's nine numbers of any number of sets of detections, e.g. one a stage, against one document.

    Li et al., CVPR 2019, arXiv 1812.00324, as its official tool computes them: COCO's rules, but the area of a person is
    0.53 · width · height of the box, and there are no sizes but levels of crowding.

    Args:
        document: ground truth in COCO's format, with `crowdIndex` of each image; left as it is.
        keypoints: gives the sigmas of OKS.
        evaluator: the library that matches; the numbers are the same.

    Raises:
        UserError: the document is not COCO's format or lacks crowd indices.
        ValueError: the document's people have another number of key points.
    """

    def __init__(self, document: dict[str, Any], keypoints: KeypointSet, evaluator: Evaluator = "hotcoco") -> None:
        document = tidy(document)
        self._matcher = KeypointMatcher({**document, "annotations": _with_areas(document)}, keypoints, evaluator)
        self._crowding = {self._matcher.image_numbers[image["id"]]: _crowd_index(image) for image in document["images"]}

    def metrics(self, results: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        """Average precision and recall over OKS 0.50 … 0.95, at 0.50, at 0.75, and average precision by level.

        Args:
            results: detections, as for COCO.

        Returns:
            AP, AP50, AP75, AR, AR50, AR75, AP_easy, AP_medium, AP_hard from 0 to 1, the last three rounded to four
            decimals as the official tool rounds them; None for a number without samples.

        Raises:
            ValueError: as for COCO.
        """
        evaluation = self._matcher.match(results, by_size=False)
        images = [image for image in evaluation.evalImgs if image is not None]
        recalls = evaluation.params.recThrs
        metrics: dict[str, float | None] = dict.fromkeys(CROWDPOSE_METRICS)
        found = _precision_and_recall(images, recalls)
        if found is not None:
            precision, recall = found
            # OKS goes from 0.50 to 0.95 in steps of 0.05: row 0 is 0.50 and row 5 is 0.75.
            for name, rows in (("", slice(None)), ("50", 0), ("75", 5)):
                metrics[f"AP{name}"] = float(precision[rows].mean())
                metrics[f"AR{name}"] = float(recall[rows].mean())
        for level, (low, high) in LEVELS.items():
            found = _precision_and_recall(
                [image for image in images if low <= self._crowding[image["image_id"]] < high], recalls
            )
            if found is not None:
                metrics[f"AP_{level}"] = round(float(found[0].mean()), 4)
        return metrics


def crowdpose_metrics(
    document: dict[str, Any],
    results: Sequence[dict[str, Any]],
    keypoints: KeypointSet,
    evaluator: Evaluator = "hotcoco",
) -> dict[str, float | None]:
    """CrowdPose's nine numbers of one set of detections: see `CrowdPoseEvaluator`."""
    return CrowdPoseEvaluator(document, keypoints, evaluator).metrics(results)


def _precision_and_recall(images: list[dict[str, Any]], recalls: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Precision (T, R) at recalls and the final recall (T,), for T thresholds of OKS; None where there is nobody.

    Args:
        images: entries of `evalImgs` with area range "all".
        recalls: (R,), from 0 to 1.
    """
    people = sum(int(np.count_nonzero(np.equal(image["gtIgnore"], 0))) for image in images)
    if people == 0:
        return None
    scores = np.concatenate([image["dtScores"] for image in images])
    order = np.argsort(-scores, kind="stable")
    matched = _by_threshold(images, "dtMatches")[:, order] != 0
    counts = ~_by_threshold(images, "dtIgnore")[:, order].astype(bool)
    hits = np.cumsum(matched & counts, axis=1)
    misses = np.cumsum(~matched & counts, axis=1)
    reached = hits / people
    # The best precision at this recall or a higher one; 0 at recalls that are not reached.
    best = np.maximum.accumulate((hits / (hits + misses + np.spacing(1)))[:, ::-1], axis=1)[:, ::-1]
    best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    precision = np.stack([row[np.searchsorted(at, recalls, side="left")] for row, at in zip(best, reached, strict=True)])
    return precision, reached[:, -1] if len(scores) else np.zeros(len(best))


def _by_threshold(images: list[dict[str, Any]], key: str) -> np.ndarray:
    """An entry of `evalImgs` for all detections, (T, D)."""
    return np.concatenate([np.asarray(image[key]).reshape(len(image[key]), -1) for image in images], axis=1)


def _with_areas(document: dict[str, Any]) -> list[dict[str, Any]]:
    category = keypoint_category(document)
    boxed = [{**annotation, "area": 1} for annotation in document["annotations"]]
    others = [annotation for annotation in document["annotations"] if annotation.get("category_id") != category["id"]]
    return others + [
        {**annotation, "area": annotation["bbox"][3] * annotation["bbox"][2] * AREA_RULE}
        for annotation in person_annotations({**document, "annotations": boxed})
    ]


def _crowd_index(image: dict[str, Any]) -> float:
    index = image.get("crowdIndex")
    if isinstance(index, bool) or not isinstance(index, int | float) or not math.isfinite(index):
        raise UserError(f"image {image['id']}: `crowdIndex` is {index!r}: CrowdPose's metrics need a number from 0 to 1")
    return float(index)
