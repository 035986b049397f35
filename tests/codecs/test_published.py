"""Numbers of mmpose 759b39c (2025-08-04, Apache-2.0), 192×256 pixels to 48×64 cells, sigma 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rpgmt.codecs.codec import Codec
from rpgmt.codecs.msra import Msra
from rpgmt.codecs.udp import Udp

SIZES: dict[str, Any] = {"input_size": (192, 256), "heatmap_size": (48, 64)}
CODECS: dict[str, Codec] = {"msra_s2": Msra(**SIZES), "msra_dark_s2": Msra(**SIZES, dark=True), "udp_s2": Udp(**SIZES)}
UDP_SCALE = np.array([192 / 191, 256 / 255])
"""mmpose's UDP points are in pixels of an input one pixel larger; ours are in those that they were encoded from."""

# A few of the file's numbers, so that something is left where the file is missing.
KEYPOINTS = [[37.2999992, 201.6999969], [150.8999939, 15.1999998], [181.6000061, 77.6999969], [190.5, 254.5]]
ARGMAX = {"msra_s2": [2409, 230, 957, 3071], "msra_dark_s2": [2409, 230, 957, 3071], "udp_s2": [2409, 229, 957, 3071]}
SCORES = {
    "msra_s2": [1.0, 1.0, 1.0, 0.7788007],
    "msra_dark_s2": [0.9648515, 0.9856507, 0.9583155, 0.9069606],
    "udp_s2": [0.9925062, 0.9903684, 0.9830669, 0.9962074],
}
DECODED = {
    "msra_s2": [[36.0, 200.0], [152.0, 16.0], [180.0, 76.0], [188.0, 252.0]],
    "msra_dark_s2": [[37.299305, 201.6989594], [150.9005432, 15.2476301], [180.2658691, 77.6989594], [188.0, 252.0]],
    "udp_s2": [[37.4954068, 202.4908854], [151.6901336, 15.3089919], [181.982666, 78.0048286], [194.0425532, 258.031746]],
}


@pytest.fixture(scope="module")
def published(shared_fixtures: Path) -> dict[str, Any]:
    path = shared_fixtures / "codecs/mmpose_vectors.json"
    if not path.is_file():
        pytest.skip(f"no published numbers: {path} is missing")
    return json.loads(path.read_text())


def _near(ours: object, theirs: object) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CODECS)
def test_a_few_points(name: str) -> None:
    maps, weights = CODECS[name].encode(torch.tensor([KEYPOINTS]), torch.ones(1, 4))
    assert weights.all()
    assert maps[0].flatten(1).argmax(-1).tolist() == ARGMAX[name]
    points, scores = CODECS[name].decode(maps)
    _near(points[0].numpy() * (UDP_SCALE if name == "udp_s2" else 1), DECODED[name])
    _near(scores[0], SCORES[name])


@pytest.mark.parametrize("name", CODECS)
def test_maps_and_points(published: dict[str, Any], name: str) -> None:
    case = published["codecs"][name]
    visible = np.array(published["visible"][0]) > 0
    maps, weights = CODECS[name].encode(torch.tensor(published["keypoints"]), torch.tensor(published["visible"]))
    assert list(maps.shape[1:]) == case["shape"]
    _near(weights, case["weights"])
    _near(maps[0].sum((-2, -1)), case["sum_per_channel"])
    _near(maps[0].amax((-2, -1)), case["max_per_channel"])
    assert maps[0].flatten(1).argmax(-1).tolist() == case["argmax_per_channel"]
    _near(maps[0, 1, 47:55, 6:14], case["channel1_patch_y47_54_x6_13"])
    points, scores = CODECS[name].decode(maps)
    _near(scores, case["scores"])
    decoded = np.array(case["decoded"], dtype=float)  # null, of an empty map, is not a number
    _near((points.numpy() * (UDP_SCALE if name == "udp_s2" else 1))[0, visible], decoded[0, visible])
    # An empty map: there (-stride, -stride) or NaN, here the first cell. What matters is the score of 0, compared above.
    assert points[0, ~visible].tolist() == [[0, 0]]
