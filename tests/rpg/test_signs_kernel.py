"""The kernel of learned signs, in Triton's interpreter on the CPU, or on a GPU with RPGMT_TEST_DEVICE=cuda."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton")

import rpgmt
from rpgmt.rpg import learned_signs
from rpgmt.rpg.backends import fused, signs_kernel
from rpgmt.rpg.learned_signs import SignedConv2d

DEVICE = torch.device(os.environ.get("RPGMT_TEST_DEVICE", "cpu"))


def layers_of(*sizes: tuple[int, int, int, str]) -> list[SignedConv2d]:
    """Layers of (outputs, inputs, kernel, size), on the device, their memory formats in turn."""
    torch.manual_seed(0)
    layers = []
    for place, (outputs, inputs, kernel, size) in enumerate(sizes):
        (layer,) = rpgmt.learn_signs(nn.Sequential(nn.Conv2d(inputs, outputs, kernel)), size)
        with torch.no_grad():
            layer.weight.view(-1)[:3] = torch.tensor([-0.0, 0.0, -1e-30])
        layers.append(layer.to(DEVICE, memory_format=torch.channels_last if place % 2 else torch.contiguous_format))
    return layers


def make(layers: list[SignedConv2d], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    free, entries = [layer.weight.detach() for layer in layers], [layer.entries for layer in layers]
    firmness = [layer.firmness if layer.training else None for layer in layers]
    assert signs_kernel.usable(free, entries, firmness)
    return signs_kernel.used_weights(free, entries, firmness, dtype)


def mixed() -> list[SignedConv2d]:
    kernels = [(16, 6, 3, "8%"), (16, 6, 1, "25%"), (16, 6, 3, "40%"), (16, 6, 3, "99%"), (5, 7, 1, "25%"), (7, 5, 3, "25%")]
    return layers_of(*kernels, (32, 16, 3, "25%"), *kernels)


@pytest.mark.parametrize("count", [1, 2, 13])
def test_the_kernel_makes_what_the_operations_make(count: int) -> None:
    layers = mixed()[-count:]
    for layer, weight in zip(layers, make(layers), strict=True):
        shared = layer.shared_weight()
        assert torch.equal(weight, shared)
        assert torch.equal(torch.signbit(weight), torch.signbit(shared))  # also of zeros
        assert weight.stride() == layer.weight.stride()
        assert weight.storage_offset() % 16 == 0
    for firmness in (0.0, 0.3, 0.8):
        for layer in layers:
            layer.firmness.fill_(firmness)
        for layer, weight in zip(layers, make(layers), strict=True):
            between = layer.shared_weight().lerp(layer.weight.detach(), 1 - firmness)
            torch.testing.assert_close(weight, between, rtol=1e-6, atol=1e-9)
            assert firmness or torch.equal(weight, layer.weight)


def test_each_layer_has_its_own_firmness() -> None:
    free, firm = layers = layers_of((16, 6, 3, "25%"), (16, 6, 3, "25%"))
    free.firmness.fill_(0.0)
    first, second = make(layers)
    assert torch.equal(first, free.weight)
    assert torch.equal(second, firm.shared_weight())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_rounded_once(dtype: torch.dtype) -> None:
    layers = mixed()
    for low, full in zip(make(layers, dtype), make(layers), strict=True):
        if DEVICE.type == "cpu" and dtype == torch.bfloat16:  # which the interpreter cuts off
            torch.testing.assert_close(low.float(), full, rtol=2**-7, atol=0.0)
        else:
            assert torch.equal(low, full.to(dtype))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_forward_with_weights_made_together_is_the_layers_own(
    autocast: bool, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned_signs, "KERNEL_ON", ("cuda", "cpu"))
    model = nn.Sequential(*layers_of((8, 6, 3, "25%"), (8, 8, 3, "40%"), (4, 8, 1, "25%"))).train(training)
    layers, x = list(model), torch.randn(2, 6, 9, 9, device=DEVICE)
    rpgmt.set_firmness(layers, 0.3)
    found = []
    for together in (nullcontext(), rpgmt.made_together(layers)):
        model.zero_grad()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=autocast), together:
            outputs = model(x)
        outputs.float().square().sum().backward()
        found.append([outputs.detach(), *[layer.weight.grad.clone() for layer in layers]])
    tolerance = {"rtol": 5e-2, "atol": 5e-2} if autocast else {"rtol": 1e-5, "atol": 1e-6}
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(other, own, **tolerance)


def test_what_the_kernel_cannot_make_is_left_to_the_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, firm = torch.randn(16, 6, 3, 3, device=DEVICE), torch.ones((), device=DEVICE)
    assert signs_kernel.usable([weight], [216], [firm])
    assert signs_kernel.usable([weight], [216], [None])
    for other in (weight.double(), weight.bfloat16(), weight.transpose(0, 1), weight.to("meta"), nn.Parameter(weight)):
        assert not signs_kernel.usable([weight, other], [216, 216], [firm, firm])
    for other in (firm.double(), firm.to("meta")):
        assert not signs_kernel.usable([weight], [216], [other])
    assert not signs_kernel.usable([weight], [13], [firm])  # more laps than a program should make alone
    huge = torch.empty((), device=DEVICE).expand(1_700_000_000)
    assert not signs_kernel.usable([huge], [500_000_000], [firm])  # where 32 bits would end
    monkeypatch.setattr(learned_signs, "KERNEL_ON", ("cuda", "cpu"))
    (layer,) = layers_of((16, 6, 3, "25%"))
    layer.double()
    with rpgmt.made_together([layer]):
        assert torch.equal(layer.made.used, layer.shared_weight())
    assert not fused.usable(torch.device("meta"))
