from __future__ import annotations

import re

import numpy as np
import pytest

from rpgmt.data.keypoints import COCO_KEYPOINTS, KeypointSet, infer_flip_pairs


def test_coco_has_seventeen_points_with_pycocotools_sigmas() -> None:
    from pycocotools.cocoeval import Params

    assert len(COCO_KEYPOINTS) == len(COCO_KEYPOINTS.names) == 17
    np.testing.assert_allclose(COCO_KEYPOINTS.sigmas, Params("keypoints").kpt_oks_sigmas, rtol=1e-15)


def test_coco_mirrors_every_point_but_the_nose() -> None:
    swapped = [COCO_KEYPOINTS.names[index] for index in COCO_KEYPOINTS.flip_order]
    mirror = {"left": "right", "right": "left"}
    assert swapped == [re.sub("left|right", lambda m: mirror[m[0]], name) for name in COCO_KEYPOINTS.names]


def test_flipping_twice_is_the_identity() -> None:
    points = np.random.default_rng(0).normal(size=(17, 2))
    order = list(COCO_KEYPOINTS.flip_order)
    assert (points[order][order] == points).all()


def test_flip_pairs_are_inferred_from_names() -> None:
    names = ("right_ankle", "head", "left_ankle", "Left Wrist", "Right Wrist", "left_only")
    assert infer_flip_pairs(names) == ((2, 0), (3, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": (), "sigmas": ()}, "`names` is empty"),
        ({"sigmas": (0.1,)}, "one positive number for each of 2"),
        ({"sigmas": (0.1, 0.0)}, "one positive number"),
        ({"skeleton": ((0, 2),)}, "`skeleton` is .* below 2"),
        ({"flip_pairs": ((0, -1),)}, "`flip_pairs` is .* below 2"),
        ({"flip_pairs": ((0, 1), (1, 0))}, "one mirror image at most"),
    ],
)
def test_a_set_that_does_not_fit_together_is_an_error(change: dict, message: str) -> None:
    right: dict = {"names": ("a", "b"), "flip_pairs": (), "skeleton": ((0, 1),), "sigmas": (0.1, 0.1)}
    KeypointSet(**right)
    with pytest.raises(ValueError, match=message):
        KeypointSet(**{**right, **change})
