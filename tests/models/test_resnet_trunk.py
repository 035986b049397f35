"""A pretrained ResNet as the trunk: torchvision's features, weights by name, and everything that a network must do."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import rpgmt
from rpgmt.config import ModelConfig, to_dict
from rpgmt.engine.model_file import load_model, save_model
from rpgmt.errors import UserError
from rpgmt.models import build
from rpgmt.models.counting import count
from rpgmt.models.hourglass import HourglassTrunk
from rpgmt.models.refinement import Refinement
from rpgmt.models.resnet_trunk import ResNetTrunk, load_trunk_weights

SMALL = ModelConfig(stages=2, channels=8, depth=1, rpg_size="25%", heads={"keypoints": 3}, trunk="resnet18")
UNREADABLE = "cannot be read as safetensors or as tensors of torch.save"
NAMES = ("resnet18", "resnet34", "resnet50")


def torchvision_resnet(name: str, seed: int = 0) -> nn.Module:
    """With statistics and scales of the norms that are not the first ones."""
    from torchvision.models import get_model

    torch.manual_seed(seed)
    resnet: nn.Module = get_model(name, weights=None)
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5)
    return resnet.eval()


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return torchvision_resnet("resnet18")


def network(trunk: ResNetTrunk) -> Refinement:
    return Refinement(trunk, [nn.Identity()], 8, {"depth": 1}).eval()


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_torchvision(name: str, tmp_path: Path) -> None:
    resnet = torchvision_resnet(name)
    torch.save(resnet.state_dict(), tmp_path / "weights.pth")
    model = network(ResNetTrunk(name, 8))
    assert load_trunk_weights(model, str(tmp_path / "weights.pth")) == str(tmp_path / "weights.pth")
    features: dict[str, Tensor] = {}
    for part in ("layer1", "layer2"):
        resnet.get_submodule(part).register_forward_hook(
            lambda module, inputs, output, part=part: features.update({part: output})
        )
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        resnet(images)
        out = model.trunk(images)
        fine = F.conv2d(features["layer1"], model.trunk.lateral1.weight, model.trunk.lateral1.bias)
        coarse = F.conv2d(features["layer2"], model.trunk.lateral2.weight, model.trunk.lateral2.bias)
    enlarged = coarse.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(out, fine + enlarged)
    assert out.shape == (2, 8, 16, 24)


@pytest.mark.parametrize("size", [(36, 100), (4, 4), (12, 32)])
def test_any_size_divisible_by_4(size: tuple[int, int]) -> None:
    height, width = size
    out = build(SMALL).eval()(torch.randn(1, 3, height, width))
    assert out[-1]["keypoints"].shape == (1, 3, height // 4, width // 4)


@pytest.mark.parametrize(
    ("name", "layer1", "layer2"),
    [
        ("resnet18", 2 * 73_984, 230_144 + 295_424),
        ("resnet34", 3 * 73_984, 230_144 + 3 * 295_424),
        ("resnet50", 75_008 + 2 * 70_400, 379_392 + 3 * 280_064),
    ],
)
def test_only_the_first_half_is_counted(name: str, layer1: int, layer2: int) -> None:
    """By hand from the table of He et al., arXiv 1512.03385: a stage's first block, which widens, and the others."""
    trunk = ResNetTrunk(name, 8)
    laterals = sum(p.numel() for module in (trunk.lateral1, trunk.lateral2) for p in module.parameters())
    assert sum(p.numel() for p in trunk.parameters()) == (7 * 7 * 3 * 64 + 2 * 64) + layer1 + layer2 + laterals


@pytest.mark.parametrize("sharing", ["rpg", "tied", "none"])
def test_the_network_counts_trains_bakes_and_comes_back_from_its_file(sharing: str, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, sharing=sharing)
    model = build(config)
    counts = count(model, (32, 32))
    assert counts["parameters"]["trainable"] == sum(p.numel() for p in model.parameters())
    assert not any(name.startswith("trunk") for name in rpgmt.report(model).converted)
    model.to(memory_format=torch.channels_last)
    outputs = model(torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last))
    outputs[-1]["keypoints"].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (model.trunk.conv1.weight, model.trunk.bn1.weight))
    save_model(tmp_path / "model.safetensors", model, {"model": to_dict(config)})
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model.eval()(images)[-1]["keypoints"]
        for other in (load_model(tmp_path), copy.deepcopy(model), rpgmt.bake(model)):
            torch.testing.assert_close(other(images)[-1]["keypoints"], expected)


def test_the_default_trunk_is_the_hourglasss_own() -> None:
    assert isinstance(build(dataclasses.replace(SMALL, trunk=ModelConfig().trunk)).trunk, HourglassTrunk)


