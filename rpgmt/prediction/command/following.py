"""The people of a video from frame to frame: lasting ids, and key points that do not tremble."""

from __future__ import annotations

import dataclasses

import numpy as np

from rpgmt.prediction.people import People
from rpgmt.prediction.results import Poses
from rpgmt.tracking import KeypointSmoother, Tracker


class Follower:
    """Gives the people of one video ids, frame by frame.

    Args:
        rate: frames a second.
        birth: the score of a box from which on it starts a person.
        smooth: whether key points are smoothed too; those of the last stage.
        min_point_score: of a key point that scores less the last place that was seen well stays, when they are smoothed.
    """

    def __init__(self, rate: float, *, birth: float, smooth: bool, min_point_score: float) -> None:
        self._rate, self._birth, self._smooth, self._min_point_score = rate, birth, smooth, min_point_score
        self._tracker: Tracker | None = None
        self._smoother: KeypointSmoother | None = None

    def follow(self, people: People) -> People:
        """The people of the next frame, with ids."""
        has_poses = people.has_poses
        if self._tracker is None:
            self._tracker = Tracker(people.poses.keypoint_set if has_poses else None, birth=self._birth)
            if self._smooth and has_poses:
                self._smoother = KeypointSmoother(self._rate, min_score=self._min_point_score)
        ids = self._tracker.update(people.boxes, people.box_scores, people.keypoints if has_poses else None)
        people = people.with_ids(ids)
        if self._smoother is None:
            return people
        points = np.concatenate([people.keypoints, people.keypoint_scores[..., None]], axis=-1)
        smoothed = self._smoother(ids, points, people.boxes)[..., :2]
        results = {
            name: dataclasses.replace(result, points=smoothed) if isinstance(result, Poses) else result
            for name, result in people.results.items()
        }
        return dataclasses.replace(people, results=results)
