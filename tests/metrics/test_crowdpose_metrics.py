from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.few_people import few_people, found_at, found_each

from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.errors import UserError
from rpgmt.metrics.coco import coco_keypoint_metrics
from rpgmt.metrics.crowdpose import CROWDPOSE_METRICS, LEVELS, CrowdPoseEvaluator, crowdpose_metrics


def test_published_numbers(shared_fixtures: Path) -> None:
    """faster_coco_eval 33ab609, tests/test_crowdpose.py; the same from xtcocotools 1.14.3."""
    folder = shared_fixtures / "coco_eval"
    case = json.loads((folder / "expected.json").read_text())["crowdpose"]
    document = json.loads((folder / case["gt"]).read_text())
    results = json.loads((folder / case["dt"]).read_text())
    keypoints = KeypointSet(
        names=tuple(document["categories"][0]["keypoints"]), flip_pairs=(), skeleton=(), sigmas=tuple(case["sigmas"])
    )
    before = copy.deepcopy((document, results))
    metrics = crowdpose_metrics(document, results, keypoints)
    assert list(metrics) == list(CROWDPOSE_METRICS) == case["order"]
    np.testing.assert_allclose(list(metrics.values()), case["stats"], rtol=0, atol=1e-12)
    assert (document, results) == before


def _crowded(indices: list[float]) -> tuple[dict, KeypointSet]:
    """An image for each crowd index, as in CrowdPose's files: without areas."""
    document, keypoints = few_people([1.0] * len(indices))
    for image, annotation, index in zip(document["images"], document["annotations"], indices, strict=True):
        image["crowdIndex"] = index
        del annotation["area"]
    return document, keypoints


def test_numbers_worked_out_by_hand() -> None:
    document, keypoints = _crowded([0.19, 0.2, 0.8])
    document["annotations"].append(document["annotations"][2] | {"id": 4})  # two people in the crowded image
    metrics = crowdpose_metrics(document, found_each(document, [0, 90, 0], [0.9, 0.8, 0.7]), keypoints)
    # Right, wrong, right, of 4 people: precision 1 up to recall 0.25 (26 of the 101 recalls), 2/3 up to 0.5 (25 more).
    expected = (26 + 25 * 2 / 3) / 101
    assert [metrics[name] for name in ("AP", "AP50", "AP75")] == pytest.approx([expected] * 3, abs=1e-12)
    assert [metrics[name] for name in ("AR", "AR50", "AR75")] == [0.5] * 3
    # Precision 1 up to recall 0.5: 51 recalls of 101, which the official tool rounds to four decimals.
    assert [metrics[f"AP_{level}"] for level in LEVELS] == [1.0, 0.0, 0.505]


def test_the_area_is_of_the_box() -> None:
    """A detection 10 pixels off, on a box of 99 × 99, at sigmas 0.05 and 0.1."""
    document, keypoints = _crowded([0.5])
    squares = 100 / (2 * 0.53 * 99 * 99 * np.square([0.1, 0.2]))
    similarity = np.exp(-squares).mean()
    assert 0.5 < similarity < 0.75
    metrics = crowdpose_metrics(document, [found_at(0, 10, 1.0)], keypoints)
    assert metrics["AP"] == pytest.approx(np.mean(np.linspace(0.5, 0.95, 10) <= similarity))
    document["annotations"][0]["area"] = 1e6  # is not looked at
    assert crowdpose_metrics(document, [found_at(0, 10, 1.0)], keypoints) == metrics


def test_levels_without_people_are_none_and_no_detections_is_zero() -> None:
    document, keypoints = _crowded([0.0, 0.1])
    document["images"].append({"id": 99, "width": 9, "height": 9, "crowdIndex": 0.9})  # nobody in it
    evaluator = CrowdPoseEvaluator(document, keypoints)
    for found, value in (([*found_each(document, [0, 0, 0], [1, 1, 0.5])], 1.0), ([], 0.0)):
        metrics = evaluator.metrics(found)
        assert metrics["AP"] == metrics["AR"] == metrics["AP_easy"] == pytest.approx(value)
        assert metrics["AP_medium"] is metrics["AP_hard"] is None
    document["annotations"] = [annotation | {"iscrowd": 1} for annotation in document["annotations"]]
    assert set(crowdpose_metrics(document, [], keypoints).values()) == {None}


def test_it_agrees_with_cocos_evaluator_on_the_images_of_each_level() -> None:
    rng = np.random.default_rng(0)
    document, keypoints = _crowded(rng.random(30).tolist())
    for number, annotation in enumerate(document["annotations"][:12]):
        document["annotations"].append(annotation | {"id": 100 + number, "keypoints": [60, 50, 2] * 2})
    document["annotations"][3]["iscrowd"] = 1
    images = rng.choice([image["id"] for image in document["images"]], 120).tolist() + [7] * 30
    results = [found_at(image, rng.uniform(0, 25), round(rng.random(), 1)) for image in images]
    metrics = crowdpose_metrics(document, results, keypoints)

    for annotation in document["annotations"]:
        annotation["area"] = 0.53 * 99 * 99
    coco = coco_keypoint_metrics(document, results, keypoints)
    assert 0.05 < metrics["AP"] < 0.95
    for name in CROWDPOSE_METRICS[:6]:
        assert metrics[name] == pytest.approx(coco[name], abs=1e-12)
    for level, (low, high) in LEVELS.items():
        chosen = {image["id"] for image in document["images"] if low <= image["crowdIndex"] < high}
        part = {
            **document,
            "images": [image for image in document["images"] if image["id"] in chosen],
            "annotations": [annotation for annotation in document["annotations"] if annotation["image_id"] in chosen],
        }
        coco = coco_keypoint_metrics(part, [result for result in results if result["image_id"] in chosen], keypoints)
        assert metrics[f"AP_{level}"] == pytest.approx(coco["AP"], abs=0.5001e-4)


@pytest.mark.parametrize("index", [None, "0.5", True, float("nan")])
def test_a_missing_crowd_index_is_an_error(index: object) -> None:
    document, keypoints = _crowded([0.5])
    document["images"][0]["crowdIndex"] = index
    with pytest.raises(UserError, match=f"image 0: `crowdIndex` is {index!r}: "):
        crowdpose_metrics(document, [], keypoints)


def test_a_document_that_lacks_something_is_an_error() -> None:
    _, keypoints = _crowded([0.5])
    with pytest.raises(UserError, match="needs a list `images`"):
        crowdpose_metrics({}, [], keypoints)
    document, keypoints = _crowded([0.5])
    document["annotations"][0]["bbox"] = [0, 0, 0, 99]
    with pytest.raises(UserError, match="`area` is 0"):
        crowdpose_metrics(document, [], keypoints)
    del document["annotations"][0]["bbox"]
    with pytest.raises(UserError, match="`bbox` is None"):
        crowdpose_metrics(document, [], keypoints)
