from __future__ import annotations

from pathlib import Path

import numpy as np

from rpgmt.synthetic.body import PARTS
from rpgmt.synthetic.cache import load
from rpgmt.synthetic.labels import SWAPS, synthetic_labels
from rpgmt.synthetic.parallel import split_start
from rpgmt.synthetic.render import render


def test_every_left_part_has_its_right_one() -> None:
    names = {PARTS[left]: PARTS[right] for left, right in SWAPS}
    assert names == {
        "left_upper_arm": "right_upper_arm",
        "left_forearm": "right_forearm",
        "left_hand": "right_hand",
        "left_thigh": "right_thigh",
        "left_shin": "right_shin",
        "left_foot": "right_foot",
    }


def test_maps_are_those_of_the_scenes(tmp_path: Path) -> None:
    for dense in (True, False):
        scenes = load(tmp_path, count=2, size=32, seed=7, split="val", dense=dense, processes=1, progress=False)
        labelled = synthetic_labels(scenes, "val scenes")
        assert labelled.name == "val scenes"
        assert {name: kind.kind for name, kind in labelled.maps.items()} == {
            "segmentation": "classes",
            "parts": "parts",
            "depth": "depth",
            "normals": "normals",
        }
        assert labelled.maps["parts"].classes == PARTS
        for i in range(2):
            scene = render(7, split_start("val", 2) + i, 32)
            maps = labelled.read_maps({"id": i}, ("segmentation", "parts", "depth", "normals"))
            np.testing.assert_array_equal(maps["segmentation"], scene.people > 0)
            for name in ("parts", "depth", "normals"):
                np.testing.assert_array_equal(maps[name], getattr(scene, name))
        assert list(labelled.read_maps({"id": 0}, ("depth",))) == ["depth"]
        assert {person.image["id"] for person in labelled.people.people} <= {0, 1}
