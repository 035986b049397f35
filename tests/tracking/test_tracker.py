"""Lasting ids: what may happen to the people of a video, and a slow twin that tries every assignment."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.tracking import Tracker
from rpgmt.tracking.tracker import UNTRACKED, box_ious

Box = tuple[float, float, float, float]
NOBODY: tuple[np.ndarray, np.ndarray] = np.zeros((0, 4)), np.zeros(0)


def walkers(frames: int, starts: list[Box], steps: list[tuple[float, float]]) -> np.ndarray:
    """Boxes (frames, people, 4) of people who walk straight on."""
    moved = np.arange(frames)[:, None, None] * np.pad(np.array(steps), ((0, 0), (0, 2)))
    return np.array(starts) + moved


def follow(tracker: Tracker, frames: np.ndarray, shuffle: int | None = None) -> np.ndarray:
    """Ids (frames, people) of boxes that are found in every frame, in an order that changes."""
    rng, rows = np.random.default_rng(shuffle), []
    for boxes in frames:
        order = np.arange(len(boxes)) if shuffle is None else rng.permutation(len(boxes))
        ids = np.empty(len(boxes), np.int64)
        ids[order] = tracker.update(boxes[order], np.full(len(boxes), 0.9))
        rows.append(ids)
    return np.array(rows)


@pytest.mark.parametrize("step", [1, 3, 8])
@pytest.mark.parametrize("apart", [0, 10])
def test_people_who_cross_keep_their_ids(step: float, apart: float) -> None:
    """Also where both are for a moment in the very same place: they go on as they went."""
    frames = walkers(int(300 / step), [(0, 50, 40, 100), (300, 50 + apart, 40, 100)], [(step, 0), (-step, 0)])
    assert np.abs(np.diff(frames[:, :, 0], axis=1)).min() <= step  # they do meet
    ids = follow(Tracker(), frames, shuffle=1)
    same = (frames[:, 0] == frames[:, 1]).all(1)  # for a frame, where nobody could tell who is who
    assert same.sum() == (apart == 0 and 300 % (2 * step) == 0)
    assert (ids[~same] == ids[0]).all()
    assert set(ids[0].tolist()) == {1, 2}


@pytest.mark.parametrize("missing", [1, 5, 30])
def test_a_person_who_was_hidden_comes_back_under_the_same_id(missing: int) -> None:
    tracker = Tracker(patience=30)
    frames = walkers(60, [(0, 0, 40, 100), (200, 300, 40, 100)], [(6, 2), (0, 0)])
    before = follow(tracker, frames[:20])
    while_hidden = follow(tracker, frames[20 : 20 + missing, 1:])
    after = follow(tracker, frames[20 + missing :])
    assert (before == [before[0]]).all()
    assert (while_hidden == before[0, 1]).all()
    assert (after == before[0]).all()


@pytest.mark.parametrize("missing", [0, 3, 4])
def test_patience_is_counted_in_frames_also_in_those_without_people(missing: int) -> None:
    tracker = Tracker(patience=3)
    box, score = np.array([[0, 0, 40, 100]]), np.array([0.9])
    (first,) = tracker.update(box, score)
    for _ in range(missing):
        assert tracker.update(*NOBODY).shape == (0,)
    assert (tracker.update(box, score)[0] == first) == (missing <= 3)


def test_without_patience_a_track_lasts_from_frame_to_frame() -> None:
    frames = walkers(5, [(0, 0, 40, 100)], [(3, 0)])
    assert (follow(Tracker(patience=0), frames) == 1).all()


def test_weak_detections_go_on_with_a_track_and_start_none() -> None:
    tracker = Tracker(birth=0.5)
    box = np.array([[0, 0, 40, 100]])
    assert tracker.update(box, np.array([0.49])).tolist() == [UNTRACKED]
    assert tracker.update(box, np.array([0.5])).tolist() == [1]
    assert tracker.update(box, np.array([0.05])).tolist() == [1]


def test_who_jumps_away_is_somebody_else() -> None:
    frames = np.array([[[0, 0, 40, 100]], [[500, 0, 40, 100]]], np.float64)
    assert follow(Tracker(), frames).ravel().tolist() == [1, 2]


def crowd(seed: int, frames: int = 60, people: int = 6) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Boxes, scores and key points of people who wander and tremble, are lost, and are found where nobody is."""
    rng = np.random.default_rng(seed)
    places, speeds = rng.uniform(0, 300, (people, 2)), rng.normal(0, 4, (people, 2))
    poses = rng.uniform(0, 1, (people, 17, 2))
    found = []
    for _ in range(frames):
        places, speeds = places + speeds, speeds + rng.normal(0, 0.5, (people, 2))
        seen = rng.random(people) < 0.8
        ghosts = rng.uniform(0, 300, (rng.integers(0, 3), 2))
        corners = np.concatenate((places[seen] + rng.normal(0, 2, (seen.sum(), 2)), ghosts))
        boxes = np.concatenate((corners, rng.uniform(50, 60, (len(corners), 1)), rng.uniform(90, 110, (len(corners), 1))), 1)
        pose = np.concatenate((poses[seen], rng.uniform(0, 1, (len(ghosts), 17, 2))))
        points = boxes[:, None, :2] + pose * boxes[:, None, 2:] + rng.normal(0, 1, (len(boxes), 17, 2))
        found.append((boxes, rng.uniform(0.2, 1, len(boxes)), points))
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("with_points", [False, True])
def test_the_order_of_detections_does_not_matter(seed: int, with_points: bool) -> None:
    one, other, rng = Tracker(COCO_KEYPOINTS), Tracker(COCO_KEYPOINTS), np.random.default_rng(seed)
    for boxes, scores, points in crowd(seed):
        order = rng.permutation(len(boxes))
        ids = one.update(boxes, scores, points if with_points else None)
        assert np.array_equal(other.update(boxes[order], scores[order], points[order] if with_points else None), ids[order])


