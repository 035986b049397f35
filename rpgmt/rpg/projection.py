"""The entries of a bank that make given weights: exactly, or as nearly as they can."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rpgmt.rpg.generate import ParameterGenerator
from rpgmt.rpg.placement import Placement


def exact_entries(placement: Placement, weights: Sequence[Tensor], like: Tensor) -> Tensor:
    """(N,) entries that make `weights`, one after the other, with unit scale; 0 for the others. N is at least their number."""
    entries = torch.zeros_like(like)
    flat = torch.cat([weight.detach().flatten() for weight in weights]).to(entries)
    position = torch.arange(len(flat))
    lap = torch.zeros(1, dtype=torch.int64)
    entry = placement.entries(lap, position).to(flat.device)
    sign = (1 - 2 * placement.negative(lap, position)).to(flat)
    entries[entry] = flat * sign
    return entries


def nearest_entries(generator: ParameterGenerator, weights: Sequence[Tensor], device: torch.device) -> Tensor:
    """(N,) float64 entries that make what is nearest to `weights`, one for each segment.

    With the layers' scales as they are, Σ (scale · sign · entry - weight)² is least where each entry is
    (Σ scale · sign · weight) / (Σ scale²), both sums over its uses. An entry without uses becomes 0.
    """
    layout = generator.layout
    flat = torch.zeros(layout.offsets[-1], dtype=torch.float64, device=device)
    for piece, weight in zip(layout.cut(flat), weights, strict=True):
        piece.copy_(weight.detach().flatten())
    squares = generator.squared_scales(device)
    return torch.where(squares > 0, generator.fold(flat) / squares, 0.0)
