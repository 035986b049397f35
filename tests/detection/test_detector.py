"""What every detector does with what its network gives, and how one is chosen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rpgmt.detection import Detector, make_detector
from rpgmt.detection.detector import Corners
from rpgmt.errors import UserError


class Given(Detector):
    """Gives the same corners for every image."""

    def __init__(self, found: Corners, threshold: float = 0.5, classes: Sequence[int] | None = None) -> None:
        super().__init__(threshold, classes)
        self.found = found

    def _detect(self, images: Sequence[np.ndarray]) -> list[Corners]:
        return [self.found] * len(images)


IMAGE = np.zeros((40, 60, 3), np.uint8)


def found(rows: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int] | None = None) -> Corners:
    return Corners(np.array(rows), np.array(scores), None if labels is None else np.array(labels))


def test_boxes_count_pixels_as_the_data_sets_do() -> None:
    """The box of a whole image is (0, 0, W, H), and that of its pixel (7, 3) is (7, 3, 1, 1)."""
    (detections,) = Given(found([[0, 0, 60, 40], [7, 3, 8, 4]], [0.9, 0.8]))([IMAGE])
    assert detections.boxes.tolist() == [[0, 0, 60, 40], [7, 3, 1, 1]]
    assert (detections.boxes[1, :2] + (detections.boxes[1, 2:] - 1) / 2).tolist() == [7, 3]


def test_the_best_come_first_and_equal_ones_as_they_were() -> None:
    rows = [[x, 0, x + 5, 5] for x in range(5)]
    (detections,) = Given(found(rows, [0.6, 0.9, 0.5, 0.9, 0.49], [1, 2, 3, 4, 5]))([IMAGE])
    assert detections.scores.tolist() == [0.9, 0.9, 0.6, 0.5]  # the threshold itself counts
    assert detections.labels is not None
    assert detections.labels.tolist() == [2, 4, 1, 3]
    assert detections.boxes[:, 0].tolist() == [1, 3, 0, 2]
    assert len(detections) == 4
    assert (detections.boxes.dtype, detections.scores.dtype, detections.labels.dtype) == (np.float64, np.float64, np.int64)


def test_boxes_are_cut_to_the_image_and_empty_ones_left_out() -> None:
    rows = [[-9, -9, 9, 9], [50, 30, 99, 99], [70, 5, 80, 9], [5, 5, 5, 9], [9, 9, 3, 12], [np.nan, 1, 5, 5]]
    (detections,) = Given(found(rows, [0.9, 0.8, 0.7, 0.7, 0.7, 0.7]))([IMAGE])
    assert detections.boxes.tolist() == [[0, 0, 9, 9], [50, 30, 10, 10]]


def test_a_score_that_is_no_number_is_left_out() -> None:
    assert len(Given(found([[0, 0, 9, 9]], [np.nan]), threshold=0)([IMAGE])[0]) == 0


def test_classes_are_chosen() -> None:
    what = found([[0, 0, 9, 9], [1, 0, 9, 9], [2, 0, 9, 9]], [0.9, 0.8, 0.7], [1, 2, 3])
    assert [len(Given(what, classes=classes)([IMAGE])[0]) for classes in ((1,), (2, 3), (4,), None)] == [1, 2, 0, 3]


def test_nothing_found_is_arrays_without_rows() -> None:
    (detections,) = Given(found(np.zeros((0, 4)), []))([IMAGE])
    assert (detections.boxes.shape, detections.scores.shape, detections.labels) == ((0, 4), (0,), None)
    assert Given(found([], []))([]) == []


@pytest.mark.parametrize("image", [IMAGE[..., 0], IMAGE / 255, np.zeros((0, 5, 3), np.uint8), np.zeros((5, 5, 4), np.uint8)])
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"give uint8 \(H, W, 3\), RGB"):
        Given(found([], []))([image])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yolo", {}, "`detector` is yolo: give fasterrcnn, fasterrcnn_mobilenet, keypointrcnn, retinanet, ssdlite"),
        ("nowhere/model.onnx", {}, "`detector` is nowhere/model.onnx: no such file"),
        ("ssdlite", {"threshold": 1.5}, "`threshold` is 1.5: give a score from 0 to 1"),
        ("ssdlite", {"threshold": float("nan")}, "`threshold` is nan"),
        ("ssdlite", {"batch_size": 0}, "`batch_size` is 0: give 1 or more"),
        ("ssdlite", {"size": 320}, "`size` is 320: torchvision's detectors fit images themselves"),
    ],
)
def test_mistakes_are_one_line(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as error:
        make_detector(name, **options)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_torch_waits_until_a_detector_of_torchvision_is_made() -> None:
    code = "import sys, rpgmt.detection.onnx_detector, rpgmt.tracking; print({'torch', 'scipy'} & sys.modules.keys())"
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.strip() == "set()"
