"""Generation on a GPU by the kernels of `kernels.py`, without index tables: the plan of a layout, and the kernels' launches."""

from __future__ import annotations

import contextlib
import functools
import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rpgmt.rpg.backends import kernels
from rpgmt.rpg.backends.kernels import triton
from rpgmt.rpg.backends.plan import Plan
from rpgmt.rpg.layout import Layout
from rpgmt.rpg.placement import Placement

_TILE = 256  # elements that a warp works on at a time: 8 a thread hide the latencies of arithmetic and memory
_WIDTH = 32  # of them, neighbours in a run at most: one warp-wide access
_STEPS = 4  # tiles that a forward program does one after the other, to share what is computed once
_PROGRAMS = 2048  # programs that keep a large GPU busy: a small bank's gradient is split to so many
_UNROLLED = 16  # partial sums that are in flight together

# Products and sums are rounded one by one, as they are outside of Triton.
OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}


def usable(device: torch.device) -> bool:
    """Whether the kernels run on tensors of `device`: with Triton on a GPU of ROCm or CUDA (compute capability 7.0 or more), in
    Triton's interpreter on a CPU too."""
    if triton is None:
        return False
    if not isinstance(kernels.generate_kernel, triton.JITFunction):  # but an interpreted one
        return device.type in ("cpu", "cuda")
    return device.type == "cuda" and (torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (7, 0))


