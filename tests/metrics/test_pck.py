"""PCK and its relatives against tables made by hand, a slow twin and their properties."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.metrics.pck import AUC_THRESHOLDS, head_count, head_pck, pck_metrics, torso_count, torso_pck

NAMES = ("nose", "hand", "foot")


def table() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two people of size 10 and one of unknown size; errors in pixels below, - where not annotated.

    nose 1 5 (9), hand 2 -, foot 6 2.
    """
    truth = np.full((3, 3, 2), [100.0, 50.0])
    found = truth.copy()
    found[0, :, 0] += [1, 2, 6]
    found[1, :, 1] -= [5, 77, 2]
    found[2, :, 0] += 9
    valid = np.array([[2, 1, 2], [2, 0, 2], [2, 2, 2]])
    return found, truth, valid, np.array([10.0, 10.0, np.nan])


def test_the_table_made_by_hand() -> None:
    metrics = pck_metrics(*table(), NAMES)
    # Within 2 pixels: nose 1 of 2, hand 1 of 1, foot 1 of 2.
    assert metrics["PCK@0.2:nose"] == 0.5
    assert metrics["PCK@0.2:hand"] == 1
    assert metrics["PCK@0.2:foot"] == 0.5
    assert metrics["PCK@0.2"] == pytest.approx(3 / 5)
    assert metrics["PCK@0.2_joint_mean"] == pytest.approx(2 / 3)
    assert metrics["EPE"] == pytest.approx((1 + 5 + 2 + 6 + 2) / 5)
    # An error of d / 10 is within the thresholds from d / 10 on: 50 - 10 d + 1 of the 50, none for 0.6.
    assert metrics["AUC"] == pytest.approx((41 + 1 + 31 + 0 + 31) / 50 / 5)


def test_left_out_points_have_their_own_figure_but_no_part_in_means() -> None:
    metrics = pck_metrics(*table(), NAMES, thresholds=(0.2, 0.55), label="PCKh", left_out=("hand",))
    assert metrics["PCKh@0.2:hand"] == 1
    assert metrics["PCKh@0.2"] == metrics["PCKh@0.2_joint_mean"] == 0.5
    assert metrics["PCKh@0.55"] == 0.75
    assert metrics["EPE"] == pytest.approx(14 / 4)


def test_nothing_annotated_is_none() -> None:
    found, truth, valid, sizes = table()
    for nothing in (pck_metrics(found, truth, 0 * valid, sizes, NAMES), pck_metrics(found, truth, valid, 0 * sizes, NAMES)):
        assert set(nothing.values()) == {None}
    only_feet = pck_metrics(found, truth, valid * [0, 0, 1], sizes, NAMES)
    assert only_feet["PCK@0.2:nose"] is None
    assert only_feet["PCK@0.2_joint_mean"] == only_feet["PCK@0.2"] == 0.5


def test_a_slow_twin_agrees() -> None:
    rng = np.random.default_rng(0)
    truth, sizes = rng.uniform(0, 100, (7, 4, 2)), rng.uniform(5, 40, 7)
    found, valid = truth + rng.normal(0, 6, truth.shape), rng.integers(0, 3, (7, 4))
    names = ("a", "b", "c", "d")
    metrics = pck_metrics(found, truth, valid, sizes, names, thresholds=(0.1, 0.5))
    ratios = [
        (k, math.dist(found[p, k], truth[p, k]) / sizes[p], math.dist(found[p, k], truth[p, k]))
        for p in range(7)
        for k in range(4)
        if valid[p, k] > 0
    ]
    for threshold in (0.1, 0.5):
        hits = [ratio <= threshold for _, ratio, _ in ratios]
        assert metrics[f"PCK@{threshold}"] == pytest.approx(sum(hits) / len(hits))
        means = []
        for k, name in enumerate(names):
            own = [hit for (j, _, _), hit in zip(ratios, hits, strict=True) if j == k]
            means.append(sum(own) / len(own))
            assert metrics[f"PCK@{threshold}:{name}"] == pytest.approx(means[-1])
        assert metrics[f"PCK@{threshold}_joint_mean"] == pytest.approx(sum(means) / 4)
    curve = [sum(ratio <= t for _, ratio, _ in ratios) / len(ratios) for t in AUC_THRESHOLDS]
    assert metrics["AUC"] == pytest.approx(sum(curve) / len(curve))
    assert metrics["EPE"] == pytest.approx(sum(d for _, _, d in ratios) / len(ratios))


def people_with_two_points(shoulder: int, **annotation: Any) -> CocoPeople:
    """One person with left shoulder (10, 20) of the given visibility, right hip (40, 60) and nose (30, 10): torso 50."""
    points = np.zeros((17, 3))
    for name, point in (("left_shoulder", (10, 20, shoulder)), ("right_hip", (40, 60, 2)), ("nose", (30, 10, 2))):
        points[COCO_KEYPOINTS.names.index(name)] = point
    person = {
        "id": 5,
        "image_id": 1,
        "category_id": 1,
        "bbox": [5, 5, 50, 70],
        "area": 900.0,
        "keypoints": points.ravel().tolist(),
    }
    document = {
        "images": [{"id": 1, "width": 100, "height": 100, "file_name": "a.jpg"}],
        "annotations": [{**person, **annotation}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS.names), "skeleton": []}],
    }
    return CocoPeople(document, lambda *_: np.zeros((100, 100, 3), np.uint8))


def test_the_torso_runs_from_left_shoulder_to_right_hip() -> None:
    people = people_with_two_points(shoulder=1)
    found = people.people[0].keypoints[None] + np.array([6.0, 8.0])  # 10 = 0.2 · 50: counts
    assert torso_pck(people, [0], found)["PCK@0.2"] == 1
    assert torso_pck(people, [0], found + np.array([0.1, 0]))["PCK@0.2"] == 0
    assert torso_pck(people_with_two_points(shoulder=0), [0], found)["PCK@0.2"] is None


def test_the_head_comes_with_the_annotation() -> None:
    people = people_with_two_points(shoulder=2, head_size=20.0)
    found = people.people[0].keypoints[None] + np.array([6.0, 8.0])
    scores = np.ones((1, 17, 1))
    metrics = head_pck(people, [0], np.concatenate([found, scores], axis=-1))
    assert (metrics["PCKh@0.5"], metrics["PCKh@0.1"]) == (1, 0)
    with pytest.raises(ValueError, match="no annotation of annotations has a `head_size`"):
        head_pck(people_with_two_points(shoulder=2), [0], found)


def test_whom_it_counts_is_said() -> None:
    everybody, nobody = people_with_two_points(shoulder=1), people_with_two_points(shoulder=0, head_size=20.0)
    assert torso_count(everybody) == (1, 1, 3, 3)
    assert torso_count(nobody) == (0, 1, 0, 2)
    assert head_count(nobody) == (1, 1, 2, 2)
    nobody.people *= 1234
    assert str(torso_count(nobody)) == "0 of 1,234 people, 0 of 2,468 key points"
