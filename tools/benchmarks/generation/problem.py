"""What is timed: a way to make a network's weights, and the problem that all ways are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rpgmt.rpg.generate import ParameterGenerator
from rpgmt.rpg.layout import Layout, Segment
from rpgmt.rpg.placement import Placement


@dataclass
class Kind:
    """One way to make a network's weights and to bring their gradients back to the bank.

    Attributes:
        name: as the table calls it.
        forward: makes the weights.
        backward: takes what `forward` returned, and adds to the bank's gradient.
        table_bytes: what must lie in memory beside the bank.
        build_seconds: what it takes to make that; None for what is given ready-made.
    """

    name: str
    forward: Callable[[], Any]
    backward: Callable[[Any], None]
    table_bytes: int = 0
    build_seconds: float | None = None


class Problem:
    """A bank, the layers that it makes, and the gradients that come back: the same for all kinds.

    Args:
        size: N, the bank's entries.
        segments: the layers' weights and scales.
        dtype: of the generated weights and their gradients; the bank is float32.
        device: where all of it lies.

    Attributes:
        bank: (N,) leaf with a gradient to add to.
        gradient: (padded M,) gradients of the flat weights, in the layout of `generate`.
        layer_gradients: views of each layer's part of it.
    """

    def __init__(self, size: int, segments: Sequence[Segment], dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.segments, self.dtype = size, tuple(segments), dtype
        random = torch.Generator(device).manual_seed(0)
        self.bank = (0.05 * torch.randn(size, generator=random, device=device)).requires_grad_()
        self.bank.grad = torch.zeros_like(self.bank)
        self.device = self.bank.device
        offsets = self.layout(1).offsets
        self.gradient = torch.randn(offsets[-1], generator=random, device=device, dtype=dtype)
        self.layer_gradients = [self.gradient[start:][: layer.numel] for start, layer in zip(offsets, segments, strict=False)]

    @property
    def generated(self) -> int:
        """M, the number of generated weights."""
        return sum(layer.numel for layer in self.segments)

    def layout(self, block: int) -> Layout:
        """Where the weights come from."""
        return Layout(Placement(self.size, block=block), self.segments)

    def generator(self, block: int) -> ParameterGenerator:
        """A new generator, which has made nothing yet."""
        return ParameterGenerator(self.layout(block))

    def generate(self, generator: ParameterGenerator) -> Tensor:
        """The flat weights from the bank."""
        return generator.generate(self.bank, self.dtype)


def close(gradient: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether two gradients of a bank differ by no more than orders of summation do; both finite."""
    error = (gradient - other).abs().max() / other.abs().max()
    return bool(error < (1e-4 if dtype == torch.float32 else 2**-7))


def gradient_of(bank: Tensor, backward: Callable[[], None]) -> Tensor:
    """What `backward` adds to the bank's gradient."""
    assert bank.grad is not None
    kept, bank.grad = bank.grad, torch.zeros_like(bank)
    backward()
    found, bank.grad = bank.grad, kept
    assert found is not None
    return found
