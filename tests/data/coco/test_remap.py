from __future__ import annotations

import copy

import numpy as np
import pytest

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.remap import remap
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS, CROWDPOSE_KEYPOINTS, LSP_KEYPOINTS, MPII_KEYPOINTS, KeypointSet
from rpgmt.errors import UserError


def _people(names: tuple[str, ...], visible: list[list[int]]) -> CocoPeople:
    """People whose point k lies at (10 + k, 20 + k)."""
    document = {
        "images": [{"id": 1, "width": 90, "height": 80}],
        "categories": [
            {"id": 4, "name": "person", "keypoints": list(names), "sigmas": [0.1] * len(names), "flip_pairs": []},
            {"id": 5, "name": "car"},
        ],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": 4,
                "bbox": [1, 2, 50, 60],
                "area": 99,
                "keypoints": [value for k, v in enumerate(flags) for value in ((10 + k, 20 + k, v) if v else (0, 0, 0))],
            }
            for number, flags in enumerate(visible, 1)
        ]
        + [{"id": 100, "image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]}],
    }
    return CocoPeople(document, lambda _: np.zeros((80, 90, 3), np.uint8), name="mine")


def test_points_move_to_the_target_s_places() -> None:
    source = _people(("tail", "LEFT-EYE", "right eye", "Nose"), [[2, 1, 0, 2]])
    before = copy.deepcopy(source.annotations)
    with pytest.warns(
        UserWarning, match="3 of 17 key points match: Nose as nose, LEFT-EYE as left_eye, right eye as right_eye"
    ):
        found = remap(source, COCO_KEYPOINTS)
    (person,) = found.people
    assert found.keypoints == COCO_KEYPOINTS
    assert person.visibility.tolist() == [2, 1, 0] + [0] * 14
    assert person.keypoints[:3].tolist() == [[13, 23], [11, 21], [0, 0]]
    assert not person.keypoints[3:].any()
    assert (person.box, person.area) == (source.people[0].box, source.people[0].area)
    assert source.annotations == before
    assert len(source.keypoints) == 4


def test_the_new_document_has_the_new_points() -> None:
    source = _people(("tail", "nose"), [[2, 2], [2, 0]])
    with pytest.warns(UserWarning, match="never labelled: left_eye, "):
        found = remap(source, COCO_KEYPOINTS)
    assert [person.annotation_id for person in found.people] == [1]  # nothing is left of the second
    again = CocoPeople(found.annotations, found.read_image)
    assert again.keypoints == COCO_KEYPOINTS
    assert len(again.people) == 1
    np.testing.assert_array_equal(again.people[0].keypoints, found.people[0].keypoints)


@pytest.mark.parametrize(
    ("source", "target", "pairs"),
    [
        (LSP_KEYPOINTS, MPII_KEYPOINTS, {"neck": "upper_neck", "head_top": "head_top"}),
        (CROWDPOSE_KEYPOINTS, LSP_KEYPOINTS, {"neck": "neck", "head": "head_top"}),
        (LSP_KEYPOINTS, CROWDPOSE_KEYPOINTS, {"neck": "neck", "head_top": "head"}),
        (MPII_KEYPOINTS, COCO_KEYPOINTS, {"pelvis": None, "thorax": None, "upper_neck": None, "head_top": None}),
        (MPII_KEYPOINTS, LSP_KEYPOINTS, {"upper_neck": "neck", "head_top": "head_top", "thorax": None, "pelvis": None}),
    ],
)
def test_known_sets_match_where_the_meaning_is_the_same(source: KeypointSet, target: KeypointSet, pairs: dict) -> None:
    """The joints of the limbs keep their names; of the trunk and the head what is listed."""
    limbs = [name for name in source.names if name.startswith(("left_", "right_")) and name in target.names]
    expected = {**{name: name for name in limbs}, **pairs}
    with pytest.warns(UserWarning, match="key points match"):
        found = remap(_people(source.names, [[2] * len(source)]), target).people[0]
    for k, name in enumerate(source.names):
        if expected[name] is not None:
            assert found.keypoints[target.names.index(expected[name])].tolist() == [10 + k, 20 + k]
    assert (found.visibility > 0).sum() == sum(value is not None for value in expected.values())


def test_a_head_elsewhere_is_not_its_top_and_a_neck_no_thorax() -> None:
    with pytest.warns(UserWarning, match="2 of 14 key points match: left_knee, neck"):
        remap(_people(("head", "neck", "left_knee"), [[2, 2, 2]]), LSP_KEYPOINTS)
    with pytest.raises(UserError, match="mine: no key point of thorax, head has the name of one of right_ankle"):
        remap(_people(("thorax", "head"), [[2, 2]]), LSP_KEYPOINTS)


@pytest.mark.filterwarnings("ignore:.*key points match:UserWarning")  # comes before the error
def test_nobody_left_is_an_error() -> None:
    with pytest.raises(UserError, match="nobody has one of the matching key points labelled: nose"):
        remap(_people(("tail", "nose"), [[2, 0]]), COCO_KEYPOINTS)


def test_the_same_set_is_left_alone() -> None:
    source = _people(("tail", "nose"), [[2, 2]])
    assert remap(source, source.keypoints) is source
