"""The model file: whole, small, read without unpickling."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import rpgmt
from rpgmt.config import ModelConfig, to_dict
from rpgmt.engine.model_file import load_model, load_weights, model_bytes, model_path, read_config, save_model
from rpgmt.errors import UserError
from rpgmt.models import build
from rpgmt.rpg.learned_signs import pack, signed_layers, unpack

MODEL = ModelConfig(stages=3, channels=16, depth=2, rpg_size="25%", heads={"keypoints": 5})
KINDS = [("rpg", "stage"), ("rpg", "global"), ("rpg", "block"), ("signed", "stage"), ("tied", "stage"), ("none", "stage")]


def saved(path: Path, config: ModelConfig, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = build(config)
    model(torch.randn(4, 3, 32, 32))  # statistics of the norms move
    save_model(path, model, {"model": to_dict(config)})
    return model.eval()


@pytest.mark.parametrize(("sharing", "scope"), KINDS)
def test_a_loaded_model_gives_the_same_output_bit_for_bit(tmp_path: Path, sharing: str, scope: str) -> None:
    path = tmp_path / "model.safetensors"
    model = saved(path, dataclasses.replace(MODEL, sharing=sharing, rpg_scope=scope))
    images = torch.randn(2, 3, 32, 32)
    for loaded in (load_model(path), load_model(tmp_path), rpgmt.load(path)):
        assert not loaded.training
        with torch.no_grad():
            for a, b in zip(model(images), loaded(images), strict=True):
                assert torch.equal(a["keypoints"], b["keypoints"])


@pytest.mark.parametrize(("sharing", "scope"), KINDS)
def test_size_is_four_bytes_a_trained_parameter_and_little_else(tmp_path: Path, sharing: str, scope: str) -> None:
    path = tmp_path / "model.safetensors"
    model = saved(path, dataclasses.replace(MODEL, sharing=sharing, rpg_scope=scope))
    with safe_open(path, "pt") as file:
        names = list(file.keys())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    trained = 4 * rpgmt.report(model).trainable
    assert trained + buffers <= path.stat().st_size <= trained + buffers + 160 * len(names) + 8192


def test_the_header_holds_config_and_placement(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = saved(path, MODEL)
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert json.loads(header["config"]) == {"model": to_dict(MODEL)} == read_config(tmp_path)
    version, _, _, checksum = model.bank_stage_2.get_extra_state().tolist()[:4]
    assert json.loads(header["placement"])["bank_stage_2"] == {"version": version, "checksum": checksum}


def test_equal_models_make_equal_files(tmp_path: Path) -> None:
    model, config = build(MODEL), {"task": "pose", "model": to_dict(MODEL), "word": "é"}
    assert len({model_bytes(model, config) for _ in range(8)}) == 1
    save_model(tmp_path / "m.safetensors", model, config)
    assert read_config(tmp_path / "m.safetensors")["word"] == "é"
    found = load_model(tmp_path / "m.safetensors").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def test_a_file_of_another_placement_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved(path, MODEL)
    other = build(dataclasses.replace(MODEL, rpg_seed=1))
    with pytest.raises(UserError, match="was placed with seed 0, this one with 1"):
        load_weights(other, path)


def test_a_file_of_another_network_is_refused_by_name_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved(path, MODEL)
    with pytest.raises(UserError, match=r"keypoints.weight` is \(16, 5, 1, 1\) in the file and \(16, 7, 1, 1\) in the network"):
        load_weights(build(dataclasses.replace(MODEL, heads={"keypoints": 7})), path)
    with pytest.raises(UserError, match=r"is .* in the file and missing in the network"):
        load_weights(build(dataclasses.replace(MODEL, stages=2)), path)


def test_other_heads_may_start_from_a_files_trunk_and_stages(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    source = saved(path, MODEL)
    torch.manual_seed(7)
    target = build(dataclasses.replace(MODEL, heads={"keypoints": 7, "depth": 1}))
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    kept, of_file = load_weights(target, path, heads_may_differ=True), source.state_dict()
    assert all("heads" in name or "predictions" in name for name in kept)
    for name, tensor in target.state_dict().items():
        if name.endswith("_extra_state"):
            continue
        assert torch.equal(tensor, before[name] if name in kept else of_file[name]), name
    assert torch.equal(target.bank_stage_1.values, source.bank_stage_1.values)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x04pickle" * 100])
def test_what_is_no_model_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is not a model file \(it is not of the format safetensors\): give a run folder"):
        load_model(path)


def test_so_is_one_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved(path, MODEL)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is not a model file \(it is cut off\)"):
        load_model(path)


def test_of_a_run_folder_the_last_weights_are_read_or_the_best(tmp_path: Path) -> None:
    last, best = (saved(tmp_path / name, MODEL, seed) for seed, name in enumerate(["model.safetensors", "best.safetensors"]))
    images = torch.randn(2, 3, 32, 32)
    for model, loaded in (
        (last, load_model(tmp_path)),
        (last, load_model(tmp_path, "last")),
        (best, load_model(tmp_path, weights="best")),
        (best, rpgmt.load(tmp_path / "best.safetensors")),
        (best, rpgmt.load(tmp_path / "best.safetensors", weights="best")),
    ):
        assert torch.equal(model(images)[-1]["keypoints"], loaded(images)[-1]["keypoints"])
    assert model_path(tmp_path, "best") == tmp_path / "best.safetensors"


def test_where_there_are_no_best_weights_one_line_says_so(tmp_path: Path) -> None:
    saved(tmp_path / "model.safetensors", MODEL)
    with pytest.raises(UserError, match=r"holds no best\.safetensors .*: leave out `weights`"):
        load_model(tmp_path, weights="best")
    with pytest.raises(UserError, match=r"is one model file; give its run folder, or its best\.safetensors"):
        load_model(tmp_path / "model.safetensors", weights="best")
    with pytest.raises(UserError, match="`weights` is 'first': give one of last, best"):
        load_model(tmp_path, weights="first")  # type: ignore[arg-type]
    (tmp_path / "model.safetensors").rename(tmp_path / "best.safetensors")
    load_model(tmp_path, weights="best")
    with pytest.raises(UserError, match="has not ended: take `weights` best, or go on with it by --resume"):
        load_model(tmp_path)


def test_missing_and_foreign_files_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist: give a run folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load_model(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="has format None"):
        load_model(tmp_path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved(path, MODEL)
    before = path.read_bytes()
    with pytest.raises(TypeError):  # a config that is not plain data
        save_model(path, build(MODEL), {"model": object()})
    assert path.read_bytes() == before


def test_loading_needs_no_lightning(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    saved(path, MODEL)
    code = f"import sys, rpgmt; rpgmt.load({str(path)!r}); sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


@pytest.mark.parametrize("config", [None, "{", "[]", "{}"])
def test_a_header_without_a_model_config_is_one_clear_line(tmp_path: Path, config: str | None) -> None:
    metadata = {"format": "rpgmt-1"} | ({} if config is None else {"config": config})
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors", metadata)
    with pytest.raises(UserError, match="has no config of a model"):
        load_model(tmp_path)


def test_others_may_read_the_file(tmp_path: Path) -> None:
    saved(tmp_path / "model.safetensors", MODEL)
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_signs_are_stored_as_bits_and_may_be_trained_on(tmp_path: Path) -> None:
    """The free weights of training are no part of a file: of its magnitudes and signs they are made again."""
    config = dataclasses.replace(MODEL, sharing="signed")
    saved(tmp_path / "model.safetensors", config)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
        signs = file.get_tensor("stages.0.residual.conv2.signs")
    assert signs.dtype == torch.uint8
    assert signs.shape == (8 * 8 * 9 // 8,)
    assert "stages.0.residual.conv2.weight" not in names
    loaded = load_model(tmp_path)
    again = model_bytes(loaded, {"model": to_dict(config)})
    assert again == (tmp_path / "model.safetensors").read_bytes()
    images = torch.randn(2, 3, 32, 32)
    loaded.train()(images)[-1]["keypoints"].square().mean().backward()
    assert loaded.get_submodule("stages.0.residual.conv2").weight.grad.any()


def test_a_header_of_learned_signs_on_another_file_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    save_model(path, build(dataclasses.replace(MODEL, sharing="rpg")), {"model": to_dict(MODEL) | {"sharing": "signed"}})
    with pytest.raises(UserError, match=r"`stages\.0\..*weight` is missing in the file"):
        load_model(path)


def test_signs_of_another_type_are_refused(tmp_path: Path) -> None:
    model = build(dataclasses.replace(MODEL, sharing="signed"))
    (layer, *_) = signed_layers(model).values()
    for name, change in (("signs", torch.float32), ("magnitudes", torch.int64)):
        held = pack(layer)
        held[name] = held[name].to(change)
        with pytest.raises(ValueError, match=f"{change!s}.*, not torch.uint8 and torch.float32"):
            unpack(layer, **held)


def test_a_training_of_signs_may_start_with_plain_weights(tmp_path: Path) -> None:
    plain = saved(tmp_path / "model.safetensors", dataclasses.replace(MODEL, sharing="none"))
    model = build(dataclasses.replace(MODEL, sharing="signed"))
    with pytest.raises(UserError, match="in the file and"):
        load_weights(model, tmp_path)
    assert load_weights(model, tmp_path, heads_may_differ=True) == []
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
