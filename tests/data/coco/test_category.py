from __future__ import annotations

import warnings

import numpy as np
import pytest

from rpgmt.data.coco.category import keypoint_set
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS, DEFAULT_SIGMA, KNOWN_SETS, LSP_KEYPOINTS, MPII_KEYPOINTS, KeypointSet
from rpgmt.errors import UserError

CAT = {"id": 7, "keypoints": ["left_eye", "right_eye", "tail"]}


@pytest.mark.parametrize("known", KNOWN_SETS)
def test_known_names_need_nothing_else(known: KeypointSet) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keypoint_set({"id": 1, "keypoints": list(known.names)}, "x") == known


def test_known_names_may_be_written_in_another_way() -> None:
    names = [name.replace("_", " ").title() for name in COCO_KEYPOINTS.names]
    found = keypoint_set({"id": 1, "keypoints": names}, "x")
    assert found.names == tuple(names)
    assert (found.flip_pairs, found.sigmas) == (COCO_KEYPOINTS.flip_pairs, COCO_KEYPOINTS.sigmas)
    assert (found.skeleton, found.upper) == (COCO_KEYPOINTS.skeleton, COCO_KEYPOINTS.upper)


def test_what_is_taken_from_names_is_said_in_one_line() -> None:
    with pytest.warns(UserWarning, match="cats: taken from the names") as caught:
        found = keypoint_set(CAT, "cats")
    assert found.flip_pairs == ((0, 1),)
    assert found.sigmas == (0.025, 0.025, DEFAULT_SIGMA)
    assert (found.skeleton, found.upper) == ((), ())
    (text,) = (str(warning.message) for warning in caught)
    assert "flip pairs left_eye/right_eye" in text
    assert "COCO's OKS sigmas" in text
    assert "no OKS sigma for tail" in text
    assert "\n" not in text


def test_points_of_known_sets_in_another_order_keep_coco_s_sigmas() -> None:
    with pytest.warns(UserWarning, match="taken from the names of the key points: COCO's OKS sigmas; flip pairs"):
        found = keypoint_set({"id": 1, "keypoints": list(COCO_KEYPOINTS.names[::-1])}, "x")
    assert found.sigmas == COCO_KEYPOINTS.sigmas[::-1]
    assert found.upper == tuple(range(6, 17))


def test_names_without_sides_are_not_swapped() -> None:
    with pytest.warns(UserWarning, match="no flip pairs, nothing is swapped in a mirror image"):
        assert keypoint_set({"id": 1, "keypoints": ["tip", "base"]}, "x").flip_pairs == ()


def test_the_category_goes_before_the_known_and_the_arguments_before_the_category() -> None:
    category = {
        "id": 1,
        "keypoints": list(LSP_KEYPOINTS.names),
        "skeleton": [[1, 2]],
        "sigmas": [0.2] * 14,
        "flip_pairs": [["neck", "head_top"]],
    }
    found = keypoint_set(category, "x")
    assert (found.skeleton, found.sigmas, found.flip_pairs) == (((0, 1),), (0.2,) * 14, ((12, 13),))
    assert found.upper == LSP_KEYPOINTS.upper
    found = keypoint_set(
        category, "x", sigmas=[0.1] * 14, flip_pairs=[("left_hip", "right_hip")], skeleton=[("neck", "left_hip")]
    )
    assert (found.skeleton, found.sigmas, found.flip_pairs) == (((12, 3),), (0.1,) * 14, ((3, 2),))
    assert keypoint_set({**category, "flip_pairs": []}, "x").flip_pairs == ()  # said to have none


def test_arguments_reach_it_through_the_people() -> None:
    document = {
        "images": [{"id": 1, "width": 9, "height": 9}],
        "categories": [CAT],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 5, 5], "area": 9, "keypoints": [2, 2, 2] * 3}
        ],
    }
    options = {"sigmas": (0.1, 0.1, 0.2), "flip_pairs": (("left_eye", "right_eye"),), "skeleton": (("tail", "left_eye"),)}
    people = CocoPeople(document, lambda _: np.zeros((9, 9, 3), np.uint8), **options)  # type: ignore[arg-type]
    assert people.keypoints.sigmas == (0.1, 0.1, 0.2)
    assert people.keypoints.skeleton == ((2, 0),)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"sigmas": (0.1,)}, "cats: `sigmas` has 1 entries: give 3 positive numbers"),
        ({}, {"sigmas": (0.1, 0, 0.1)}, "cats: `sigmas` has 3 entries: give 3 positive"),
        ({"sigmas": [1, 2]}, {}, "cats: category 7: `sigmas` has 2 entries"),
        ({"sigmas": "none"}, {}, "cats: category 7: `sigmas` has 'none'"),
        ({}, {"flip_pairs": [("left_ey", "tail")]}, "`flip_pairs` names 'left_ey', which is no key point: they are left_eye,"),
        ({"flip_pairs": [[1, 2]]}, {}, r"category 7: `flip_pairs` is \[\[1, 2\]\]: give pairs of names"),
        ({"flip_pairs": 5}, {}, "category 7: `flip_pairs` is 5: give pairs of names"),
        ({"flip_pairs": [["tail", "tail"]]}, {}, "`flip_pairs` is .*one mirror image, another point"),
        ({"flip_pairs": [["tail", "left_eye"], ["left_eye", "right_eye"]]}, {}, "`flip_pairs` is .*one mirror image"),
        ({}, {"skeleton": [("tail", "x")]}, "`skeleton` names 'x'"),
        ({"skeleton": [[1]]}, {}, r"category 7: `skeleton` is \[\[1\]\]: give pairs of numbers .* from 1 to 3"),
        ({"skeleton": 3}, {}, "category 7: `skeleton` is 3: give pairs"),
        ({"skeleton": [["tail", "left_eye"]]}, {}, "category 7: `skeleton` is .*: give pairs of numbers"),
        ({"skeleton": [[1, 2, 3]] * 99}, {}, r"category 7: `skeleton` is .{80}: give pairs"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*taken from the names:UserWarning")
def test_what_is_wrong_is_said_in_one_line(changes: dict, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        keypoint_set({**CAT, **changes}, "cats", **options)
    assert "\n" not in str(caught.value)


def test_edges_beyond_the_points_are_left_out_with_a_warning() -> None:
    category = {"id": 1, "keypoints": list(MPII_KEYPOINTS.names), "skeleton": [[1, 2], [17, 2], [0, 1]]}
    with pytest.warns(UserWarning, match="edges of `skeleton` to points beyond the 16 are left out"):
        assert keypoint_set(category, "x").skeleton == ((0, 1),)
