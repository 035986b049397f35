"""COCO's key-point metrics by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from rpgmt.data.coco import keypoint_category, person_annotations
from rpgmt.data.keypoints import KeypointSet
from rpgmt.data.transforms import transform_points

COCO_METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def coco_keypoint_metrics(
    document: dict[str, Any], results: Sequence[dict[str, Any]], keypoints: KeypointSet
) -> dict[str, float | None]:
    """Ten numbers: average precision and recall over OKS 0.50 … 0.95, at 0.50, at 0.75, of medium and large people.

    All images and people of the document count; crowds and people without labelled key points are ignored as COCO
    ignores them. At most 20 detections an image.

    Args:
        document: COCO ground truth; left as it is. What `person_annotations` fills in may be missing.
        results: detections, dicts with `image_id`, `category_id`, `keypoints` ([x, y, score] · K) and `score`; left as
            they are. Without any the numbers are 0.
        keypoints: gives the sigmas of OKS.

    Returns:
        AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL from 0 to 1; None for a number without samples.

    Raises:
        ValueError: a detection is on an image that the document lacks, or has not K key points.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    category = keypoint_category(document)["id"]
    images = {image["id"] for image in document["images"]}
    for result in results:
        if result["image_id"] not in images:
            raise ValueError(f"`image_id` of a detection is {result['image_id']!r}, which is not in the ground truth")
        if len(result["keypoints"]) != 3 * len(keypoints):
            raise ValueError(f"a detection has {len(result['keypoints'])} numbers for {len(keypoints)} key points")
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = COCO(), COCO()
        truth.dataset = {**document, "annotations": person_annotations(document)}
        truth.createIndex()
        if results:
            found = truth.loadRes([dict(result) for result in results])
        else:
            found.dataset = {**document, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "keypoints")
        evaluation.params.catIds = [category]
        evaluation.params.kpt_oks_sigmas = np.array(keypoints.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(COCO_METRICS, evaluation.stats, strict=True)}


def keypoint_results(
    points: np.ndarray, scores: np.ndarray, to_image: np.ndarray, image_ids: Sequence[int], category_id: int
) -> list[dict[str, Any]]:
    """Detections in COCO's result format, one a person.

    A person's score is the mean of its key points' scores.

    Args:
        points: (B, K, 2), (x, y) in pixels of the crop.
        scores: (B, K).
        to_image: (B, 2, 3), affines from pixels of the crops to pixels of the images.
        image_ids: B ids.
        category_id: of the persons.
    """
    placed = np.concatenate([transform_points(to_image, points.astype(np.float64)), scores[..., None]], axis=-1)
    return [
        {"image_id": image_id, "category_id": category_id, "keypoints": person, "score": score}
        for image_id, person, score in zip(
            image_ids, placed.reshape(len(placed), -1).tolist(), scores.mean(-1, dtype=np.float64).tolist(), strict=True
        )
    ]
