"""From found poses to figures, by the protocols of the data sets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rpgmt.data.coco.annotations import are_numbers
from rpgmt.errors import UserError
from rpgmt.metrics.coco import CocoEvaluator
from rpgmt.metrics.crowdpose import CrowdPoseEvaluator
from rpgmt.metrics.matching import Evaluator
from rpgmt.metrics.nms import Suppression, suppress
from rpgmt.metrics.pck import PckCount, head_count, head_pck, torso_count, torso_pck
from rpgmt.metrics.results import Rescoring, keypoint_results, rescore

if TYPE_CHECKING:
    from rpgmt.data.coco.people import CocoPeople

Protocol = Literal["coco", "crowdpose", "pck", "pckh", "coco_pck"]
"""COCO's or CrowdPose's numbers, PCK of the torso, PCKh; COCO's and, where people have a torso, PCK@0.2."""

FIGURES: dict[Protocol, tuple[str, ...]] = {
    "coco": ("AP",),
    "crowdpose": ("AP",),
    "pck": ("PCK@0.2",),
    "pckh": ("PCKh@0.5",),
    "coco_pck": ("AP", "PCK@0.2"),
}
"""What models are compared by, all from 0 to 1, higher is better; the first one tells which of two is better."""

TORSO = {"left_shoulder", "right_hip"}
"""Key points that PCK measures by."""


class PoseEvaluation:
    """Rescores, suppresses and measures poses of the people of a data set.

    Args:
        people: who is to be found, and what is known of them.
        protocol: what is measured.
        areas: for each of `people.people` the square pixels that OKS suppression measures by.
        rescoring: a person's score, see `rescore`.
        nms: suppression of people found twice, see `oks_nms`; "none" for none.
        nms_threshold: OKS above which two people are one.
        evaluator: the library that computes AP.

    Raises:
        UserError: the data set lacks what the protocol measures by.
    """

    def __init__(
        self,
        people: CocoPeople,
        protocol: Protocol,
        areas: np.ndarray,
        *,
        rescoring: Rescoring = "mean",
        nms: Suppression | Literal["none"] = "none",
        nms_threshold: float = 0.9,
        evaluator: Evaluator = "hotcoco",
    ) -> None:
        _check_protocol(people, protocol)
        self.people, self.protocol, self.areas = people, protocol, areas
        self.rescoring, self.nms, self.nms_threshold = rescoring, nms, nms_threshold
        self.evaluator: Evaluator = evaluator

    def results(self, indices: Sequence[int], poses: np.ndarray) -> list[dict[str, Any]]:
        """What was found, in COCO's result format.

        Args:
            indices: P places in `people.people`.
            poses: (P, K, 3), x and y in pixels of the image, score.
        """
        found = [self.people.people[index] for index in indices]
        boxes = np.array([person.score for person in found])
        # In float32, in which the maps are: published figures on small sets depend on how it breaks ties.
        scores = rescore(boxes, poses[..., 2].astype(np.float32), self.rescoring)
        results = keypoint_results(poses, scores, [person.image["id"] for person in found], self.people.category_id)
        if self.nms == "none":
            return results
        return suppress(results, self.areas[list(indices)], self.people.keypoints, self.nms, self.nms_threshold)

    def metrics(self, indices: Sequence[int], poses: np.ndarray) -> dict[str, float | None]:
        """The protocol's numbers; arguments as of `results`."""
        if self.protocol == "pck":
            return torso_pck(self.people, indices, poses)
        if self.protocol == "pckh":
            return head_pck(self.people, indices, poses)
        figures = self._evaluator.metrics(self.results(indices, poses))
        if self.protocol == "coco_pck" and self._with_torso:
            pck = torso_pck(self.people, indices, poses)
            figures |= {name: value for name, value in pck.items() if name.partition(":")[0] == "PCK@0.2"}
        return figures

    def counted(self) -> dict[str, PckCount]:
        """Whom a PCK is over, by its name: people without a size do not count."""
        if self.protocol == "pckh":
            return {"PCKh@0.5": head_count(self.people)}
        if self.protocol == "pck" or (self.protocol == "coco_pck" and self._with_torso):
            return {"PCK@0.2": torso_count(self.people)}
        return {}

    @property
    def _with_torso(self) -> bool:
        return set(self.people.keypoints.names) >= TORSO

    @cached_property
    def _evaluator(self) -> CocoEvaluator | CrowdPoseEvaluator:
        kind = CrowdPoseEvaluator if self.protocol == "crowdpose" else CocoEvaluator
        return kind(self.people.annotations, self.people.keypoints, self.evaluator)


def _check_protocol(people: CocoPeople, protocol: Protocol) -> None:
    need = ""
    if protocol == "pck" and (missing := TORSO - set(people.keypoints.names)):
        need = f"key points {', '.join(sorted(missing))}"
    elif protocol == "pckh":
        sizes = [a["head_size"] for a in people.annotations["annotations"] if a.get("head_size") is not None]
        if not are_numbers(sizes):
            wrong = next(size for size in sizes if not are_numbers([size]))
            raise UserError(f"{people.name}: a `head_size` is {wrong!r}: give pixels, or leave it out")
        need = "" if sizes else "a `head_size` of the annotations"
    elif protocol == "crowdpose":
        crowded = are_numbers([image.get("crowdIndex") for image in people.annotations["images"]])
        need = "" if crowded else "a `crowdIndex` of every image, a number from 0 to 1"
    if need:
        raise UserError(f"`protocol` is {protocol}: {people.name} lacks {need}; give another, e.g. coco")
