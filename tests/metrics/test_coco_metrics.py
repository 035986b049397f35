from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.few_people import few_people, found_at, found_each

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS, KeypointSet
from rpgmt.metrics.coco import COCO_METRICS, CocoEvaluator, coco_keypoint_metrics
from rpgmt.metrics.nms import suppress
from rpgmt.metrics.results import rescore


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _near_the_truth(annotations: list[dict]) -> list[dict]:
    """The detections of mmpose's test: each true person 2 % off, scored by box and key points, without repetitions."""
    points = np.array([annotation["keypoints"] for annotation in annotations], np.float32).reshape(-1, 17, 3)
    points *= np.float32([0.98, 1.02, 0.8])
    scores = rescore(np.full(len(points), 0.98), points[..., 2], "box_mean_max")
    areas = np.array([(1.25 * annotation["bbox"][2]) * (1.25 * annotation["bbox"][3]) for annotation in annotations])
    results = [
        {"image_id": annotation["image_id"], "category_id": 1, "keypoints": person.ravel().tolist(), "score": score}
        for annotation, person, score in zip(annotations, points, scores.tolist(), strict=True)
    ]
    return suppress(results, areas, COCO_KEYPOINTS, "hard", 0.9)


# Made with pycocotools 2.0.11 and xtcocotools 1.14.3, identical; the second is asserted in faster_coco_eval 33ab609,
# tests/test_keypoints.py, the third in mmpose 759b39c, tests/test_evaluation/test_metrics/test_coco_metric.py.
@pytest.mark.parametrize("name", ["xtcocoapi_example_coco", "fce_keypoints", "mmpose_align2"])
def test_published_numbers(shared_fixtures: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = shared_fixtures / "coco_eval"
    case = _read(folder / "expected.json")[name]
    document = _read(folder / case["gt"])
    results = _read(folder / case["dt"]) if "dt" in case else _near_the_truth(document["annotations"])
    before = copy.deepcopy((document, results))
    metrics = coco_keypoint_metrics(document, results, COCO_KEYPOINTS)
    assert tuple(metrics) == COCO_METRICS
    np.testing.assert_allclose(list(metrics.values()), case["stats"], rtol=0, atol=1e-12)
    assert (document, results) == before
    assert capsys.readouterr().out == ""


def _oks(person: dict, result: dict, sigmas: tuple[float, ...]) -> float:
    """Object key-point similarity, as cocodataset.org defines it, in a loop."""
    similarities = []
    for k, sigma in enumerate(sigmas):
        x, y, visible = person["keypoints"][3 * k : 3 * k + 3]
        if visible:
            u, v, _ = result["keypoints"][3 * k : 3 * k + 3]
            similarities.append(np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * person["area"] * (2 * sigma) ** 2)))
    return float(np.mean(similarities))


def _average_precision(oks: list[float], scores: list[float], people: int, threshold: float) -> float:
    """One person and one detection an image: precision at 101 recalls, the best to the right of each."""
    hits = np.array(oks)[np.argsort(-np.array(scores), kind="mergesort")] >= threshold
    recall = np.cumsum(hits) / people
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(np.mean([max(precision[recall >= r - 1e-12], default=0.0) for r in np.linspace(0, 1, 101)]))