def loaded_parts(model: Refinement) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.trunk.state_dict().items() if not name.startswith("lateral")}


@pytest.mark.parametrize("form", ["pth", "safetensors", "prefixed", "old", "half"])
def test_weights_of_a_file(form: str, tmp_path: Path, resnet18: nn.Module) -> None:
    state = resnet18.state_dict()
    path = tmp_path / "weights.pth"
    if form == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(state, path)
    elif form == "prefixed":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    elif form == "old":  # before norms counted their batches
        torch.save({name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}, path)
    elif form == "half":
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        torch.save(state, path)
    else:
        torch.save(state, path)
    model = build(SMALL)
    before = copy.deepcopy(model.state_dict())
    assert load_trunk_weights(model, str(path)) == str(path)
    for name, tensor in loaded_parts(model).items():
        if name.endswith("num_batches_tracked"):
            continue
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name].float()), name
    for name, tensor in model.state_dict().items():
        if not name.startswith("trunk.") or "lateral" in name:
            assert torch.equal(tensor, before[name]), name
    assert all(parameter.requires_grad for parameter in model.parameters())


def drop(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name != "layer2.1.bn2.running_var"}


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        ("resnet50", dict, "`layer1.0.conv1.weight` is (64, 64, 1, 1) in the file and (64, 64, 3, 3) in the trunk: "),
        ("resnet34", dict, "`layer1.2.conv1.weight` is (64, 64, 3, 3) in the file and missing in the trunk: "),
        ("resnet18", drop, "`layer2.1.bn2.running_var` is missing in the file and (128,) in the trunk: "),
        (
            "resnet18",
            lambda state: {"x": state["fc.bias"]},
            "`conv1.weight` is missing in the file and (64, 3, 7, 7) in the tr",
        ),
    ],
)
def test_weights_of_another_network_are_one_clear_line_and_change_nothing(
    name: str, change: Any, line: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(change(torchvision_resnet(name).state_dict()), path)
    model = build(SMALL)
    before = loaded_parts(model)
    with pytest.raises(UserError) as error:
        load_trunk_weights(model, str(path))
    assert str(error.value).startswith(f"{path}: {line}")
    assert all(torch.equal(before[part], tensor) for part, tensor in loaded_parts(model).items())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.pth", None, "no such file"),
        ("empty.pth", b"", UNREADABLE),
        ("text.pth", b"not weights", UNREADABLE),
        ("text.safetensors", b"not weights", UNREADABLE),
        ("list.pth", [torch.zeros(1)], "it holds no state dict"),
        ("numbers.pth", {"conv1.weight": 1}, "it holds no state dict"),
        ("a{b}.pth", b"\x80\x02}q\x00.", UNREADABLE),
        ("code.pth", {"conv1.weight": subprocess.run}, UNREADABLE),
    ],
)
def test_what_is_no_file_of_weights_is_one_clear_line(name: str, content: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError) as error:
        load_trunk_weights(build(SMALL), str(path))
    assert str(error.value) == f"`trunk_weights` is '{path}': {reason}, give a file of weights, imagenet or none"


def test_imagenets_weights_come_from_the_cache_of_torch_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet18: nn.Module
) -> None:
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(resnet18.state_dict(), cache / Path(ResNet18_Weights.IMAGENET1K_V1.url).name)
    model = build(SMALL)
    assert load_trunk_weights(model, "imagenet") == "torchvision's ResNet18_Weights.IMAGENET1K_V1"
    assert torch.equal(model.trunk.conv1.weight, resnet18.conv1.weight)


def test_without_a_network_the_line_says_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(urllib.request, "_opener", None)  # one that was made before knows no proxy
    with pytest.raises(UserError, match=r"cannot be had \(.*refused.*\): give --trunk-weights FILE or none$"):
        load_trunk_weights(build(SMALL), "imagenet")


def test_nothing_is_loaded_where_there_is_nothing_to_load() -> None:
    model = build(SMALL)
    before = loaded_parts(model)
    assert load_trunk_weights(model, "none") is None
    assert all(torch.equal(before[part], tensor) for part, tensor in loaded_parts(model).items())
    residual = build(dataclasses.replace(SMALL, trunk="residual"))
    assert load_trunk_weights(residual, "imagenet") is None
    with pytest.raises(UserError, match=r"^`trunk_weights` is 'x\.pth': the residual trunk has none to load, give --trunk"):
        load_trunk_weights(residual, "x.pth")


def test_other_trunks_do_not_wait_for_torchvision() -> None:
    code = (
        "import sys, rpgmt.models as m; from rpgmt.config import ModelConfig as C; m.build(C(stages=1, channels=8));"
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
