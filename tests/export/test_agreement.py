"""What keeps a wrong file from being kept, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rpgmt.config import ModelConfig
from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.images import normalize
from rpgmt.errors import UserError
from rpgmt.export.agreement import TOLERANCE, check
from rpgmt.export.facts import Facts, outputs_of
from rpgmt.export.int8 import pixels_of
from rpgmt.export.network import ExportNetwork, half_of, sample_crops
from rpgmt.models import build
from rpgmt.prediction.meaning import KeypointMaps, PixelMap, Reading
from rpgmt.rpg.bake import bake
from rpgmt.whole_files import whole_file

SIZE = (32, 32)
HEADS = {"keypoints": 2, "segmentation": 3, "depth": 1}
Change = Callable[[dict[str, NDArray[Any]]], None]


def make_network(*, decoded: bool) -> ExportNetwork:
    keypoints = KeypointSet(names=("a", "b"), flip_pairs=(), skeleton=(), sigmas=(0.05, 0.1))
    reading = Reading(
        input_size=SIZE,
        cut="people",
        heads={
            "keypoints": KeypointMaps(keypoints=keypoints, codec="heatmap", stride=4, sigma=1.0, logits=True, flip_shift=0),
            "segmentation": PixelMap(label=LabelMap(kind="classes", classes=("x", "y", "z"))),
            "depth": PixelMap(label=LabelMap(kind="depth")),
        },
    )
    torch.manual_seed(0)
    model = bake(build(ModelConfig(stages=2, depth=1, channels=8, rpg_size="50%", heads=HEADS, input_size=SIZE)))
    facts = Facts(
        input_size=SIZE,
        stages=2,
        decoded=decoded,
        precision="float32",
        outputs=dict(outputs_of(2, list(HEADS), reading if decoded else None)),
        reading=reading,
        config={"model": {}},
    )
    return ExportNetwork(model.eval().requires_grad_(False), facts)


@pytest.fixture(scope="module")
def network() -> ExportNetwork:
    return make_network(decoded=True)


@pytest.fixture(scope="module")
def maps() -> ExportNetwork:
    return make_network(decoded=False)


def changed(network: ExportNetwork, change: Change) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]:
    def run(crops: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        outputs = {name: output.copy() for name, output in network.on(crops).items()}
        change(outputs)
        return outputs

    return run


def test_pytorch_agrees_with_itself(network: ExportNetwork, maps: ExportNetwork) -> None:
    for one in (network, maps):
        found = check(one, one.on, "f", 1e-4)
        assert [difference.name for difference in found] == list(one.facts.outputs)
        assert all(difference.largest == difference.unequal == 0 and difference.values > 0 for difference in found)


def test_another_order_of_sums_agrees(network: ExportNetwork, maps: ExportNetwork) -> None:
    """Float64 rounds otherwise, as another program does: its classes at ties and flat maps' points are allowed."""
    for one in (network, maps):
        double = make_network(decoded=one.facts.decoded)
        double.model.load_state_dict(one.model.state_dict())
        double.model.double()

        def run(crops: NDArray[np.uint8], double: ExportNetwork = double) -> dict[str, NDArray[Any]]:
            outputs = double.model(normalize(torch.from_numpy(crops)).contiguous().double())
            singles = [{head: output.float() for head, output in of.items()} for of in outputs]
            return {name: output.numpy() for name, output in double.named(singles).items()}

        found = check(one, run, "f", 1e-4)
        assert 0 < max(difference.largest for difference in found) < 0.01


def add(name: str, value: float, place: tuple[int, ...]) -> Change:
    def change(outputs: dict[str, NDArray[Any]]) -> None:
        outputs[name][place] += value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (add("stage_2/keypoints/points", 0.02, (0, 1, 0)), "stage_2/keypoints/points at (0, 1, 0) is"),
        (add("stage_1/keypoints/scores", -0.001, (0, 0)), "stage_1/keypoints/scores at (0, 0) is"),
        (add("stage_1/depth/map", 0.001, (0, 31, 5)), "stage_1/depth/map at (0, 31, 5) is"),
        (add("stage_1/depth/map", np.nan, (0, 31, 5)), "stage_1/depth/map at (0, 31, 5) is nan"),
        (lambda outputs: outputs.pop("stage_1/depth/map"), "its outputs are stage_1/keypoints/points"),
        (
            lambda outputs: outputs.update({"stage_1/depth/map": outputs["stage_1/depth/map"][:, :3]}),
            "is float32 (1, 3, 32) and in PyTorch float32 (1, 32, 32)",
        ),
        (
            lambda outputs: outputs.update({"stage_1/segmentation/map": outputs["stage_1/segmentation/map"].astype(np.int32)}),
            "is int32 (1, 32, 32)",
        ),
    ],
)
def test_what_is_off_is_said_and_where(network: ExportNetwork, change: Change, words: str) -> None:
    with pytest.raises(UserError, match=r"^model\.onnx is not kept: ") as error:
        check(network, changed(network, change), "model.onnx", 1e-4)
    assert words in str(error.value)


def test_a_class_without_a_tie_may_not_change(network: ExportNetwork) -> None:
    image = torch.from_numpy(sample_crops(SIZE)[:1])
    logits = torch.nn.functional.interpolate(network.maps(image)[0]["segmentation"], size=SIZE, mode="bilinear")
    first, second = logits.topk(2, dim=1).values.unbind(1)
    sure = np.unravel_index(int((first - second).argmax()), (1, 32, 32))
    with pytest.raises(UserError, match=r"stage_1/segmentation/map at .* 1 of"):
        check(network, changed(network, add("stage_1/segmentation/map", 1, tuple(map(int, sure)))), "f", 1e-4)


@pytest.mark.parametrize("size", [1e-3, np.inf])
def test_maps_that_are_off(maps: ExportNetwork, size: float) -> None:
    with pytest.raises(UserError, match=r"stage_2/depth at \(0, 0, 7, 7\)"):
        check(maps, changed(maps, add("stage_2/depth", size, (0, 0, 7, 7))), "f", 1e-4)
    found = check(maps, changed(maps, add("stage_2/depth", 5e-5, (0, 0, 7, 7))), "f", 1e-4)
    assert {difference.name: difference.largest for difference in found}["stage_2/depth"] == pytest.approx(5e-5, rel=1e-2)


def test_half_precision_agrees_within_its_own_tolerance(network: ExportNetwork, maps: ExportNetwork) -> None:
    for one in (network, maps):
        half = half_of(one)
        assert next(one.model.parameters()).dtype == torch.float32
        found = check(one, half.on, "f", TOLERANCE["float16"], half)
        assert max(difference.largest for difference in found) > 1e-5
    with pytest.raises(UserError, match="is not kept"):
        check(maps, half_of(maps).on, "f", 1e-6)


def test_pixels_come_back_from_normalised_images() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(4, 8, 8, 3)
    pixels[..., 1], pixels[..., 2] = pixels[..., 1][::-1], 255 - pixels[..., 2]
    np.testing.assert_array_equal(pixels_of(normalize(torch.from_numpy(pixels))), pixels)


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.onnx"
    with whole_file(path, folders=True) as part:
        part.write_text("first")
        assert not path.exists()
        assert part.suffix == ".onnx"
    assert path.read_text() == "first"


def test_a_file_that_is_off_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("first")

    def write() -> None:
        with whole_file(path, folders=True) as part:
            part.write_text("second")
            raise UserError("it is off")

    with pytest.raises(UserError, match="it is off"):
        write()
    assert [file.name for file in path.parent.iterdir()] == ["m.onnx"]
    assert path.read_text() == "first"
