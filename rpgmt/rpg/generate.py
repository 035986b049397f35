"""weight = scale · sign · bank[entry], and the bank's exact gradient.

`generate` makes every weight of a bank's layers in one flat tensor; `fold` is its transpose, which adds the gradients of all
uses of an entry. Each is the other's derivative, so any order of differentiation works, and each gives the same bits every
time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rpgmt.rpg.layout import Layout, Segment

__all__ = ["Layout", "Segment", "fold", "generate", "mean_squared_scales", "squared_scales"]


def generate(bank: Tensor, layout: Layout, dtype: torch.dtype | None = None, segment: int | None = None) -> Tensor:
    """All weights of a bank's layers, or those of one, scaled.

    Args:
        bank: (N,) entries.
        layout: The layers' segments.
        dtype: Of the weights; the bank's if None. A weight is scaled as precisely as the bank is and then rounded.
        segment: The number of the one layer to make weights for.

    Returns:
        (layout.offsets[-1],) flat weights, which `layout.cut` cuts into those of the layers; or (numel,) those of the one.
    """
    return layout.on(bank.device).generate(bank, dtype or bank.dtype, segment)


def fold(flat: Tensor, layout: Layout, dtype: torch.dtype | None = None) -> Tensor:
    """The transpose of `generate`: for each bank entry the sum over its uses of scale · sign · flat[use].

    Args:
        flat: (layout.offsets[-1],), e.g. the gradients of the generated weights. Sums are of float32, or float64 for float64.
        layout: The layers' segments.
        dtype: Of the result; `flat`'s if None.

    Returns:
        (N,) sums.
    """
    return layout.on(flat.device).fold(flat, dtype or flat.dtype)


def squared_scales(layout: Layout, device: torch.device) -> Tensor:
    """(N,) sum over an entry's uses of scale²: what a change of the entry changes in the weights, squared.

    Of float64, where the device has it.
    """
    exact = torch.float32 if device.type == "mps" else torch.float64
    ones = torch.ones(layout.placement.size, dtype=exact, device=device)
    return fold(generate(ones, layout), layout)  # sign · sign = 1 for each use


def mean_squared_scales(layout: Layout, device: torch.device) -> Tensor:
    """(N,) mean over an entry's uses of scale², 1 for an entry without uses: how much steeper the loss is in that entry than it
    would be with unit scales."""
    uses = squared_scales(layout.scaled([1.0] * len(layout.segments)), device)
    return torch.where(uses > 0, squared_scales(layout, device) / uses.clamp(min=1), 1.0)
