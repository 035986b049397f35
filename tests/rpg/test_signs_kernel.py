"""The kernel of learned signs, in Triton's interpreter on the CPU, or on a GPU with RPGMT_TEST_DEVICE=cuda."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton")

import rpgmt
from rpgmt.rpg.backends import fused, signs_kernel
from rpgmt.rpg.learned_signs import SignedConv2d

DEVICE = torch.device(os.environ.get("RPGMT_TEST_DEVICE", "cpu"))


def layer_of(size: str, kernel: int = 3, memory_format: torch.memory_format = torch.contiguous_format) -> SignedConv2d:
    torch.manual_seed(0)
    layer = rpgmt.learn_signs(nn.Sequential(nn.Conv2d(6, 16, kernel)), size)[0]
    with torch.no_grad():
        layer.weight.view(-1)[:3] = torch.tensor([-0.0, 0.0, -1e-30])
    return layer.to(memory_format=memory_format)


def made(layer: SignedConv2d, firmness: Tensor | None) -> Tensor:
    on_device = None if firmness is None else firmness.to(DEVICE)
    return signs_kernel.used_weight(layer.weight.detach().to(DEVICE), layer.entries, on_device).cpu()


@pytest.mark.parametrize("size", ["8%", "25%", "40%", "99%"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_kernel_makes_what_the_operations_make(size: str, kernel: int, memory_format: torch.memory_format) -> None:
    layer = layer_of(size, kernel, memory_format)
    assert signs_kernel.usable(layer.weight.to(DEVICE), layer.entries)
    shared = layer.shared_weight()
    weight = made(layer, None)
    assert torch.equal(weight, shared)
    assert torch.equal(torch.signbit(weight), torch.signbit(shared))  # also of zeros
    assert weight.stride() == layer.weight.stride()
    assert torch.equal(made(layer, torch.tensor(1.0)), shared)
    assert torch.equal(made(layer, torch.tensor(0.0)), layer.weight)
    for firmness in (0.3, 0.5, 0.8):
        between = shared.lerp(layer.weight.detach(), 1 - firmness)
        torch.testing.assert_close(made(layer, torch.tensor(firmness)), between, rtol=1e-6, atol=1e-9)


def test_what_the_kernel_cannot_make_is_left_to_the_operations() -> None:
    weight = torch.randn(16, 6, 3, 3, device=DEVICE)
    assert signs_kernel.usable(weight, 216)
    assert not signs_kernel.usable(weight.double(), 216)
    assert not signs_kernel.usable(weight.bfloat16(), 216)
    assert not signs_kernel.usable(weight, 13)  # more laps than a program should make alone
    assert not signs_kernel.usable(weight.transpose(0, 1), 216)
    assert not fused.usable(torch.device("meta"))
