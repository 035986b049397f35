"""From frames to lasting ids: boxes that are drawn, found by a small ONNX detector, followed and smoothed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.box_detector import box_detector, draw

from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.detection import make_detector
from rpgmt.tracking import KeypointSmoother, Tracker

CORNERS = KeypointSet(names=("upper_left", "lower_right"), flip_pairs=(), skeleton=((0, 1),), sigmas=(0.1, 0.1))


def test_boxes_that_cross_hide_each_other_and_leave_keep_their_ids(tmp_path: Path) -> None:
    """Red and green cross, green in front; blue is not to be seen for eight frames. Every frame goes the whole way."""
    path = box_detector(tmp_path / "d.onnx", shape=(1, 3, 120, 200), labels=[1, 2, 3])
    detector = make_detector(path, classes=[1, 2, 3])  # the labels say who it is
    tracker, smoother = Tracker(CORNERS, patience=10), KeypointSmoother(25)
    ids_of: dict[int, set[int]] = {1: set(), 2: set(), 3: set()}
    hidden = 0
    for frame in range(60):
        blue = None if 30 <= frame < 38 else (160 - frame, 90, 20, 20)
        image = draw((120, 200), [(10 + 3 * frame, 20, 24, 40), (170 - 3 * frame, 30, 24, 40), blue])
        (detections,) = detector([image])
        starts, ends = detections.boxes[:, :2], detections.boxes[:, :2] + detections.boxes[:, 2:]
        points = np.dstack((np.stack((starts, ends), 1), np.ones((len(starts), 2))))
        ids = tracker.update(detections.boxes, detections.scores, points)
        smooth = smoother(ids, points, detections.boxes)
        assert smooth.shape == points.shape
        assert np.abs(smooth - points).max(initial=0) < 8
        hidden += len(ids) < 3
        assert detections.labels is not None
        for id, label in zip(ids.tolist(), detections.labels.tolist(), strict=True):
            ids_of[label].add(id)
    assert hidden >= 8
    assert sorted(map(sorted, ids_of.values())) == [[1], [2], [3]]


def test_a_video_without_anybody(tmp_path: Path) -> None:
    detector = make_detector(box_detector(tmp_path / "d.onnx"))
    tracker, smoother = Tracker(), KeypointSmoother(25)
    for detections in detector([draw((48, 64), [])] * 3):
        ids = tracker.update(detections.boxes, detections.scores)
        assert ids.shape == (0,)
        assert smoother(ids, np.zeros((0, 17, 3)), detections.boxes).shape == (0, 17, 3)
