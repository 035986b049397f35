"""Kinds of presets, models and checkpoints that are mutated: how a sound one is written and read, and what then must hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from helpers.mutated_kind import Kind
from helpers.mutation import bytes_of, json_of, text_of
from hypothesis import strategies as st

from rpgmt.config import ModelConfig, to_dict, to_yaml
from rpgmt.config.presets import load_preset
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.engine.checkpoint import load_checkpoint, save_checkpoint
from rpgmt.engine.model_file import load_model, read_reading, save_model
from rpgmt.models import build
from rpgmt.prediction.meaning import KeypointMaps, Reading
from rpgmt.prediction.network import TorchNetwork
from rpgmt.prediction.predictor import Predictor
from tasks import pose


def _write_preset(folder: Path) -> None:
    (folder / "mine.yaml").write_text(to_yaml(pose.Config(), task="pose"))


def _read_preset(folder: Path) -> None:
    config = load_preset(str(folder / "mine.yaml"), "pose", pose.Config)
    (folder / "again.yaml").write_text(to_yaml(config, task="pose"))
    assert load_preset(str(folder / "again.yaml"), "pose", pose.Config) == config


_MODEL = ModelConfig(stages=2, channels=8, depth=1, rpg_size="50%", heads={"keypoints": 17}, input_size=(48, 48))


def _write_model(folder: Path) -> None:
    torch.manual_seed(0)
    meaning = KeypointMaps(
        keypoints=COCO_KEYPOINTS, codec="msra", stride=4, sigma=2.0, logits=False, flip_shift=0, rescoring="mean"
    )
    reading = Reading(input_size=(48, 48), cut="people", heads={"keypoints": meaning})
    save_model(folder / "model.safetensors", build(_MODEL), {"task": "pose", "model": to_dict(_MODEL)}, reading)


@st.composite
def _header_of(draw: st.DrawFn, sound: bytes) -> bytes:
    """A model file whose header's config, placement or reading is another; or whose bytes before the tensors are."""
    end = 8 + int.from_bytes(sound[:8], "little")
    if draw(st.integers(0, 3)) == 0:
        return draw(bytes_of(sound[:end])) + sound[end:]
    header = json.loads(sound[8:end])
    key = draw(st.sampled_from(["config", "config", "reading", "placement"]))
    header["__metadata__"].pop("digest", None)  # else most would be found out by it
    header["__metadata__"][key] = draw(json_of(header["__metadata__"][key].encode())).decode(errors="replace")
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + sound[end:]


@st.composite
def _tensors_of(draw: st.DrawFn, sound: bytes) -> bytes:
    end = 8 + int.from_bytes(sound[:8], "little")
    return sound[:end] + draw(bytes_of(sound[end:]))


def _read_model(folder: Path) -> None:
    path = folder / "model.safetensors"
    model = load_model(path)
    predictor = Predictor(TorchNetwork(model, read_reading(path), "cpu"))
    people = predictor(np.zeros((60, 50, 3), np.uint8), [[5, 5, 30, 40]])
    assert np.isfinite(people.keypoints).all()


def _read_weights(folder: Path) -> None:
    """The weights of a file that is taken for whole are those that were written."""
    torch.manual_seed(0)
    written, found = build(_MODEL).state_dict(), load_model(folder / "model.safetensors").state_dict()
    assert all(torch.equal(written[name], found[name]) for name in written), "other weights than were written"


_STATE = {"step": 3, "config": {"seed": 0}, "model": {f"layer{i}.weight": torch.arange(40.0) + i for i in range(6)}}


def _write_checkpoint(folder: Path) -> None:
    save_checkpoint(folder / "last.ckpt", _STATE)


def _read_checkpoint(folder: Path) -> None:
    found = load_checkpoint(folder / "last.ckpt")
    assert found["step"] == 3
    assert all(torch.equal(found["model"][name], tensor) for name, tensor in _STATE["model"].items()), "other weights"


MODELS = [
    Kind("preset", "mine.yaml", _write_preset, text_of, _read_preset, 2),
    Kind("model header", "model.safetensors", _write_model, _header_of, _read_model),
    Kind("model tensors", "model.safetensors", _write_model, _tensors_of, _read_weights, 0.5),
    Kind("checkpoint", "last.ckpt", _write_checkpoint, bytes_of, _read_checkpoint),
]
