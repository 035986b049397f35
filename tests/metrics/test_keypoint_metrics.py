from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rpgmt.data.keypoints import COCO_KEYPOINTS, KeypointSet
from rpgmt.data.transforms import crop_affine, invert
from rpgmt.metrics.keypoints import COCO_METRICS, coco_keypoint_metrics, keypoint_results

# Made with pycocotools 2.0.11 and xtcocotools 1.14.3, identical; the second is asserted in faster_coco_eval 33ab609,
# tests/test_keypoints.py, the third in mmpose 759b39c, tests/test_evaluation/test_metrics/test_coco_metric.py.
PUBLISHED = ["xtcocoapi_example_coco", "fce_keypoints", "mmpose_align2"]


@pytest.fixture(scope="session")
def coco_eval(shared_data: Path) -> Path:
    folder = shared_data.parent / "fixtures" / "coco_eval"
    if not folder.is_dir():
        pytest.skip(f"no published numbers: {folder} is missing")
    return folder


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _distorted(annotations: list[dict]) -> list[dict]:
    """The detections of mmpose's test: each true person, 2 % off."""
    results = []
    for annotation in annotations:
        points = np.array(annotation["keypoints"], dtype=np.float32).reshape(-1, 3) * np.float32([0.98, 1.02, 0.8])
        score = 0.98 + points[:, 2].mean() + points[:, 2].max()
        results.append(
            {
                "image_id": annotation["image_id"],
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
                "score": float(score),
            }
        )
    return results


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(coco_eval: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    case = _read(coco_eval / "expected.json")[name]
    document = _read(coco_eval / case["gt"])
    results = _read(coco_eval / case["dt"]) if "dt" in case else _distorted(document["annotations"])
    before = copy.deepcopy((document, results))
    metrics = coco_keypoint_metrics(document, results, COCO_KEYPOINTS)
    assert tuple(metrics) == COCO_METRICS
    np.testing.assert_allclose(list(metrics.values()), case["stats"], rtol=0, atol=1e-12)
    assert (document, results) == before
    assert capsys.readouterr().out == ""


def test_other_key_points_with_sigmas_of_their_own(coco_eval: Path) -> None:
    """CrowdPose has 14 points, and 0.53 times the box as area (faster_coco_eval 33ab609, tests/test_crowdpose.py)."""
    case = _read(coco_eval / "expected.json")["crowdpose"]
    document = _read(coco_eval / case["gt"])
    for annotation in document["annotations"]:
        annotation["area"] = 0.53 * annotation["bbox"][2] * annotation["bbox"][3]
    keypoints = KeypointSet(
        names=tuple(document["categories"][0]["keypoints"]), flip_pairs=(), skeleton=(), sigmas=tuple(case["sigmas"])
    )
    metrics = coco_keypoint_metrics(document, _read(coco_eval / case["dt"]), keypoints)
    for name, expected in list(zip(case["order"], case["stats"], strict=True))[:6]:
        assert metrics[name] == pytest.approx(expected, abs=1e-12)


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


def _toy(areas: list[float], count: int = 2) -> tuple[dict, KeypointSet]:
    """An image for each area, with one person with all its key points at (50, 50)."""
    keypoints = KeypointSet(names=("a", "b")[:count], flip_pairs=(), skeleton=(), sigmas=(0.05, 0.1)[:count])
    document = {
        "images": [{"id": 7 * number, "width": 200, "height": 200} for number in range(len(areas))],
        "categories": [{"id": 3, "name": "x", "keypoints": list(keypoints.names)}, {"id": 4, "name": "car"}],
        "annotations": [
            {"id": number + 1, "image_id": 7 * number, "category_id": 3, "bbox": [0, 0, 99, 99], "area": area}
            | {"keypoints": [50, 50, 2] * count}
            for number, area in enumerate(areas)
        ],
    }
    return document, keypoints


def _found(document: dict, offsets: list[float], scores: list[float]) -> list[dict]:
    count = len(document["categories"][0]["keypoints"])
    return [
        {"image_id": image["id"], "category_id": 3, "keypoints": [50 + offset, 50, 1] * count, "score": score}
        for image, offset, score in zip(document["images"], offsets, scores, strict=True)
    ]


def test_average_precision_of_a_slow_twin() -> None:
    rng = np.random.default_rng(0)
    document, keypoints = _toy(rng.uniform(2000, 9000, 12).tolist())
    results = _found(document, rng.uniform(0, 14, 12).tolist(), rng.random(12).tolist())
    oks = [_oks(person, result, keypoints.sigmas) for person, result in zip(document["annotations"], results, strict=True)]
    scores = [result["score"] for result in results]
    metrics = coco_keypoint_metrics(document, results, keypoints)
    expected = [_average_precision(oks, scores, 12, threshold) for threshold in np.linspace(0.5, 0.95, 10)]
    assert 0.1 < np.mean(expected) < 0.9
    assert metrics["AP"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert metrics["AP50"] == pytest.approx(expected[0], abs=1e-12)
    assert metrics["AR75"] == pytest.approx(np.mean(np.array(oks) >= 0.75), abs=1e-12)


def test_no_samples_is_none_and_no_detections_is_zero() -> None:
    document, keypoints = _toy([5000.0, 6000.0])  # medium is 32² … 96²
    metrics = coco_keypoint_metrics(document, _found(document, [0, 0], [1, 1]), keypoints)
    assert metrics == {name: (None if name in ("APL", "ARL") else 1.0) for name in COCO_METRICS}
    metrics = coco_keypoint_metrics(document, [], keypoints)
    assert metrics == {name: (None if name in ("APL", "ARL") else 0.0) for name in COCO_METRICS}


def test_crowds_and_people_without_labels_are_ignored() -> None:
    document, keypoints = _toy([5000.0] * 3)
    document["annotations"][1]["iscrowd"] = 1
    document["annotations"][2] |= {"keypoints": [0] * 6, "num_keypoints": 0}
    document["annotations"].append({"id": 9, "image_id": 0, "category_id": 4})  # a car
    results = _found(document, [0, 0, 0], [0.5, 0.9, 0.9])
    assert coco_keypoint_metrics(document, results, keypoints)["AP"] == pytest.approx(1)


def test_the_order_of_the_scores_counts() -> None:
    document, keypoints = _toy([5000.0] * 2)
    best_first = coco_keypoint_metrics(document, _found(document, [0, 90], [0.9, 0.1]), keypoints)
    best_last = coco_keypoint_metrics(document, _found(document, [0, 90], [0.1, 0.9]), keypoints)
    assert best_first["AP50"] == pytest.approx(51 / 101)
    assert best_last["AP50"] == pytest.approx(51 / 101 / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"image_id": 5}, "`image_id` of a detection is 5"), ({"keypoints": [1, 2, 3]}, "3 numbers for 2 key points")],
)
def test_detections_that_do_not_fit_are_an_error(change: dict, message: str) -> None:
    document, keypoints = _toy([5000.0])
    results = [_found(document, [0], [1])[0] | change]
    with pytest.raises(ValueError, match=message):
        coco_keypoint_metrics(document, results, keypoints)


def test_results_are_in_image_pixels_with_mean_scores() -> None:
    rng = np.random.default_rng(0)
    points, scores = rng.uniform(0, 64, (3, 2, 2)).astype(np.float32), rng.random((3, 2)).astype(np.float32)
    affines = np.stack([invert(crop_affine((5, 6, 70, 80), (48, 64), rotation=angle)) for angle in (0, 10, 20)])
    results = keypoint_results(points, scores, affines, [4, 4, -1], 3)
    assert [result["image_id"] for result in results] == [4, 4, -1]
    assert json.loads(json.dumps(results)) == results
    for result, some, affine, score in zip(results, points, affines, scores, strict=True):
        assert result["category_id"] == 3
        assert result["score"] == pytest.approx((float(score[0]) + float(score[1])) / 2)
        for k in range(2):
            expected = affine @ np.array([some[k, 0], some[k, 1], 1.0])
            np.testing.assert_allclose(result["keypoints"][3 * k : 3 * k + 3], [*expected, score[k]], atol=1e-9)
