"""A small trained model behind a real server, and a browser to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from helpers.browser import chromium
from helpers.demo_server import serving
from helpers.threads import single_thread

import rpgmt
from rpgmt.config import ModelConfig, to_dict
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.images import normalize
from rpgmt.demo.server import DemoServer
from rpgmt.engine.model_file import save_model
from rpgmt.models import build
from rpgmt.prediction.meaning import ImageLogits, KeypointMaps, PixelMap, Reading
from rpgmt.synthetic.render import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HEADS = {
    "keypoints": KeypointMaps(keypoints=COCO_KEYPOINTS, codec="heatmap", stride=4, sigma=1.0, logits=False, flip_shift=0),
    "segmentation": PixelMap(label=LabelMap(kind="classes", classes=("background", "<i>person"))),
    "depth": PixelMap(label=LabelMap(kind="depth")),
    "normals": PixelMap(label=LabelMap(kind="normals")),
    "scene": ImageLogits(classes=("street", "<b>beach", "living_room")),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are faster."""
    with single_thread():
        yield


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of several tasks with three stages. Its weights are fresh: what it finds is somewhere, and differs by stage."""
    channels = {"keypoints": 17, "segmentation": 2, "depth": 1, "normals": 3, "scene": 3}
    config = ModelConfig(stages=3, channels=8, depth=1, rpg_size="50%", input_size=(48, 64), heads=channels)
    reading = Reading(input_size=(48, 64), cut="people", padding=1.1, heads=HEADS)
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    model = build(config).eval()
    crop = normalize(torch.from_numpy(render(7, 3, size=64).image[None, :, 8:56]))
    with torch.inference_mode():
        for k, head in enumerate(model.heads):  # both classes are to be found in each stage
            head["segmentation"].bias -= model(crop)[k]["segmentation"].mean((0, 2, 3))
    save_model(folder / "model.safetensors", model, {"task": "multitask", "model": to_dict(config)}, reading)
    return folder


@pytest.fixture(scope="session")
def predictor(run: Path) -> rpgmt.Predictor:
    return rpgmt.Predictor.load(run, device="cpu")


@pytest.fixture
def server(predictor: rpgmt.Predictor) -> Iterator[DemoServer]:
    with serving(predictor) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """It has a camera that shows a test picture."""
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as browser:
        yield browser
