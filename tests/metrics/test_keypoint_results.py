from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.few_people import few_people, found_at, found_each

from rpgmt.errors import UserError
from rpgmt.metrics.coco import COCO_METRICS, coco_keypoint_metrics
from rpgmt.metrics.results import keypoint_results, rescore, save_results


def test_results_are_plain_data_one_for_each_person() -> None:
    poses = np.arange(12.0).reshape(2, 2, 3)
    results = keypoint_results(poses, np.array([0.5, 2.0]), [4, -1], 3)
    assert results == [
        {"image_id": 4, "category_id": 3, "keypoints": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "score": 0.5},
        {"image_id": -1, "category_id": 3, "keypoints": [6.0, 7.0, 8.0, 9.0, 10.0, 11.0], "score": 2.0},
    ]
    assert json.loads(json.dumps(results)) == results


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", [0.4, 0.15, 0.5]),
        ("box_mean", [0.5 * 0.55, 0.0, 2 * 0.5]),  # 0.2 itself is not above the threshold
        ("box_mean_max", [0.5 + 0.4 + 0.8, 0.9 + 0.15 + 0.2, 2 + 0.5 + 0.5]),
    ],
)
def test_scores_worked_out_by_hand(rule: str, expected: list[float]) -> None:
    boxes = np.array([0.5, 0.9, 2.0])
    points = np.array([[0.8, 0.1, 0.3], [0.2, 0.15, 0.1], [0.5, 0.5, 0.5]])
    found = rescore(boxes, points, rule)  # type: ignore[arg-type]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(rescore(boxes, points.astype(np.float32), rule), expected, rtol=1e-6)  # type: ignore[arg-type]
    assert rescore(boxes[:0], points[:0], rule).shape == (0,)  # type: ignore[arg-type]


def test_scores_do_not_depend_on_the_layout_in_memory() -> None:
    points = np.random.default_rng(0).random((5, 17)).astype(np.float32)
    for rule in ("mean", "box_mean", "box_mean_max"):
        one = [rescore(np.ones(1), row[None], rule)[0] for row in points]  # type: ignore[arg-type]
        assert rescore(np.ones(5), np.asfortranarray(points), rule).tolist() == one  # type: ignore[arg-type]


def test_an_unknown_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match="`rule` is 'max': give mean, box_mean or box_mean_max"):
        rescore(np.ones(1), np.ones((1, 2)), "max")  # type: ignore[arg-type]


def test_saved_results_are_what_pycocotools_reads(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    document, keypoints = few_people(rng.uniform(2000, 20000, 12).tolist())
    results = found_each(document, rng.uniform(0, 14, 12).tolist(), rng.random(12).tolist())
    for result in results:  # NumPy's numbers are saved too, and keys of our own are not
        result |= {"image_id": np.int64(result["image_id"]), "score": np.float32(result["score"]), "box": object()}
        result["keypoints"] = np.array(result["keypoints"], dtype=np.float32)
    path = tmp_path / "new" / "results.json"
    save_results(path, results)

    saved = json.loads(path.read_text())
    assert [list(result) for result in saved] == [["image_id", "category_id", "keypoints", "score"]] * 12
    truth = COCO()
    truth.dataset = {
        **document,
        "annotations": [annotation | {"iscrowd": 0, "num_keypoints": 2} for annotation in document["annotations"]],
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(str(path)), "keypoints")
    evaluation.params.kpt_oks_sigmas = np.array(keypoints.sigmas)
    evaluation.params.catIds = [3]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    metrics = coco_keypoint_metrics(document, saved, keypoints)
    assert 0.1 < metrics["AP"] < 0.9
    assert [metrics[name] for name in COCO_METRICS] == evaluation.stats.tolist()
    assert metrics == coco_keypoint_metrics(document, results, keypoints)


def test_nothing_is_saved_of_results_with_numbers_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for change in ({"score": float("nan")}, {"keypoints": [1, 2, float("inf")]}):
        with pytest.raises(ValueError, match="detection 1: "):
            save_results(path, [found_at(0, 0, 1), found_at(0, 0, 1) | change])
    assert not path.exists()
    save_results(path, [])
    assert json.loads(path.read_text()) == []


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written: ") as caught:
        save_results(tmp_path, [])
    assert "\n" not in str(caught.value)
