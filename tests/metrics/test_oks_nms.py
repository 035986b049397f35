from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.few_people import few_people, found_at

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS, KeypointSet
from rpgmt.metrics.nms import oks, oks_nms, suppress

ONE = KeypointSet(names=("a",), flip_pairs=(), skeleton=(), sigmas=(0.05,))


def _slow_oks(a: np.ndarray, b: np.ndarray, area: float, sigmas: tuple[float, ...]) -> float:
    each = [
        np.exp(-((a[k][0] - b[k][0]) ** 2 + (a[k][1] - b[k][1]) ** 2) / (2 * area * (2 * sigma) ** 2))
        for k, sigma in enumerate(sigmas)
    ]
    return sum(each) / len(each)


def _people(count: int, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, scores and areas of detections that crowd round a few people."""
    rng = np.random.default_rng(seed)
    people = rng.uniform(0, 200, (groups, 17, 2))
    points = people[rng.integers(0, groups, count)] + rng.normal(0, 4, (count, 17, 2)) * rng.uniform(0, 3, (count, 1, 1))
    return points, rng.random(count), rng.uniform(8e3, 2e4, count)


def test_published_similarities(shared_fixtures: Path) -> None:
    """mmpose 759b39c's, rounded to seven decimals."""
    case = json.loads((shared_fixtures / "codecs" / "mmpose_vectors.json").read_text())["oks"]
    points, areas = np.array(case["keypoints"])[..., :2], np.array(case["areas"])
    found = oks(points, points, areas, areas, COCO_KEYPOINTS)
    np.testing.assert_allclose(found, case["oks_iou"], rtol=0, atol=1e-6)
    # 1 is like 0 (0.985) and 4 like 5 (0.995), 2 is less like 0 (0.870).
    assert oks_nms(points, np.array(case["scores"]), areas, COCO_KEYPOINTS).tolist() == [3, 0, 5, 2]


def test_similarity_of_a_slow_twin() -> None:
    points, _, areas = _people(9, 3, seed=0)
    found = oks(points[:4], points[4:], areas[:4], areas[4:], COCO_KEYPOINTS)
    expected = [
        [_slow_oks(points[i], points[j], (areas[i] + areas[j]) / 2, COCO_KEYPOINTS.sigmas) for j in range(4, 9)]
        for i in range(4)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-300)
    assert np.all(np.diag(oks(points, points, areas, areas, COCO_KEYPOINTS)) == 1)


def test_similarity_worked_out_by_hand() -> None:
    # 5² / (2 · 1000 · 0.1²) = 1.25, with 1000 between the areas 500 and 1500.
    found = oks(np.array([[[3.0, 4.0]]]), np.zeros((1, 1, 2)), np.array([500.0]), np.array([1500.0]), ONE)
    assert found == pytest.approx(np.exp(-1.25))


def test_hard_suppression_keeps_the_best_of_each_group() -> None:
    points, scores, areas = _people(60, 5, seed=1)
    kept = oks_nms(points, scores, areas, COCO_KEYPOINTS, "hard", 0.6).tolist()
    similar = oks(points, points, areas, areas, COCO_KEYPOINTS)
    assert 5 <= len(kept) < 50
    assert scores[kept].tolist() == sorted(scores[kept], reverse=True)
    for i in range(60):
        better = [j for j in kept if scores[j] > scores[i]]
        assert (i in kept) == all(similar[i, j] <= 0.6 for j in better)


def test_soft_suppression_of_a_slow_twin() -> None:
    points, scores, areas = _people(60, 5, seed=2)
    similar = oks(points, points, areas, areas, COCO_KEYPOINTS)
    left, expected = dict(enumerate(scores.tolist())), []
    while len(expected) < 20:
        best = max(left, key=left.__getitem__)
        expected.append(best)
        del left[best]
        left = {i: score * np.exp(-(similar[best, i] ** 2) / 0.9) for i, score in left.items()}
    assert oks_nms(points, scores, areas, COCO_KEYPOINTS, "soft", 0.9).tolist() == expected
    assert expected != np.argsort(-scores)[:20].tolist()


def test_soft_suppression_of_few_only_orders_them() -> None:
    points, scores, areas = _people(20, 2, seed=3)
    assert sorted(oks_nms(points, scores, areas, COCO_KEYPOINTS, "soft")) == list(range(20))


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_equal_scores_rank_in_the_order_given(kind: str) -> None:
    points = np.array([[[0.0, 0]], [[500.0, 0]], [[0.0, 0]], [[900.0, 0]]])
    kept = oks_nms(points, np.full(4, 0.5), np.full(4, 100.0), ONE, kind)  # type: ignore[arg-type]
    assert kept.tolist() == ([0, 1, 3] if kind == "hard" else [0, 1, 3, 2])


def test_what_is_as_similar_as_the_threshold_stays() -> None:
    assert oks_nms(np.zeros((2, 1, 2)), np.array([0.1, 0.2]), np.ones(2), ONE, "hard", 1.0).tolist() == [1, 0]


def test_similar_detections_go_image_by_image_and_the_order_stays() -> None:
    _, keypoints = few_people([5000.0])
    results = [
        found_at(2, 0, 0.1),
        found_at(1, 0, 0.5),
        found_at(2, 100, 0.3),
        found_at(1, 1, 0.9),  # better than the other of its image
        found_at(2, 0.5, 0.05),  # worse
    ]
    assert suppress(results, np.full(5, 5000.0), keypoints, "hard", 0.9) == [results[0], results[2], results[3]]
    assert suppress(results, np.full(5, 5000.0), keypoints, "soft", 0.9) == results
    assert suppress(results, np.full(5, 1e-3), keypoints) == results  # small people are told apart
    assert suppress([], np.zeros(0), keypoints) == []


def test_twenty_of_an_image_stay_after_soft_suppression() -> None:
    _, keypoints = few_people([5000.0])
    results = [found_at(1, 0, 0.9 - 0.01 * n) for n in range(25)] + [found_at(1, 190, 0.1), found_at(2, 0, 0.1)]
    kept = suppress(results, np.full(27, 5000.0), keypoints, "soft", 0.9)
    assert kept == [*results[:19], results[25], results[26]]


def test_wrong_arguments_are_an_error() -> None:
    points, scores, areas = _people(2, 1, seed=4)
    with pytest.raises(ValueError, match="`threshold` is 0: give a number above 0"):
        oks_nms(points, scores, areas, COCO_KEYPOINTS, "hard", 0)
    with pytest.raises(ValueError, match="`kind` is 'no': give hard or soft"):
        oks_nms(points, scores, areas, COCO_KEYPOINTS, "no")  # type: ignore[arg-type]
    _, keypoints = few_people([5000.0])
    for wrong in (np.zeros(2), np.array([np.nan])):
        with pytest.raises(ValueError, match="`areas` has shape"):
            suppress([found_at(1, 0, 1)], wrong, keypoints)
