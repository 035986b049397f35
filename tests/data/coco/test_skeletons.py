from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from rpgmt.data.coco.keypoint_names import infer_flip_pairs
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS, CROWDPOSE_KEYPOINTS, LSP_KEYPOINTS, MPII_KEYPOINTS, KeypointSet


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


def test_mpii_is_as_hrnet_has_it() -> None:
    """HRNet's lib/dataset/mpii.py: flip pairs and the two halves of the body."""
    pairs = {frozenset(pair) for pair in [(0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)]}
    assert {frozenset(pair) for pair in MPII_KEYPOINTS.flip_pairs} == pairs
    assert MPII_KEYPOINTS.upper == (7, 8, 9, 10, 11, 12, 13, 14, 15)
    assert len(MPII_KEYPOINTS.skeleton) == 15


def test_crowdpose_is_as_published(shared_fixtures: Path) -> None:
    expected = json.loads((shared_fixtures / "coco_eval/expected.json").read_text())["crowdpose"]
    document = json.loads((shared_fixtures / "coco_eval" / expected["gt"]).read_text())
    assert list(CROWDPOSE_KEYPOINTS.names) == document["categories"][0]["keypoints"]
    assert list(CROWDPOSE_KEYPOINTS.sigmas) == expected["sigmas"]
    assert CROWDPOSE_KEYPOINTS.upper == (0, 1, 2, 3, 4, 5, 12, 13)


def test_joints_of_coco_have_its_sigmas_in_lsp() -> None:
    coco = dict(zip(COCO_KEYPOINTS.names, COCO_KEYPOINTS.sigmas, strict=True))
    lsp = dict(zip(LSP_KEYPOINTS.names, LSP_KEYPOINTS.sigmas, strict=True))
    assert {name: lsp[name] for name in lsp if name in coco} == {name: coco[name] for name in lsp if name in coco}
    assert set(lsp) - set(coco) == {"neck", "head_top"}


@pytest.mark.parametrize("keypoints", [COCO_KEYPOINTS, MPII_KEYPOINTS, CROWDPOSE_KEYPOINTS, LSP_KEYPOINTS])
def test_a_skeleton_is_its_own_mirror_image_and_the_halves_too(keypoints: KeypointSet) -> None:
    flip = keypoints.flip_order
    edges = {frozenset(edge) for edge in keypoints.skeleton}
    assert {frozenset((flip[a], flip[b])) for a, b in edges} == edges
    assert {flip[index] for index in keypoints.upper} == set(keypoints.upper)
    lower = {keypoints.names[index] for index in range(len(keypoints)) if index not in keypoints.upper}
    assert {name.split("_")[-1] for name in lower} - {"pelvis"} == {"hip", "knee", "ankle"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": (), "sigmas": ()}, "`names` is empty"),
        ({"sigmas": (0.1,)}, "one positive number for each of 2"),
        ({"sigmas": (0.1, 0.0)}, "one positive number"),
        ({"skeleton": ((0, 2),)}, "`skeleton` is .* below 2"),
        ({"upper": (2,)}, "`upper` is .* below 2"),
        ({"flip_pairs": ((0, -1),)}, "`flip_pairs` is .* below 2"),
        ({"flip_pairs": ((0, 1), (1, 0))}, "one mirror image at most"),
    ],
)
def test_a_set_that_does_not_fit_together_is_an_error(change: dict, message: str) -> None:
    right: dict = {"names": ("a", "b"), "flip_pairs": (), "skeleton": ((0, 1),), "sigmas": (0.1, 0.1)}
    KeypointSet(**right)
    with pytest.raises(ValueError, match=message):
        KeypointSet(**{**right, **change})
