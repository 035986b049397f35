"""From frames to lasting ids: boxes that are drawn, found by a small ONNX detector, followed and smoothed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.box_detector import COLOURS, box_detector, draw

from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.detection import make_detector
from rpgmt.tracking import KeypointSmoother, Tracker

CORNERS = KeypointSet(names=("upper_left", "lower_right"), flip_pairs=(), skeleton=((0, 1),), sigmas=(0.1, 0.1))


def colour_at(image: np.ndarray, box: np.ndarray) -> int:
    """Index of the colour that fills most of a box: who it is."""
    x, y, w, h = np.round(box + (0.5, 0.5, 0, 0)).astype(int)
    return int((image[y : y + h, x : x + w].reshape(-1, 1, 3) == COLOURS).all(-1).sum(0).argmax())


def test_boxes_that_cross_hide_each_other_and_leave_keep_their_ids(tmp_path: Path) -> None:
    """Red and green cross, green in front; blue leaves the picture for eight frames. Every frame goes the whole way."""
    detector = make_detector(box_detector(tmp_path / "d.onnx", shape=(1, 3, 120, 200)))
    tracker, smoother = Tracker(CORNERS, patience=10), KeypointSmoother(25)
    ids_of: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    hidden = 0
    for frame in range(60):
        blue = (160 if frame < 20 else 160 + 4 * (frame - 20), 90, 20, 20) if not 30 <= frame < 38 else None
        if blue is not None and frame >= 38:
            blue = (160, 90, 20, 20)
        image = draw((120, 200), [(10 + 3 * frame, 20, 24, 40), (170 - 3 * frame, 30, 24, 40), blue])
        (detections,) = detector([image])
        starts, ends = detections.boxes[:, :2], detections.boxes[:, :2] + detections.boxes[:, 2:]
        points = np.dstack((np.stack((starts, ends), 1), np.ones((len(starts), 2))))
        ids = tracker.update(detections.boxes, detections.scores, points)
        smooth = smoother(ids, points, detections.boxes)
        assert smooth.shape == points.shape
        assert np.abs(smooth - points).max(initial=0) < 8
        hidden += len(ids) < 3
        for id, box in zip(ids.tolist(), detections.boxes, strict=True):
            ids_of[colour_at(image, box)].add(id)
    assert hidden >= 8
    assert [len(ids) for ids in ids_of.values()][:2] == [1, 1]
    assert len(set.union(*ids_of.values())) == sum(len(ids) for ids in ids_of.values())


def test_a_video_without_anybody(tmp_path: Path) -> None:
    detector = make_detector(box_detector(tmp_path / "d.onnx"))
    tracker, smoother = Tracker(), KeypointSmoother(25)
    for detections in detector([draw((48, 64), [])] * 3):
        ids = tracker.update(detections.boxes, detections.scores)
        assert ids.shape == (0,)
        assert smoother(ids, np.zeros((0, 17, 3)), detections.boxes).shape == (0, 17, 3)
