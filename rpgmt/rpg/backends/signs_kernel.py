"""Weights with learned signs as one Triton kernel for all layers: what a GPU runs for the operations of `learned_signs.py`.

Layers are small: a kernel for each made the forward pass of a large network twice as long (RESULTS.md, "Time of a training
step").
"""

# Kernels are written in Triton's dialect, whose values have no Python types.
# mypy: disallow-untyped-defs=False

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rpgmt.rpg.backends import fused
from rpgmt.rpg.backends.kernels import jit, tl, triton

_TILE = 128  # magnitudes of a program, which is one warp
_LAPS = 64  # at most: a program adds the uses of an entry one after the other
_ALIGNED = 16  # weights: a layer's begin at a multiple of so many, 32 bytes of bfloat16, since convolutions choose by alignment


def usable(free: Sequence[Tensor], entries: Sequence[int], firmness: Sequence[Tensor | None]) -> bool:
    """Whether the kernel makes these layers' weights; see `fused.usable` for the devices. Arguments as of `used_weights`."""
    device = free[0].device
    if not fused.usable(device) or (device.type == "cuda" and not isinstance(used_weights_kernel, triton.JITFunction)):
        return False  # Triton's interpreter copies a GPU's tensors to the host, where the addresses in the table are none
    return all(
        type(weight) is Tensor  # others have no address
        and weight.device == device
        and weight.dtype == torch.float32
        and weight.numel() <= _LAPS * count
        and weight.numel() + count + _TILE < 2**31
        and (weight.is_contiguous() or weight.is_contiguous(memory_format=torch.channels_last))
        and (firm is None or (type(firm) is Tensor and firm.device == device and firm.dtype == torch.float32))
        for weight, count, firm in zip(free, entries, firmness, strict=True)
    )


def used_weights(
    free: Sequence[Tensor], entries: Sequence[int], firmness: Sequence[Tensor | None], dtype: torch.dtype
) -> list[Tensor]:
    """The weights between free and shared ones, of many layers.

    Args:
        free: (outputs, inputs, height, width) float32 of each layer, without gradient, all on one device.
        entries: n, how many magnitudes each layer has.
        firmness: (), from 0 for the free weights to 1, of each layer; None is 1.
        dtype: Of the weights that are made.

    Returns:
        As large, and in the same memory formats; all are parts of one tensor.
    """
    device, firm = free[0].device, torch.ones((), device=free[0].device)
    rows, programs, length = [], 0, 0
    for weight, count, own in zip(free, entries, firmness, strict=True):
        size, places = weight.numel(), 1 if weight.is_contiguous() else weight.shape[2:].numel()
        address = (firm if own is None else own).data_ptr()
        rows.append([programs, weight.data_ptr(), address, length, count, size, weight.shape[1], places])
        programs += triton.cdiv(count, _TILE)
        length += triton.cdiv(size, _ALIGNED) * _ALIGNED
    # From pinned memory, so that the host does not wait for what the device has in its queue.
    table = torch.tensor(rows, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda").to(device, non_blocking=True)
    flat = torch.empty(length, dtype=dtype, device=device)
    with fused.on(device):
        used_weights_kernel[(programs,)](
            table, flat, len(rows), STEPS=len(rows).bit_length(), NUMBERS=len(rows[0]), TILE=_TILE, **fused.OPTIONS
        )
    return [flat.as_strided(weight.shape, weight.stride(), row[3]) for weight, row in zip(free, rows, strict=True)]


@jit
def _address(t, inputs, places):
    """Where weight t of the order (output, input, place) lies; channels last, memory has (output, place, input)."""
    row, place = t // places, t % places
    return (row // inputs * places + place) * inputs + row % inputs


@jit
def used_weights_kernel(table, flat, layers, STEPS: tl.constexpr, NUMBERS: tl.constexpr, TILE: tl.constexpr):
    """A program makes the uses of TILE magnitudes of one layer, of which there are up to one a lap.

    `table` has a row of NUMBERS for each layer, see `used_weights`; a program's is the last that begins no later than it does.
    """
    program, layer, end = tl.program_id(0), 0, layers
    for _ in range(STEPS):
        middle = (layer + end) // 2
        begun = tl.load(table + middle * NUMBERS) <= program
        layer, end = tl.where(begun, middle, layer), tl.where(begun, end, middle)
    row = table + layer * NUMBERS
    free = tl.load(row + 1).to(tl.pointer_type(tl.float32))
    part = 1.0 - tl.load(tl.load(row + 2).to(tl.pointer_type(tl.float32)))
    used = flat + tl.load(row + 3)
    entries, weights = tl.load(row + 4).to(tl.int32), tl.load(row + 5).to(tl.int32)
    inputs, places = tl.load(row + 6).to(tl.int32), tl.load(row + 7).to(tl.int32)
    laps = (weights + entries - 1) // entries
    entry = (program - tl.load(row).to(tl.int32)) * TILE + tl.arange(0, TILE)
    total = tl.zeros([TILE], tl.float64)
    uses = tl.zeros([TILE], tl.float64)
    for lap in range(laps):
        t = lap * entries + entry
        inside = (entry < entries) & (t < weights)
        total += tl.abs(tl.load(free + _address(t, inputs, places), mask=inside, other=0.0)).to(tl.float64)
        uses += inside.to(tl.float64)
    magnitude = (total / tl.maximum(uses, 1.0)).to(tl.float32)
    for lap in range(laps):
        t = lap * entries + entry
        inside = (entry < entries) & (t < weights)
        at = _address(t, inputs, places)
        weight = tl.load(free + at, mask=inside, other=0.0)
        shared = tl.where(weight.to(tl.int32, bitcast=True) < 0, -magnitude, magnitude)
        # From the nearer end, so that both ends are met exactly.
        between = tl.where(part < 0.5, shared + part * (weight - shared), weight - (1.0 - part) * (weight - shared))
        tl.store(used + at, tl.where(part == 0.0, shared, between), mask=inside)
