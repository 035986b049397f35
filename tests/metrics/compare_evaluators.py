"""How hotcoco compares with pycocotools: `python tests/metrics/compare_evaluators.py [CASES]` (PYTHONPATH=.:tests).

Random documents have to give equal numbers to the last bit; then 5,000 images with 10 people each are timed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.metrics.coco import CocoEvaluator
from rpgmt.metrics.crowdpose import CrowdPoseEvaluator
from rpgmt.metrics.matching import Evaluator

IMAGES, PEOPLE, LIBRARIES = 5000, 10, ("hotcoco", "pycocotools")


def main(cases: int) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from test_evaluators_agree import random_case

    different = 0
    for seed in range(cases):
        document, keypoints, results = random_case(seed)
        for kind in (CocoEvaluator, CrowdPoseEvaluator):
            fast, judge = (kind(document, keypoints, library).metrics(results) for library in LIBRARIES)
            different += fast != judge
    print(f"{cases} random documents, COCO's and CrowdPose's numbers: {different} of {2 * cases} differ")
    document, results = _crowd()
    seconds = {library: _seconds(document, results, library) for library in LIBRARIES}
    text = ", ".join(f"{library} {value:.2f} s" for library, value in seconds.items())
    print(f"{IMAGES:,} images, {IMAGES * PEOPLE:,} people: {text}, ratio {seconds['pycocotools'] / seconds['hotcoco']:.1f}")


def _seconds(document: dict[str, Any], results: list[dict[str, Any]], library: Evaluator) -> float:
    """Of the CPU, for one evaluation; the document's reading, once for all stages and epochs, is not in it."""
    evaluator = CocoEvaluator(document, COCO_KEYPOINTS, library)
    start = time.process_time()
    evaluator.metrics(results)
    return time.process_time() - start


def _crowd() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    random, count = np.random.default_rng(0), IMAGES * PEOPLE
    points, flags = random.uniform(0, 400, (count, 17, 2)), random.integers(0, 3, (count, 17, 1))
    truth = np.concatenate([points, flags], axis=2).reshape(count, -1).tolist()
    found = (
        np.concatenate([points + random.normal(0, 8, points.shape), np.ones_like(flags)], axis=2).reshape(count, -1).tolist()
    )
    people = [
        {"id": i, "image_id": i // PEOPLE, "category_id": 1, "bbox": [0, 0, 400, 400], "area": area, "keypoints": truth[i]}
        for i, area in enumerate(random.uniform(500, 40000, count).tolist())
    ]
    results = [
        {"image_id": i // PEOPLE, "category_id": 1, "score": score, "keypoints": found[i]}
        for i, score in enumerate(random.random(count).tolist())
    ]
    images = [{"id": number, "width": 400, "height": 400} for number in range(IMAGES)]
    categories = [{"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS.names)}]
    return {"images": images, "annotations": people, "categories": categories}, results


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
