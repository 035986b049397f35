from __future__ import annotations

import pytest

from rpgmt.data.coco.keypoint_names import infer_flip_pairs, side_and_part, upper_body


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("left_wrist", ("left", "wrist")),
        ("Left Wrist", ("left", "wrist")),
        ("leftWrist", ("left", "wrist")),
        ("leftwrist", ("left", "wrist")),
        ("wrist_left", ("left", "wrist")),
        ("RIGHT-WRIST", ("right", "wrist")),
        ("r_wrist", ("right", "wrist")),
        ("RWrist", ("right", "wrist")),
        ("WristR", ("right", "wrist")),
        ("wrist-r", ("right", "wrist")),
        ("front_left_paw", ("left", "frontpaw")),
        ("rear", ("", "rear")),
        ("lip", ("", "lip")),
        ("top_of_head", ("", "topofhead")),
        ("left_of_right_ear", ("", "leftofrightear")),
        ("part_l_2", ("", "partl2")),
    ],
)
def test_a_name_has_a_side_and_a_part(name: str, expected: tuple[str, str]) -> None:
    assert side_and_part(name) == expected


def test_flip_pairs_of_other_spellings() -> None:
    assert infer_flip_pairs(("LEye", "REye", "eye_mid", "l_hip", "r_hip", "kneeL", "kneeR")) == ((0, 1), (3, 4), (5, 6))


def test_ambiguous_sides_are_no_pairs() -> None:
    assert infer_flip_pairs(("left_eye", "l_eye", "right_eye", "left_knee", "right_knee")) == ((3, 4),)


def test_only_people_have_an_upper_body() -> None:
    assert upper_body(("LShoulder", "LHip", "Nose")) == (0, 2)
    assert upper_body(("nose", "left_paw", "tail")) == ()
