"""Detections matched with annotated people by pycocotools: what COCO's and CrowdPose's numbers are made from."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rpgmt.data.coco.annotations import keypoint_category, person_annotations
from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.metrics.results import checked_points

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval


class KeypointMatcher:
    """Matches detections with the people of a document, which is checked and indexed once for any number of stages.

    Args:
        document: COCO ground truth; left as it is. What `person_annotations` fills in may be missing.
        keypoints: gives the sigmas of OKS.

    Raises:
        UserError: the document is not COCO's format.
        ValueError: the document's people have another number of key points.
    """

    def __init__(self, document: dict[str, Any], keypoints: KeypointSet) -> None:
        category = keypoint_category(document)
        if len(category["keypoints"]) != len(keypoints):
            raise ValueError(f"`keypoints` has {len(keypoints)} points and the document {len(category['keypoints'])}")
        self._category_id = category["id"]
        self._sigmas = np.array(keypoints.sigmas)
        self._image_ids = {image["id"] for image in document["images"]}
        self._document = document
        # Ids from 1: pycocotools takes a match with an annotation of id 0 for none, and holds ids as floats. Arrays: it
        # makes one of a person's key points for every detection.
        self._truth = self._index(
            {**annotation, "id": number, "keypoints": np.array(annotation["keypoints"], np.float64)}
            for number, annotation in enumerate(person_annotations(document), start=1)
        )

    def match(self, results: Sequence[dict[str, Any]], *, by_size: bool) -> COCOeval:
        """pycocotools' evaluation after its `evaluate`; at most 20 detections an image, ties in the order given.

        Args:
            results: detections, dicts with `image_id`, `category_id`, `keypoints` ([x, y, score] · K) and `score`; left
                as they are.
            by_size: match among medium and among large people too, as well as among all.

        Raises:
            ValueError: a detection is not in the format, has a number that is not finite, or is on an image or of a
                category that the document lacks.
        """
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self._truth, self._index(self._detections(results)), "keypoints")
            evaluation.params.catIds = [self._category_id]
            evaluation.params.kpt_oks_sigmas = self._sigmas
            if not by_size:
                evaluation.params.areaRng = evaluation.params.areaRng[:1]
                evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
            evaluation.evaluate()
        return evaluation

    def _detections(self, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        points = checked_points(results, len(self._sigmas))
        for number, result in enumerate(results):
            if result["image_id"] not in self._image_ids:
                raise ValueError(f"detection {number}: `image_id` is {result['image_id']!r}, which is not in the ground truth")
            if result["category_id"] != self._category_id:
                raise ValueError(
                    f"detection {number}: `category_id` is {result['category_id']!r}, people are {self._category_id!r}"
                )
        # What pycocotools' loadRes adds, all at once. The area says whether a detection that matches nobody counts among
        # medium or large people; it is of the box where the detections come with boxes.
        extents = points[..., :2].max(1) - points[..., :2].min(1)
        boxes = [result.get("bbox") for result in results]
        if boxes and all(isinstance(box, list | tuple | np.ndarray) and len(box) == 4 for box in boxes):
            extents = np.array(boxes, np.float64)[:, 2:]
        return [
            {
                "id": number,
                "image_id": result["image_id"],
                "category_id": self._category_id,
                "keypoints": values.ravel(),
                "score": result["score"],
                "area": area,
            }
            for number, (result, values, area) in enumerate(zip(results, points, extents.prod(-1), strict=True), start=1)
        ]

    def _index(self, annotations: Any) -> Any:
        from pycocotools.coco import COCO

        coco = COCO()
        coco.dataset = {**self._document, "annotations": list(annotations)}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        return coco
