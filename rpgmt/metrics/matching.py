"""Detections matched with annotated people: what COCO's and CrowdPose's numbers are made from."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from rpgmt.data.coco.annotations import keypoint_category, person_annotations
from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.coco.tidy import tidy
from rpgmt.metrics.results import checked_points

Evaluator = Literal["hotcoco", "pycocotools"]
"""The library that matches and counts: hotcoco, or COCO's own, whose numbers are the same to the last bit and take longer."""

_EVERYBODY = [0.0, 1e10]
"""COCO's range of areas "all", in square pixels."""


class Matched(Protocol):
    """What both libraries' evaluations have in common."""

    params: Any
    stats: Any

    @property
    def evalImgs(self) -> list[dict[str, Any] | None]: ...  # noqa: N802 - COCO's name

    def evaluate(self) -> None: ...
    def accumulate(self) -> None: ...
    def summarize(self) -> None: ...


class KeypointMatcher:
    """Matches detections with the people of a document, which is checked and indexed once for any number of stages.

    Args:
        document: COCO ground truth; left as it is. What `person_annotations` fills in may be missing.
        keypoints: gives the sigmas of OKS.
        evaluator: the library.

    Raises:
        UserError: the document is not COCO's format.
        ValueError: the document's people have another number of key points.
    """

    def __init__(self, document: dict[str, Any], keypoints: KeypointSet, evaluator: Evaluator = "hotcoco") -> None:
        document = tidy(document)
        category = keypoint_category(document)
        if len(category["keypoints"]) != len(keypoints):
            raise ValueError(f"`keypoints` has {len(keypoints)} points and the document {len(category['keypoints'])}")
        self._category_id = category["id"]
        self._sigmas = np.array(keypoints.sigmas)
        self.evaluator = evaluator
        self._documents, self._evaluations = _library(evaluator)
        # All ids are counted from 1. pycocotools takes a match with an annotation of id 0 for none and makes floats of large
        # ids, and neither library knows every kind of id. Images keep their order, by which equal scores are ranked.
        ids = sorted({image["id"] for image in document["images"]}, key=lambda number: (isinstance(number, str), number))
        self.image_numbers = {number: place for place, number in enumerate(ids, start=1)}
        self._truth = self._index(
            [
                {
                    "id": number,
                    "image_id": self.image_numbers[person["image_id"]],
                    "category_id": 1,
                    "keypoints": np.array(person["keypoints"], np.float64),
                    **{key: person[key] for key in ("num_keypoints", "iscrowd", "area", "bbox")},
                }
                for number, person in enumerate(person_annotations(document), start=1)
            ]
        )

    def match(self, results: Sequence[dict[str, Any]], *, by_size: bool) -> Matched:
        """The library's evaluation after its `evaluate`; at most 20 detections an image, ties in the order given.

        Args:
            results: detections, dicts with `image_id`, `category_id`, `keypoints` ([x, y, score] · K) and `score`; left
                as they are.
            by_size: match among medium and among large people too, as well as among all.

        Raises:
            ValueError: a detection is not in the format, has a number that is not finite, or is on an image or of a
                category that the document lacks.
        """
        found = self._index(self._detections(results))
        with quiet():
            evaluation: Matched = self._evaluations(self._truth, found, "keypoints")
            evaluation.params.kpt_oks_sigmas = self._sigmas
            if not by_size:
                evaluation.params.areaRng, evaluation.params.areaRngLbl = [_EVERYBODY], ["all"]
            evaluation.evaluate()
        return evaluation

    def _detections(self, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        points = checked_points(results, len(self._sigmas))
        for number, result in enumerate(results):
            if result["image_id"] not in self.image_numbers:
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
                "image_id": self.image_numbers[result["image_id"]],
                "category_id": 1,
                "keypoints": values.ravel(),
                "score": float(result["score"]),
                "area": float(area),
            }
            for number, (result, values, area) in enumerate(zip(results, points, extents.prod(-1), strict=True), start=1)
        ]

    def _index(self, annotations: list[dict[str, Any]]) -> Any:
        images = [{"id": number} for number in self.image_numbers.values()]
        document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
        if self.evaluator == "hotcoco":
            # Lists: it takes three times as long to read arrays. pycocotools makes an array of a person's key points for
            # every detection.
            for annotation in annotations:
                annotation["keypoints"] = annotation["keypoints"].tolist()
            return self._documents(document)
        coco = self._documents()
        coco.dataset = document
        with quiet():
            coco.createIndex()
        return coco


def _library(evaluator: Evaluator) -> tuple[Any, Any]:
    """Its classes of documents and of evaluations."""
    if evaluator == "hotcoco":
        import hotcoco

        return hotcoco.COCO, hotcoco.COCOeval
    from pycocotools import coco, cocoeval

    return coco.COCO, cocoeval.COCOeval


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What the libraries print is left out, and hotcoco's warning that sigmas are not those of COCO's key points."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "hotcoco: kpt_oks_sigmas differ", UserWarning)
        yield