def test_average_precision_of_a_slow_twin() -> None:
    rng = np.random.default_rng(0)
    document, keypoints = few_people(rng.uniform(2000, 9000, 12).tolist())
    results = found_each(document, rng.uniform(0, 14, 12).tolist(), rng.random(12).tolist())
    oks = [_oks(person, result, keypoints.sigmas) for person, result in zip(document["annotations"], results, strict=True)]
    scores = [result["score"] for result in results]
    metrics = coco_keypoint_metrics(document, results, keypoints)
    expected = [_average_precision(oks, scores, 12, threshold) for threshold in np.linspace(0.5, 0.95, 10)]
    assert 0.1 < np.mean(expected) < 0.9
    assert metrics["AP"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert metrics["AP50"] == pytest.approx(expected[0], abs=1e-12)
    assert metrics["AR75"] == pytest.approx(np.mean(np.array(oks) >= 0.75), abs=1e-12)


def test_one_evaluator_serves_several_sets_of_detections() -> None:
    rng = np.random.default_rng(1)
    document, keypoints = few_people(rng.uniform(2000, 9000, 6).tolist())
    stages = [found_each(document, rng.uniform(0, 14, 6).tolist(), rng.random(6).tolist()) for _ in range(3)]
    evaluator = CocoEvaluator(document, keypoints)
    numbers = [evaluator.metrics(results) for results in stages]
    assert numbers == [coco_keypoint_metrics(document, results, keypoints) for results in stages]
    assert numbers[0] != numbers[1]


def test_no_samples_is_none_and_no_detections_is_zero() -> None:
    document, keypoints = few_people([5000.0, 6000.0])  # medium is 32² … 96²
    metrics = coco_keypoint_metrics(document, found_each(document, [0, 0], [1, 1]), keypoints)
    assert metrics == {name: (None if name in ("APL", "ARL") else 1.0) for name in COCO_METRICS}
    metrics = coco_keypoint_metrics(document, [], keypoints)
    assert metrics == {name: (None if name in ("APL", "ARL") else 0.0) for name in COCO_METRICS}


def test_crowds_and_people_without_labels_are_ignored() -> None:
    document, keypoints = few_people([5000.0] * 3)
    document["annotations"][1]["iscrowd"] = 1
    document["annotations"][2] |= {"keypoints": [0] * 6, "num_keypoints": 0}
    document["annotations"].append({"id": 9, "image_id": 0, "category_id": 4})  # a car
    results = found_each(document, [0, 0, 0], [0.5, 0.9, 0.9])
    assert coco_keypoint_metrics(document, results, keypoints)["AP"] == pytest.approx(1)
    document["annotations"] = document["annotations"][1:]  # nobody is left who counts
    assert set(coco_keypoint_metrics(document, results, keypoints).values()) == {None}


def test_detections_where_nobody_is_are_wrong() -> None:
    document, keypoints = few_people([5000.0])
    document["images"].append({"id": 8, "width": 200, "height": 200})
    metrics = coco_keypoint_metrics(document, [found_at(0, 0, 0.5), found_at(8, 0, 0.6)], keypoints)
    assert metrics["AP"] == pytest.approx(0.5)
    assert metrics["AR"] == 1


def test_twenty_detections_an_image_count() -> None:
    document, keypoints = few_people([5000.0])
    wrong = [found_at(0, 90, 1.0)] * 19
    assert coco_keypoint_metrics(document, [*wrong, found_at(0, 0, 0.5)], keypoints)["AP"] == pytest.approx(1 / 20)
    assert coco_keypoint_metrics(document, [*wrong, found_at(0, 90, 1.0), found_at(0, 0, 0.5)], keypoints)["AP"] == 0


def test_the_order_of_the_scores_counts() -> None:
    document, keypoints = few_people([5000.0] * 2)
    best_first = coco_keypoint_metrics(document, found_each(document, [0, 90], [0.9, 0.1]), keypoints)
    best_last = coco_keypoint_metrics(document, found_each(document, [0, 90], [0.1, 0.9]), keypoints)
    assert best_first["AP50"] == pytest.approx(51 / 101)
    assert best_last["AP50"] == pytest.approx(51 / 101 / 2)
    # Of equal scores the one that is given first.
    first = coco_keypoint_metrics(document, [found_at(0, 0, 0.5), found_at(0, 90, 0.5)], keypoints)
    second = coco_keypoint_metrics(document, [found_at(0, 90, 0.5), found_at(0, 0, 0.5)], keypoints)
    assert (first["AP50"], second["AP50"]) == pytest.approx((51 / 101, 51 / 101 / 2))


@pytest.mark.parametrize(("ids", "found"), [((0, 1), (0, 1)), ((0, 1), (0.0, 1.0)), (("a", "b"), ("a", "b"))])
def test_ids_of_other_kinds_serve(ids: tuple[Any, Any], found: tuple[Any, Any]) -> None:
    """Zero as the id of an annotation too, which pycocotools takes for no match."""
    document, keypoints = few_people([5000.0] * 2)
    for number, image in enumerate(document["images"]):
        image["id"] = document["annotations"][number]["image_id"] = ids[number]
        document["annotations"][number]["id"] = number
    results = [found_at(image_id, 0, 1) for image_id in found]
    assert coco_keypoint_metrics(document, results, keypoints)["AP"] == 1


def test_detections_with_boxes_have_the_boxes_areas() -> None:
    """A wrong detection counts among people of its size: COCO's rule."""
    document, keypoints = few_people([5000.0])
    results = [found_at(0, 0, 0.5), found_at(0, 90, 0.9)]
    assert coco_keypoint_metrics(document, results, keypoints)["APM"] == pytest.approx(1)  # points on one spot: small
    boxed = [result | {"bbox": [0, 0, 50, 60]} for result in results]
    assert coco_keypoint_metrics(document, boxed, keypoints)["APM"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, "detection 1: `image_id` is 5, which is not in the ground truth"),
        ({"image_id": [0]}, r"detection 1: `image_id` is \[0\]: give an id"),
        ({"image_id": False}, "detection 1: `image_id` is False: give an id"),
        ({"category_id": 4}, "detection 1: `category_id` is 4, people are 3"),
        ({"keypoints": [1, 2, 3]}, "detection 1: `keypoints` has 3 numbers for 2 key points"),
        ({"keypoints": [[1, 2, 3], [4, 5, 6]]}, r"detection 1: `keypoints` is \[\[1, 2, 3\], \[4, 5, 6\]\]: give"),
        ({"keypoints": [[1, 2, 3], [4]]}, r"detection 1: `keypoints` is \[\[1, 2, 3\], \[4\]\]: give"),
        ({"keypoints": ["1", 2, 3, 4, 5, 6]}, "detection 1: `keypoints` is"),
        ({"keypoints": None}, "detection 1: `keypoints` is None"),
        ({"keypoints": [1, 2, 3, float("nan"), 5, 6]}, "detection 1: `keypoints` holds nan: give finite"),
        ({"score": float("nan")}, "detection 1: `score` is nan: give a finite number"),
        ({"score": float("inf")}, "detection 1: `score` is inf"),
        ({"score": True}, "detection 1: `score` is True"),
        ({"score": "0.5"}, "detection 1: `score` is '0.5'"),
    ],
)
def test_detections_that_do_not_fit_are_an_error(change: dict, message: str) -> None:
    document, keypoints = few_people([5000.0])
    with pytest.raises(ValueError, match=message) as caught:
        coco_keypoint_metrics(document, [found_at(0, 0, 1), found_at(0, 0, 1) | change], keypoints)
    assert "\n" not in str(caught.value)


def test_incomplete_detections_are_an_error() -> None:
    document, keypoints = few_people([5000.0])
    result = found_at(0, 0, 1)
    for key in result:
        with pytest.raises(ValueError, match=f"detection 0 has no `{key}`"):
            coco_keypoint_metrics(document, [{k: v for k, v in result.items() if k != key}], keypoints)
    with pytest.raises(ValueError, match=r"detection 0 is \[1, 2\]: give an object"):
        coco_keypoint_metrics(document, [[1, 2]], keypoints)  # type: ignore[list-item]


def test_key_points_that_do_not_fit_the_document_are_an_error() -> None:
    document, _ = few_people([5000.0])
    one = KeypointSet(names=("a",), flip_pairs=(), skeleton=(), sigmas=(0.05,))
    with pytest.raises(ValueError, match="`keypoints` has 1 points and the document 2"):
        CocoEvaluator(document, one)
