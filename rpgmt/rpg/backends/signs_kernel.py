"""Weights with learned signs as one Triton kernel a layer: what a GPU runs in place of the operations of `learned_signs.py`."""

# Kernels are written in Triton's dialect, whose values have no Python types.
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
from torch import Tensor

from rpgmt.rpg.backends import fused
from rpgmt.rpg.backends.kernels import jit, tl, triton

_TILE = 128  # magnitudes of a program, which is one warp
_LAPS = 64  # at most: a program adds the uses of an entry one after the other


def usable(free: Tensor, entries: int) -> bool:
    """Whether the kernel makes these weights; see `fused.usable` for the devices."""
    return (
        free.dtype == torch.float32
        and free.numel() <= min(_LAPS * entries, 2**31 - 1)
        and (free.is_contiguous() or free.is_contiguous(memory_format=torch.channels_last))
        and fused.usable(free.device)
    )


def used_weight(free: Tensor, entries: int, firmness: Tensor | None) -> Tensor:
    """The weights between free and shared ones.

    Args:
        free: (outputs, inputs, height, width) float32, without gradient.
        entries: n, how many magnitudes there are.
        firmness: (), from 0 for the free weights to 1; None is 1.

    Returns:
        As large, and in the same memory format.
    """
    used = torch.empty_like(free)
    places = 1 if free.is_contiguous() else free[0, 0].numel()
    with fused.on(free.device):
        used_weight_kernel[(triton.cdiv(entries, _TILE),)](
            free,
            used,
            firmness,
            entries,
            free.numel(),
            triton.cdiv(free.numel(), entries),
            free.shape[1],
            PLACES=places,
            FIRM=firmness is None,
            TILE=_TILE,
            **fused.OPTIONS,
        )
    return used


@jit
def _address(t, inputs, PLACES: tl.constexpr):
    """Where weight t of the order (output, input, place) lies; channels last, memory has (output, place, input)."""
    if PLACES == 1:
        return t
    row, place = t // PLACES, t % PLACES
    return (row // inputs * PLACES + place) * inputs + row % inputs


@jit
def used_weight_kernel(
    free, used, firmness, entries, weights, laps, inputs, PLACES: tl.constexpr, FIRM: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """A program makes the uses of TILE magnitudes, of which there are up to one a lap."""
    entry = tl.program_id(0) * TILE + tl.arange(0, TILE)
    total = tl.zeros([TILE], tl.float64)
    uses = tl.zeros([TILE], tl.float64)
    for lap in range(laps):
        t = lap * entries + entry
        inside = (entry < entries) & (t < weights)
        total += tl.abs(tl.load(free + _address(t, inputs, PLACES), mask=inside, other=0.0)).to(tl.float64)
        uses += inside.to(tl.float64)
    magnitude = (total / tl.maximum(uses, 1.0)).to(tl.float32)
    part = 0.0 if FIRM else 1.0 - tl.load(firmness)
    for lap in range(laps):
        t = lap * entries + entry
        inside = (entry < entries) & (t < weights)
        at = _address(t, inputs, PLACES)
        weight = tl.load(free + at, mask=inside, other=0.0)
        shared = tl.where(weight.to(tl.int32, bitcast=True) < 0, -magnitude, magnitude)
        if not FIRM:  # from the nearer end, so that both ends are met exactly
            shared = tl.where(part < 0.5, shared + part * (weight - shared), weight - (1.0 - part) * (weight - shared))
        tl.store(used + at, shared, mask=inside)
