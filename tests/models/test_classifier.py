"""Classifiers: the paper's counts, torchvision's network tensor by tensor, sharing, narrow networks, model files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import rpgmt
from rpgmt.config import ClassifierConfig, ModelConfig, UserError, model_config, to_dict
from rpgmt.engine.model_file import load_weights, save_model
from rpgmt.models import build
from rpgmt.models.classifier import HEAD, Classifier, check_batch_size, matching_width, rpg_parameters
from rpgmt.rpg.bank import Bank

SMALL = ClassifierConfig(width=0.125, classes=7, rpg_size="25%")
IMAGENET = ClassifierConfig(stem="7x7", classes=1000, rpg_size=36_864, input_size=(224, 224))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("network", "generated", "fixed"),
    [("resnet18", 11_157_504, 532_008), ("resnet34", 21_258_240, 539_432)],
)
def test_the_papers_networks_have_its_counts(network: str, generated: int, fixed: int) -> None:
    model = build(dataclasses.replace(IMAGENET, network=network))
    report = rpgmt.report(model)
    assert (report.bank, report.generated, report.fixed) == (36_864, generated, fixed)
    assert report.trainable == 36_864 + fixed == parameters(model)
    left = {row.name for row in report.rows if row.kind in ("Conv2d", "Linear") and not row.generated}
    assert left == {"conv1", "fc"}


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_at_width_1_it_is_torchvisions_network(network: str) -> None:
    from torchvision.models import get_model

    theirs, ours = get_model(network, weights=None).eval(), Classifier(network, "7x7", 1.0, 1000).eval()
    theirs.load_state_dict(ours.state_dict())  # strictly: the same names and shapes
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(theirs(images), ours(images)[0][HEAD])


def test_first_weights_have_torchvisions_deviations() -> None:
    from torchvision.models import get_model

    theirs, ours = dict(get_model("resnet18", weights=None).named_parameters()), Classifier("resnet18", "7x7", 1.0, 1000)
    for name, parameter in ours.named_parameters():
        assert parameter.std().item() == pytest.approx(theirs[name].std().item(), rel=0.05, abs=1e-3), name


def test_the_small_stem_keeps_the_resolution() -> None:
    model = build(SMALL)
    seen: list[tuple[int, ...]] = []
    model.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2:]))
    model.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2:]))
    assert model(torch.zeros(2, 3, 32, 32))[0][HEAD].shape == (2, 7)
    assert seen == [(32, 32), (4, 4)]


def test_scope_block_has_a_bank_for_each_of_layer1_to_layer4() -> None:
    model = build(dataclasses.replace(SMALL, rpg_scope="block"))
    banks = {name: module for name, module in model.named_children() if isinstance(module, Bank)}
    assert list(banks) == ["bank_layer1", "bank_layer2", "bank_layer3", "bank_layer4"]
    for row in rpgmt.report(model).rows:
        if row.generated:
            assert row.name.partition(".")[0] in row.source
    assert [name for name, module in build(SMALL).named_children() if isinstance(module, Bank)] == ["bank"]


def test_blocks_of_a_layer_that_are_tied_share_convolutions_of_one_shape_and_no_norms() -> None:
    model = build(dataclasses.replace(SMALL, network="resnet34", sharing="tied"))
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        first, second, third, *_ = layer
        assert second.conv1.weight is third.conv1.weight
        assert first.conv2.weight is second.conv2.weight is third.conv2.weight
        assert (first.conv1.weight is second.conv1.weight) == (layer is model.layer1)  # elsewhere other channels come in
        assert second.conv1.weight is not second.conv2.weight
        assert first.bn1.weight is not second.bn1.weight
    # By hand, with channels 8, 16, 32, 64: layer1 has 2 weights of its own; each later one 3 and the way along.
    own = 9 * 8 * 8 * 2 + sum(9 * (c // 2 * c + 2 * c * c) + c // 2 * c for c in (16, 32, 64))
    norms = 2 * (8 + 6 * 8 + 9 * 16 + 13 * 32 + 7 * 64)
    assert parameters(model) == 3 * 9 * 8 + own + norms + 64 * 7 + 7


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
@pytest.mark.parametrize("size", ["5%", "25%", "90%"])
def test_the_narrow_network_has_as_many_parameters_as_the_generated_one(network: str, size: str) -> None:
    config = dataclasses.replace(SMALL, width=0.5, network=network, rpg_size=size)
    wanted = parameters(build(config))
    assert rpg_parameters(config) == wanted
    narrow = build(dataclasses.replace(config, sharing="narrow"))
    assert parameters(narrow) == pytest.approx(wanted, rel=0.02)
    assert not any(isinstance(module, Bank) for module in narrow.modules())


def test_the_matching_width_is_the_nearest_of_all() -> None:
    def count(channels: int) -> int:
        return parameters(Classifier("resnet18", "3x3", channels / 512, 7))

    counts = {channels: count(channels) for channels in range(1, 40)}
    for wanted in (0, 1_500, 20_000, 33_333):
        nearest = min(counts, key=lambda channels: abs(counts[channels] - wanted))
        assert matching_width(SMALL, wanted) == nearest / 512


@pytest.mark.parametrize("sharing", ["rpg", "tied", "none", "narrow"])
def test_a_model_file_gives_the_network_back(sharing: str, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, sharing=sharing)
    torch.manual_seed(1)
    model = build(config).eval()
    save_model(tmp_path / "model.safetensors", model, {"task": "classification", "model": to_dict(config)})
    loaded = rpgmt.load(tmp_path)
    assert isinstance(loaded, Classifier)
    assert not loaded.training
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images)[0][HEAD], model(images)[0][HEAD])
        assert torch.equal(rpgmt.bake(loaded)(images)[0][HEAD], model(images)[0][HEAD])


def test_weights_go_to_a_network_with_other_classes(tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", build(SMALL), {"model": to_dict(SMALL)})
    other = build(dataclasses.replace(SMALL, classes=3))
    assert load_weights(other, tmp_path, heads_may_differ=True) == ["fc.bias", "fc.weight"]


def test_the_section_of_a_saved_config_tells_its_kind() -> None:
    for config in (SMALL, ModelConfig(stages=2)):
        assert model_config(to_dict(config)) == config


def test_a_gradient_reaches_every_parameter() -> None:
    model = build(SMALL)
    model(torch.randn(4, 3, 32, 32))[0][HEAD].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_what_cannot_be_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"^--rpg-size 3: `size` is 3: 4 banks need at least 1 parameter each"):
        build(dataclasses.replace(SMALL, rpg_size=3, rpg_scope="block"))
    with pytest.raises(ValueError, match=r"`scope` is 'stage': must be one of global, block"):
        build(dataclasses.replace(SMALL, sharing="none")).bank_scope("stage", "layer1.0.conv1")
    with pytest.raises(UserError, match=r"^`batch_size` is 1: one cell is left in layer4"):
        check_batch_size(dataclasses.replace(SMALL, stem="7x7"), 1)
    check_batch_size(SMALL, 1)
