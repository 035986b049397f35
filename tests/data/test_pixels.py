from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.one_person import one_person
from torch.utils.data import DataLoader

from rpgmt.data.augmentation import Augmentation
from rpgmt.data.pixels import change_pixels, hide_part
from rpgmt.data.pose_crops import PoseCrops

IMAGE = cv2.resize(np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8), (96, 128))


@pytest.mark.parametrize("change", [change_pixels, hide_part])
def test_a_change_is_a_function_of_image_and_seed(change: Any) -> None:
    before = IMAGE.copy()
    first = [change(IMAGE, seed) for seed in range(40)]
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        again = [change(IMAGE, seed) for seed in reversed(range(40))][::-1]
    finally:
        cv2.setNumThreads(threads)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a.shape, a.dtype) == (IMAGE.shape, np.uint8)
    assert len({a.tobytes() for a in first}) > 35
    np.testing.assert_array_equal(IMAGE, before)


def test_pixel_changes_are_modest() -> None:
    """Content survives: what comes out correlates with what went in."""
    correlations = [np.corrcoef(change_pixels(IMAGE, seed).mean(2).ravel(), IMAGE.mean(2).ravel())[0, 1] for seed in range(60)]
    assert min(correlations) > 0.7
    assert any((np.ptp(change_pixels(IMAGE, seed), axis=2) == 0).all() for seed in range(120))  # some turn grey


def test_a_box_hides_a_part_of_the_stated_size() -> None:
    fills = set()
    for seed in range(40):
        found = hide_part(IMAGE, seed)
        rows, columns = np.nonzero((found != IMAGE).any(2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.18 * 128 <= height <= 0.4 * 128 + 1
        assert 0.18 * 96 <= width <= 0.4 * 96 + 1
        box = found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        fills.add("grey" if (box == 127).all() else "noise")
    assert fills == {"grey", "noise"}


def test_samples_are_the_same_in_every_order_and_process() -> None:
    augment = Augmentation(shift=0.1, half_body=0.5, pixels=0.8, occlusion=0.5)
    crops = PoseCrops(one_person(), (48, 64), augment=augment, seed=5)
    keys = [(epoch, 0) for epoch in range(12)]
    here = {key: crops[key]["image"] for key in reversed(keys)}
    loader = DataLoader(crops, sampler=keys, batch_size=None, num_workers=2, multiprocessing_context="fork")  # type: ignore[arg-type, var-annotated]
    for key, sample in zip(keys, loader, strict=True):
        np.testing.assert_array_equal(sample["image"], here[key])


def test_pixel_changes_move_no_point_and_hide_no_label() -> None:
    plain = PoseCrops(one_person(), (48, 64), augment=Augmentation(), seed=5)
    changed = PoseCrops(one_person(), (48, 64), augment=Augmentation(pixels=1, occlusion=1), seed=5)
    for epoch in range(4):
        a, b = plain[epoch, 0], changed[epoch, 0]
        for name in ("keypoints", "visibility", "to_image"):
            np.testing.assert_array_equal(a[name], b[name])
        assert (a["image"] != b["image"]).any()


def test_the_library_comes_with_the_first_change_and_asks_nobody_for_a_newer_one() -> None:
    code = (
        "import sys, os\nfrom rpgmt.data import pixels, pose_crops\nassert 'albumentations' not in sys.modules\n"
        "import socket\n"
        "def refuse(*_, **__): raise AssertionError('the network is asked')\n"
        "socket.socket.connect = refuse\nimport numpy as np\n"
        "pixels.change_pixels(np.zeros((8, 8, 3), np.uint8), 0)\nassert 'albumentations' in sys.modules\n"
        "assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
