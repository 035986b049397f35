"""Lasting ids for the people of a video: what is found in a frame is assigned to the tracks so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rpgmt.data.coco.skeletons import KeypointSet

UNTRACKED = -1
"""Id of a detection that belongs to no track and is too weak to start one."""


@dataclass
class _Track:
    """One person: where it was last seen, and how it moved then."""

    id: int
    box: np.ndarray  # (4,)
    points: np.ndarray | None  # (K, 2)
    velocity: np.ndarray  # (2,), pixels a frame
    missed: int = 0  # frames since it was seen

    def predicted(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Box and key points in the next frame, if it keeps its pace."""
        shift = self.velocity * (self.missed + 1)
        box = self.box + np.append(shift, (0.0, 0.0))
        return box, None if self.points is None else self.points + shift

    def see(self, box: np.ndarray, points: np.ndarray | None, inertia: float) -> None:
        """Go on at a detection in the next frame."""
        centre, before = (b[:2] + b[2:] / 2 for b in (box, self.box))
        self.velocity = inertia * self.velocity + (1 - inertia) * (centre - before) / (self.missed + 1)
        self.box, self.points, self.missed = box, points, 0


class Tracker:
    """Gives the people of one video lasting ids, frame by frame.

    A track is predicted to go on at its pace. Tracks and detections are matched one to one so that the sum of their
    similarities is largest (Kuhn's Hungarian assignment, as Bewley et al., SORT, ICIP 2016, arXiv 1602.00763, do it with
    boxes). Similar is the intersection over union of the boxes; with key points the mean of it and of COCO's object key-point
    similarity. Deterministic; neither ids nor matches depend on the order of the detections. Ids count from 1 and are never
    used again.

    Args:
        keypoints: gives the sigmas; needed if `update` is given key points.
        patience: frames that a track lasts without being found.
        birth: the lowest score that starts a track. Weaker detections only go on with one.
        similarity: the least that is taken for the same person, above 0 and at most 1.
        inertia: how much of its pace a track keeps at each detection, from 0 to below 1.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        keypoints: KeypointSet | None = None,
        *,
        patience: int = 30,
        birth: float = 0.5,
        similarity: float = 0.2,
        inertia: float = 0.5,
    ) -> None:
        if patience < 0:
            raise ValueError(f"`patience` is {patience}: give a number of frames, 0 or more")
        if not 0 < similarity <= 1:
            raise ValueError(f"`similarity` is {similarity}: give a number above 0, at most 1")
        if not 0 <= inertia < 1:
            raise ValueError(f"`inertia` is {inertia}: give a number from 0 to below 1")
        self._keypoints, self._patience, self._birth = keypoints, patience, birth
        self._similarity, self._inertia = similarity, inertia
        self._tracks: list[_Track] = []
        self._born = 0

    def update(self, boxes: np.ndarray, scores: np.ndarray, points: np.ndarray | None = None) -> np.ndarray:
        """Take the next frame and return the ids of its P detections, int64 (P,); `UNTRACKED` (-1) where there is none.

        Call it for frames without people too, with arrays of no rows: time goes on.

        Args:
            boxes: (P, 4), x, y, w, h in pixels.
            scores: (P,).
            points: (P, K, 2) or (P, K, 3), key points (x, y) in pixels, and scores that are not looked at; or None.

        Raises:
            ValueError: the arrays do not fit together, or key points come without sigmas.
        """
        from scipy.optimize import linear_sum_assignment

        boxes, scores, points = self._checked(boxes, scores, points)
        # Sums of floats, and ids of people born together, would tell the order of the detections: they are taken in one order.
        order = np.lexsort((*boxes.T, -scores))
        ids = np.full(len(boxes), UNTRACKED, np.int64)
        similar = self._similarities(boxes[order], None if points is None else points[order])
        for track_number, place in zip(*linear_sum_assignment(similar, maximize=True), strict=True):
            if similar[track_number, place] > 0:
                track, number = self._tracks[track_number], order[place]
                track.see(boxes[number], None if points is None else points[number], self._inertia)
                ids[number] = track.id
        seen = set(ids.tolist())
        for track in self._tracks:
            track.missed += track.id not in seen
        self._tracks = [track for track in self._tracks if track.missed <= self._patience]
        for number in order:
            if ids[number] == UNTRACKED and scores[number] >= self._birth:
                self._born += 1
                ids[number] = self._born
                point_set = None if points is None else points[number]
                self._tracks.append(_Track(self._born, boxes[number], point_set, np.zeros(2)))
        return ids

    def _similarities(self, boxes: np.ndarray, points: np.ndarray | None) -> np.ndarray:
        """(tracks, P), 0 where they are too different to be one person."""
        from rpgmt.metrics.nms import oks

        similar = np.zeros((len(self._tracks), len(boxes)))
        for row, track in zip(similar, self._tracks, strict=True):
            box, known = track.predicted()
            row[:] = box_ious(box[None], boxes)[0]
            if known is not None and points is not None and self._keypoints is not None:
                areas = boxes[:, 2:].prod(1)
                row[:] = (row + oks(known[None], points, box[None, 2:].prod(1), areas, self._keypoints)[0]) / 2
        return np.where(similar >= self._similarity, similar, 0.0)

    def _checked(
        self, boxes: np.ndarray, scores: np.ndarray, points: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        boxes, scores = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float64).reshape(-1)
        if len(boxes) != len(scores):
            raise ValueError(f"{len(boxes)} `boxes` and {len(scores)} `scores`: give one score for each box")
        if points is None:
            return boxes, scores, None
        if self._keypoints is None:
            raise ValueError("`points` need sigmas: give Tracker the set of their `keypoints`")
        points = np.asarray(points, np.float64)
        if points.ndim != 3 or points.shape[:2] != (len(boxes), len(self._keypoints)) or points.shape[2] not in (2, 3):
            raise ValueError(f"`points` is {points.shape}: give ({len(boxes)}, {len(self._keypoints)}, 2 or 3)")
        return boxes, scores, points[..., :2]


def box_ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each of M boxes and each of N others, float64 (M, N).

    Args:
        boxes: (M, 4), x, y, w, h.
        others: (N, 4), the same.
    """
    starts = np.maximum(boxes[:, None, :2], others[None, :, :2])
    ends = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], others[None, :, :2] + others[None, :, 2:])
    shared = np.clip(ends - starts, 0, None).prod(-1)
    union = boxes[:, None, 2:].prod(-1) + others[None, :, 2:].prod(-1) - shared
    return shared / np.maximum(union, np.spacing(1))