@pytest.mark.parametrize("seed", range(5))
def test_ids_are_one_persons_and_never_used_again(seed: int) -> None:
    tracker, last_seen, highest, starts = Tracker(patience=2), {}, 0, 0
    for frame, (boxes, scores, _) in enumerate(crowd(seed)):
        ids = tracker.update(boxes, scores)
        own = ids[ids != UNTRACKED].tolist()
        assert len(set(own)) == len(own)
        for id in own:
            assert id in last_seen or id > highest
            assert frame - last_seen.get(id, frame) <= 3  # two frames missed at most
            starts += id not in last_seen
            last_seen[id] = frame
        highest = max([highest, *own])
        assert (scores[ids == UNTRACKED] < 0.5).all()
    assert starts == highest > 10


class SlowTracker:
    """Every assignment is tried; box and key points are compared number by number."""

    def __init__(self, sigmas: tuple[float, ...]) -> None:
        self.sigmas, self.tracks, self.born = sigmas, [], 0

    def similar(self, track: dict, box: list[float], points: list | None) -> float:
        age = track["missed"] + 1
        dx, dy = track["speed"][0] * age, track["speed"][1] * age
        x, y, w, h = track["box"][0] + dx, track["box"][1] + dy, track["box"][2], track["box"][3]
        wide = max(0.0, min(x + w, box[0] + box[2]) - max(x, box[0]))
        high = max(0.0, min(y + h, box[1] + box[3]) - max(y, box[1]))
        value = wide * high / (w * h + box[2] * box[3] - wide * high)
        if points is not None:
            area, total = (w * h + box[2] * box[3]) / 2, 0.0
            for (a, b), (c, d), sigma in zip(track["points"], points, self.sigmas, strict=True):
                total += math.exp(-((a + dx - c) ** 2 + (b + dy - d) ** 2) / (2 * area * (2 * sigma) ** 2))
            value = (value + total / len(self.sigmas)) / 2
        return value if value >= 0.2 else 0.0

    def update(self, boxes: list, scores: list, points: list | None) -> list[int]:
        table = [
            [self.similar(track, box, None if points is None else points[i]) for i, box in enumerate(boxes)]
            for track in self.tracks
        ]
        best, pairs = -1.0, []
        places = [*range(len(boxes)), *[None] * len(self.tracks)]
        for choice in set(itertools.permutations(places, len(self.tracks))):
            chosen = [(t, i) for t, i in enumerate(choice) if i is not None and table[t][i] > 0]
            total = sum(table[t][i] for t, i in chosen)
            if total > best:
                best, pairs = total, chosen
        ids = [UNTRACKED] * len(boxes)
        for track in self.tracks:
            track["missed"] += 1
        for t, i in pairs:
            track, (x, y, w, h) = self.tracks[t], boxes[i]
            old = track["box"]
            moved = (x + w / 2 - old[0] - old[2] / 2, y + h / 2 - old[1] - old[3] / 2)
            track["speed"] = [(v + m / track["missed"]) / 2 for v, m in zip(track["speed"], moved, strict=True)]
            track.update(box=boxes[i], points=None if points is None else points[i], missed=0)
            ids[i] = track["id"]
        self.tracks = [track for track in self.tracks if track["missed"] <= 3]
        for score, i in sorted(((score, i) for i, score in enumerate(scores)), reverse=True):
            if ids[i] == UNTRACKED and score >= 0.5:
                self.born += 1
                ids[i] = self.born
                own = None if points is None else points[i]
                self.tracks.append({"id": self.born, "box": boxes[i], "points": own, "speed": [0.0, 0.0], "missed": 0})
        return ids


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_points", [False, True])
def test_as_the_slow_twin(seed: int, with_points: bool) -> None:
    fast, slow, lasting = Tracker(COCO_KEYPOINTS, patience=3), SlowTracker(COCO_KEYPOINTS.sigmas), 0
    for boxes, scores, points in crowd(seed, frames=25, people=3):
        boxes, scores, points = boxes[:3], scores[:3], points[:3]
        ids = fast.update(boxes, scores, points if with_points else None).tolist()
        assert ids == slow.update(boxes.tolist(), scores.tolist(), points.tolist() if with_points else None)
        lasting += len(set(ids))
    assert lasting > slow.born + 15


