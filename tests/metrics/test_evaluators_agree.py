"""hotcoco computes during training and evaluation, pycocotools is the judge: their numbers are the same to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from helpers.few_people import few_people, found_each
from hypothesis import given, settings
from hypothesis import strategies as st

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS, CROWDPOSE_KEYPOINTS, KeypointSet
from rpgmt.metrics.coco import CocoEvaluator
from rpgmt.metrics.crowdpose import CrowdPoseEvaluator

FIXTURES = ["xtcocoapi_example_coco", "fce_keypoints", "mmpose_align2", "crowdpose"]


@pytest.mark.parametrize("name", FIXTURES)
def test_on_published_files(shared_fixtures: Path, name: str) -> None:
    folder = shared_fixtures / "coco_eval"
    case = json.loads((folder / "expected.json").read_text())[name]
    document = json.loads((folder / case["gt"]).read_text())
    keypoints, kind = (CROWDPOSE_KEYPOINTS, CrowdPoseEvaluator) if name == "crowdpose" else (COCO_KEYPOINTS, CocoEvaluator)
    results = json.loads((folder / case["dt"]).read_text()) if "dt" in case else _shifted(document)
    fast, judge = (kind(document, keypoints, library).metrics(results) for library in ("hotcoco", "pycocotools"))
    assert fast == judge
    assert (fast["AP"] or 0) > 0.1


def _shifted(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Each person 2 % off, all of one score."""
    people = [(person["image_id"], np.array(person["keypoints"], float)) for person in document["annotations"]]
    return [
        {"image_id": image, "category_id": 1, "keypoints": (1.02 * points).tolist(), "score": 0.5} for image, points in people
    ]


AREAS = (1e-3, 32.0**2, 32.0**2 - 1e-9, 96.0**2, 96.0**2 + 1e-9, 5000.0, 1e5)
"""In square pixels: the limits of small, medium and large among them."""


def random_case(seed: int) -> tuple[dict[str, Any], KeypointSet, list[dict[str, Any]]]:
    """Few images, some without people or detections, with crowds, people without points, ties and many detections."""
    random = np.random.default_rng(seed)
    count = int(random.choice([1, 2, 5]))
    names = tuple("abcde"[:count])
    keypoints = KeypointSet(names=names, flip_pairs=(), skeleton=(), sigmas=tuple(random.choice([0.025, 0.05, 0.1], count)))
    grid = random.choice([1.0, 0.25, 1e-6])  # on whole numbers similarities are equal, too
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    images = [{"id": int(number), "crowdIndex": float(random.random())} for number in random.permutation(60)[:4]]
    for image in images:
        poses = []
        for _ in range(random.choice([0, 1, 4])):
            pose = np.round((random.uniform(20, 280, 2) + random.uniform(-30, 30, (count, 2))) / grid) * grid
            flags = random.choice([0, 1, 2], (count, 1)) * (random.random() > 0.15)
            poses.append(pose)
            flat = np.concatenate([pose, flags], axis=1).ravel().tolist()
            person = {"image_id": image["id"], "category_id": 3, "keypoints": flat, "area": float(random.choice(AREAS))}
            person |= {"bbox": [*pose.min(0).tolist(), 60.0, 60.0], "iscrowd": int(random.random() < 0.15)}
            annotations.append(person | {"id": len(annotations)})
        for _ in range(random.choice([0, 3, 25])):
            pose = random.uniform(0, 300, (count, 2))
            if poses and random.random() < 0.8:
                pose = poses[random.integers(len(poses))] + np.round(random.normal(0, random.choice([0, 2, 8]), (count, 2)))
            score = float(random.choice([0.1, 0.5, 0.9])) if random.random() < 0.7 else float(random.random())
            flat = np.concatenate([pose, np.ones((count, 1))], axis=1).ravel().tolist()
            results.append({"image_id": image["id"], "category_id": 3, "keypoints": flat, "score": score})
    outside = {"id": 999, "image_id": images[0]["id"], "category_id": 4}
    categories = [{"id": 3, "name": "x", "keypoints": list(names)}, {"id": 4, "name": "car"}]
    return {"images": images, "annotations": [*annotations, outside], "categories": categories}, keypoints, results


@given(st.integers(0, 2**32))
@settings(max_examples=60, derandomize=True, deadline=None, database=None)
def test_on_random_documents(seed: int) -> None:
    document, keypoints, results = random_case(seed)
    for kind in (CocoEvaluator, CrowdPoseEvaluator):
        fast, judge = (kind(document, keypoints, library).metrics(results) for library in ("hotcoco", "pycocotools"))
        assert fast == judge


def test_random_documents_have_something_to_measure() -> None:
    found = [
        CocoEvaluator(document, keypoints).metrics(results) for document, keypoints, results in map(random_case, range(20))
    ]
    assert sum(0 < (metrics["AP"] or 0) < 1 for metrics in found) > 10
    assert sum(metrics["APL"] is None for metrics in found) < 15


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
@pytest.mark.parametrize(
    "ids", [(1, 2, 3), (2**62 + 1, 2**62 + 2, 5), (2**63 + 5, 1, 2**64 + 9), (1, "b", "a"), (-3, 0, 10**30), (7.0, 8, 9)]
)
def test_any_ids_of_images_serve(ids: tuple[Any, ...], library: Any) -> None:
    """64-bit hashes become floats in pycocotools, in which neighbours are one; int and str cannot be compared."""
    document, keypoints = few_people([5000.0] * 3)
    for image, annotation, number in zip(document["images"], document["annotations"], ids, strict=True):
        image["id"] = annotation["image_id"] = number
    results = found_each(document, [0, 90, 0], [0.9, 0.8, 0.7])
    metrics = CocoEvaluator(document, keypoints, library).metrics(results)
    assert (metrics["AP50"], metrics["AR"]) == (pytest.approx((34 + 33 * 2 / 3) / 101), pytest.approx(2 / 3))