@dataclass(frozen=True)
class Fused(Plan):
    """What the kernels know of L segments of the walk: all layers that draw on one bank, or one of them.

    Args:
        starts: (2, L + 1) int32: the first weight of each segment in the walk, at the end of the last; and how much later it
            lies in the flat tensor, whose segments are padded, at the end all padding.
        scales: (L,) float64.
        scales32: (L,) float32, the same for the arithmetic of banks that are not float64.
        first: Where the first segment begins on the walk: 0, or more for a layer alone.
        generated: Where the last segment ends on the walk: M, the number of generated weights, for all layers.
        length: Length of the flat tensor.
        padding: Length of the longest padding behind a segment.
        placement: N, seed, the bank's number, and block.
    """

    starts: Tensor
    scales: Tensor
    scales32: Tensor
    first: int
    generated: int
    length: int
    padding: int
    placement: list[int]

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> Fused:
        """Copies a few numbers of each layer to a device."""
        shifts = [offset - start for offset, start in zip(layout.offsets, layout.starts, strict=True)]
        place = layout.placement
        return cls(
            torch.tensor([layout.starts, shifts], dtype=torch.int32).to(device),
            torch.tensor(layout.scales, dtype=torch.float64).to(device),
            torch.tensor(layout.scales, dtype=torch.float32).to(device),
            0,
            layout.generated,
            layout.offsets[-1],
            max((after - before for before, after in itertools.pairwise(shifts)), default=0),
            [place.size, place.seed, place.bank, place.block],
        )

    def rescaled(self, layout: Layout) -> Fused:
        return Fused.of(layout, self.starts.device)

    def alone(self, layout: Layout) -> list[Plan]:
        rows = [[[start, stop], [-start, -start]] for start, stop in itertools.pairwise(layout.starts)]
        singles = torch.tensor(rows, dtype=torch.int32).to(self.starts.device)
        return [
            replace(
                self,
                starts=singles[i],
                scales=self.scales[i : i + 1],
                scales32=self.scales32[i : i + 1],
                first=layout.starts[i],
                generated=layout.starts[i + 1],
                length=length,
                padding=0,
            )
            for i, length in enumerate(layout.lengths)
        ]

    @property
    def sizes(self) -> tuple[int, int]:
        return self.length, self.placement[0]

    def generate(self, bank: Tensor, dtype: torch.dtype) -> Tensor:
        flat = bank.new_empty(self.length, dtype=dtype)
        if not self.length:
            return flat
        launch, scales = _launch(*self.placement), self._scales(bank.dtype)
        steps = min(_STEPS, triton.cdiv(launch.runs, launch.tile))
        first_lap, last_lap = self.first // launch.size, (self.generated - 1) // launch.size
        # Slots that reach into what the last lap makes, if the short run lies in front of it.
        slots = min(triton.cdiv(self.generated - last_lap * launch.size + launch.missing, launch.block), launch.runs)
        programs_per_lap, programs_of_last = (
            triton.cdiv(count, steps * launch.tile) * launch.chunks for count in (launch.runs, slots)
        )
        with on(bank.device):
            kernels.generate_kernel[((last_lap - first_lap) * programs_per_lap + programs_of_last,)](
                bank.contiguous(),
                flat,
                self.starts,
                scales,
                len(scales),
                self.generated,
                first_lap,
                programs_per_lap,
                launch.chunks,
                *launch.numbers,
                STEPS=steps,
                PADDING=triton.next_power_of_2(self.padding) if self.padding else 0,
                **launch.constants,
            )
        return flat

    def fold(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        launch, scales = _launch(*self.placement), self._scales(dtype)
        sums = flat.new_empty(launch.size, dtype=dtype)
        laps = triton.cdiv(self.generated, launch.size)
        tiles = triton.cdiv(launch.runs, launch.tile) * launch.chunks
        laps_per_group = triton.cdiv(laps, max(1, min(_PROGRAMS // tiles, laps)))
        groups = max(1, triton.cdiv(laps, max(1, laps_per_group)))
        partial = sums if groups == 1 else flat.new_empty(groups, launch.size, dtype=scales.dtype)
        with on(flat.device):
            kernels.fold_kernel[(tiles, groups)](
                flat.contiguous(),
                partial,
                self.starts,
                scales,
                len(scales),
                self.generated,
                laps,
                laps_per_group,
                launch.chunks,
                *launch.numbers,
                **launch.constants,
            )
            if groups > 1:
                kernels.add_groups_kernel[(triton.cdiv(launch.size, 32),)](
                    partial, sums, groups, launch.size, TILE=32, UNROLLED=_UNROLLED, **OPTIONS
                )
        return sums

    def _scales(self, bank: torch.dtype) -> Tensor:
        """Of the type to multiply and add in: that of a float64 bank, or float32."""
        return self.scales if bank == torch.float64 else self.scales32


@dataclass(frozen=True)
class _Launch:
    """How the kernels run over one placement: a tile has `tile` runs (or slots), and of each a chunk of its elements."""

    size: int
    block: int
    missing: int  # what the last run lacks of a whole one
    runs: int
    tile: int
    chunks: int
    numbers: tuple[int, ...]
    constants: dict[str, Any]


@functools.lru_cache(maxsize=1024)
def _launch(size: int, seed: int, bank: int, block: int) -> _Launch:
    block = min(block, size)  # one run either way
    missing = -size % block
    placement = Placement(size, seed, bank, block)
    runs, (a, b) = placement.runs, placement.sides
    numbers = [a, b, *_reciprocal(b), *placement.keys]
    width = min(triton.next_power_of_2(block), _WIDTH)
    tile = min(_TILE // width, triton.next_power_of_2(runs))
    # A loop also keeps the compiler from placing a run anew for each of its elements.
    constants = {"RUNS": tile, "WIDTH": width, "WALKS": a * b != runs or width > 1, "SHORT": missing > 0, **OPTIONS}
    signed = [_signed(number) for number in numbers]
    return _Launch(
        size, block, missing, runs, tile, triton.cdiv(block, width), (size, block, missing, runs, *signed), constants
    )


def _reciprocal(b: int) -> tuple[int, int]:
    """(r, s) so that x // b is (x + 1) · r >> 32 + s for all x < b · (b + 1): what r is rounded down by takes less from the
    product than the 1 adds."""
    shift = b.bit_length() - 1
    return ((1 << 32 + shift) - 1) // b, shift


def _signed(word: int) -> int:
    """The 32-bit word as an int32, as which Triton passes small integers."""
    return word - (1 << 32) if word >= 1 << 31 else word


def on(device: torch.device) -> Any:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
