"""COCO's key-point metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.metrics.matching import Evaluator, KeypointMatcher, quiet

COCO_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


class CocoEvaluator:
    """COCO's ten numbers of any number of sets of detections, e.g. one a stage, against one document.

    All images and people of the document count; crowds and people without labelled key points are ignored as COCO ignores
    them: a detection that matches them is neither right nor wrong.

    Args:
        document: COCO ground truth; left as it is. What `person_annotations` fills in may be missing.
        keypoints: gives the sigmas of OKS.
        evaluator: the library that computes; the numbers are the same.

    Raises:
        UserError: the document is not COCO's format.
        ValueError: the document's people have another number of key points.
    """

    def __init__(self, document: dict[str, Any], keypoints: KeypointSet, evaluator: Evaluator = "hotcoco") -> None:
        self._matcher = KeypointMatcher(document, keypoints, evaluator)

    def metrics(self, results: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        """Average precision and recall over OKS 0.50 … 0.95, at 0.50, at 0.75, of medium and large people.

        Args:
            results: detections, dicts with `image_id`, `category_id`, `keypoints` ([x, y, score] · K) and `score`; left
                as they are. At most 20 an image count, the best; equal scores are ranked in the order given. Without
                any the numbers are 0.

        Returns:
            AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL from 0 to 1; None for a number without samples.

        Raises:
            ValueError: a detection is not in the format, has a number that is not finite, or is on an image or of a
                category that the document lacks.
        """
        evaluation = self._matcher.match(results, by_size=True)
        with quiet():
            evaluation.accumulate()
            evaluation.summarize()
        return {name: None if value < 0 else float(value) for name, value in zip(COCO_METRICS, evaluation.stats, strict=True)}


def coco_keypoint_metrics(
    document: dict[str, Any],
    results: Sequence[dict[str, Any]],
    keypoints: KeypointSet,
    evaluator: Evaluator = "hotcoco",
) -> dict[str, float | None]:
    """COCO's ten numbers of one set of detections: see `CocoEvaluator`."""
    return CocoEvaluator(document, keypoints, evaluator).metrics(results)
