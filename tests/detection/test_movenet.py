"""A detector that others trained, on real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rpgmt.detection import make_detector
from rpgmt.tracking.tracker import box_ious

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
MODEL = SHARED / "models" / "movenet-multipose.onnx"


def recall_and_precision(threshold: float, every: int) -> tuple[float, float, int]:
    """Among annotated people with key points at an overlap of a half, each matched once; and how many they are."""
    detector = make_detector(MODEL, threshold=threshold)
    found = people = right = 0
    for split in ("train", "val"):
        document = json.loads((SHARED / "data" / "coco" / f"person_keypoints_{split}.json").read_text())
        for image in document["images"][::every]:
            pixels = cv2.imread(str(SHARED / "data" / "coco" / "images" / image["file_name"]), cv2.IMREAD_COLOR_RGB)
            (detections,) = detector([pixels])
            annotated = [
                person["bbox"]
                for person in document["annotations"]
                if person["image_id"] == image["id"] and person["num_keypoints"] and not person["iscrowd"]
            ]
            truth = np.array(annotated, np.float64).reshape(-1, 4)
            free = np.ones(len(truth), dtype=bool)
            for row in box_ious(detections.boxes, truth):  # the best detection first
                row = np.where(free, row, 0)
                if row.max(initial=0) >= 0.5:
                    free[row.argmax()] = False
            found, people, right = found + len(detections), people + len(truth), right + int((~free).sum())
    return right / people, right / found, people


@pytest.fixture(autouse=True)
def _with_files() -> None:
    for path in (MODEL, SHARED / "data" / "coco"):
        if not path.exists():
            pytest.skip(f"{path} is missing")


def test_people_in_a_few_photographs() -> None:
    recall, precision, people = recall_and_precision(0.15, every=6)
    assert people > 20
    assert recall > 0.4
    assert precision > 0.75


@pytest.mark.slow
def test_people_in_all_photographs() -> None:
    """Whoever converted the model measured 0.59 and 0.84 on these (shared/models/README.md)."""
    recall, precision, people = recall_and_precision(0.15, every=1)
    assert people == 210
    assert recall == pytest.approx(0.59, abs=0.03)
    assert precision == pytest.approx(0.84, abs=0.03)
