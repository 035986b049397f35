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
    """

    def __init__(self, rate: float, *, birth: float, smooth: bool) -> None:
        self._rate, self._birth, self._smooth = rate, birth, smooth
        self._tracker: Tracker | None = None
        self._smoother: KeypointSmoother | None = None

    def follow(self, people: People) -> People:
        """The people of the next frame, with ids."""
        has_poses = people.has_poses
        if self._tracker is None:
            self._tracker = Tracker(people.poses.keypoint_set if has_poses else None, birth=self._birth)
            self._smoother = KeypointSmoother(self._rate) if self._smooth and has_poses else None
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