def test_key_points_tell_apart_who_stands_in_the_same_box() -> None:
    """Two people in one box who look different; boxes say nothing, and the order of the detections changes."""
    rng = np.random.default_rng(0)
    boxes, scores = np.array([[10, 10, 50, 100], [10, 10, 50, 100]], np.float64), np.array([0.9, 0.8])
    poses = 10 + rng.uniform(0, 1, (2, 17, 2)) * (50, 100)
    tracker = Tracker(COCO_KEYPOINTS)
    first = tracker.update(boxes, scores, poses)
    for _ in range(6):
        order = rng.permutation(2)
        ids = tracker.update(boxes, scores[order], np.dstack((poses, np.ones((2, 17))))[order] + rng.normal(0, 0.3, (2, 17, 3)))
        assert np.array_equal(ids, first[order])


def test_overlap_of_boxes() -> None:
    one = np.array([[0, 0, 10, 10]], np.float64)
    others = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 10, 10], [2, 2, 5, 5], [50, 50, 0, 0]], np.float64)
    assert np.allclose(box_ious(one, others), [[1, 50 / 150, 0, 25 / 100, 0]], rtol=0, atol=1e-12)
    assert np.array_equal(box_ious(others, one), box_ious(one, others).T)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": -1}, "`patience` is -1"),
        ({"similarity": 0}, "`similarity` is 0"),
        ({"similarity": 1.1}, "`similarity` is 1.1"),
        ({"inertia": 1}, "`inertia` is 1"),
    ],
)
def test_numbers_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tracker(**options)  # type: ignore[arg-type]


def test_arrays_that_do_not_fit() -> None:
    boxes, scores = np.zeros((2, 4)), np.zeros(2)
    with pytest.raises(ValueError, match="2 `boxes` and 1 `scores`: give one score for each box"):
        Tracker().update(boxes, scores[:1])
    with pytest.raises(ValueError, match="`points` need sigmas"):
        Tracker().update(boxes, scores, np.zeros((2, 17, 3)))
    with pytest.raises(ValueError, match=r"`points` is \(2, 16, 3\): give \(2, 17, 2 or 3\)"):
        Tracker(COCO_KEYPOINTS).update(boxes, scores, np.zeros((2, 16, 3)))
