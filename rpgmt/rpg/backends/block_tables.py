"""Generation with PyTorch's own operations, from one index a run and one bit a weight.

The tables serve placements that move whole runs of neighbours. The gradient adds the uses of an entry in the order of the walk,
in one thread or lap by lap, so it repeats bit for bit. Tables are made once for a device, and nothing of them is stored with a
model.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from rpgmt.rpg.backends import scaling
from rpgmt.rpg.backends.plan import Plan
from rpgmt.rpg.layout import Layout

_SHORTEST_RUN = 16  # copying shorter runs one by one takes longer than gathering their weights
_SHORTEST_LAP = 2**14  # shorter laps that a short run cuts up are too many pieces


def are_faster(layout: Layout) -> bool:
    """Whether these tables serve a layout better than one index a weight."""
    size, block = layout.placement.size, layout.placement.block
    return layout.generated > 0 and _SHORTEST_RUN <= block <= size and (size % block == 0 or size >= _SHORTEST_LAP)


@dataclass(frozen=True)
class RunTables(Plan):
    """One index a run, one bit a weight.

    Args:
        runs: (full runs on the walk,) which of the bank's full runs comes; they are `block` entries long.
        signs: (⌈M/32⌉,) int32; bit k of word w is set where weight 32 w + k of the walk has its sign turned.
        shorts: Places on the walk where the bank's last, shorter run begins; empty if N is a multiple of `block`.
        block: Entries of a run.
        first: Where on the walk the first segment begins.
        size: N.
        offsets: Place of each segment in the flat tensor, and at the end the flat tensor's length.
        lengths: Weights of each segment.
        scales: Scale of each segment.
    """

    runs: Tensor
    signs: Tensor
    shorts: list[int]
    block: int
    first: int
    size: int
    offsets: list[int]
    lengths: list[int]
    scales: list[float]

    @classmethod
    def of(cls, layout: Layout) -> RunTables:
        """The tables of a layout, on the CPU."""
        placement, generated = layout.placement, layout.generated
        size, block = placement.size, placement.block
        full, remainder = divmod(size, block)
        runs, shorts = [], []
        if not remainder:
            for start, stop in scaling.ranges(0, -(-generated // block)):
                first = np.arange(start, stop) * block
                runs.append(placement.entries(first // size, first % size) // block)
        for lap in range(layout.laps if remainder else 0):
            # Where the short run comes, slots behind it begin earlier; `entries` is asked for each slot's first position.
            short = int(placement.positions(np.array([lap]), np.array([full * block]))[0]) // block
            slot = np.arange(full + 1)
            first = slot * block - (slot > short) * (block - remainder)
            first = first[first + lap * size < generated]
            run = placement.entries(np.full(1, lap), first) // block
            if short < len(run):
                shorts.append(lap * size + short * block)
                run = np.delete(run, short)
            runs.append(run)
        signs = np.zeros(-(-generated // 32) * 32, dtype=bool)
        for start, stop in scaling.ranges(0, generated):
            t = np.arange(start, stop)
            signs[start:stop] = placement.negative(t // size, t % size)
        words = np.packbits(signs, bitorder="little").view("<i4").astype(np.int32)
        walk = torch.from_numpy(np.concatenate(runs)), torch.from_numpy(words), shorts, block, 0
        return cls(*walk, size, layout.offsets, layout.lengths, layout.scales)

    def to(self, device: torch.device) -> RunTables:
        """The same on another device."""
        return replace(self, runs=self.runs.to(device), signs=self.signs.to(device))

    def rescaled(self, layout: Layout) -> RunTables:
        return replace(self, scales=layout.scales)

    def alone(self, layout: Layout) -> list[Plan]:
        segments = zip(layout.starts, self.lengths, self.scales, strict=False)
        return [replace(self, first=at, offsets=[0, n], lengths=[n], scales=[scale]) for at, n, scale in segments]

    @property
    def sizes(self) -> tuple[int, int]:
        return self.offsets[-1], self.size

    def generate(self, bank: Tensor, dtype: torch.dtype) -> Tensor:
        block, begin = self.block, self.first
        end = begin + sum(self.lengths)
        values = bank.to(scaling.accurate(bank.dtype))
        rows, short = _rows(values, block)
        # Runs that begin before or end behind what is wanted are written whole, into a margin.
        margin = -(-block // 16) * 16
        walk = values.new_empty(end - begin + 2 * margin)
        origin = begin - margin
        for place, row, count in _pieces(self.shorts, block, self.size % block, 0, end, 0):
            low, high = max(0, (begin - place) // block), min(count, -(-(end - place) // block))
            if low < high:
                target = walk[place + low * block - origin : place + high * block - origin].view(-1, block)
                torch.index_select(rows, 0, self.runs[row + low : row + high], out=target)
        for place in self.shorts:
            if begin < place + len(short) and place < end:
                walk[place - origin : place - origin + len(short)] = short
        walk = walk[margin : margin + end - begin]
        _turn_signs(walk, self.signs, begin)
        if self.offsets[-1] == len(walk):
            flat = walk
            scaling.scale_in_place(flat, self.offsets, self.lengths, self.scales)
        else:
            flat = walk.new_zeros(self.offsets[-1])
            parts = walk.split_with_sizes(self.lengths)
            for part, offset, length, scale in zip(parts, self.offsets, self.lengths, self.scales, strict=False):
                torch.mul(part, scale, out=flat[offset : offset + length])
        return flat.to(dtype)  # rounded once

    def fold(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        size, block, shorts = self.size, self.block, self.shorts
        end, full, remainder = sum(self.lengths), size // block, size % block
        sums = flat.new_zeros(size, dtype=scaling.accurate(flat.dtype))
        rows, short = _rows(sums, block)
        # Some laps at a time, in memory that stays warm; one where the order of adding is not that of the laps.
        span = max(1, scaling.AT_ONCE // size if flat.device.type == "cpu" else 1) * size
        buffer, once = sums.new_empty(min(span, end) + block), torch.empty_like(rows)
        begins = list(accumulate(self.lengths, initial=0))
        for start in range(0, end, span):
            stop = min(start + span, end)
            walk = buffer[: stop - start]
            scaling.write_scaled(flat, start, stop, begins, self.offsets, self.lengths, self.scales, walk)
            _turn_signs(walk, self.signs, start)
            buffer[stop - start : stop - start + block] = 0  # the last run may be cut off by the end
            here = shorts[bisect_left(shorts, start) : bisect_left(shorts, stop)]
            single = span == size  # no run comes twice: copying is faster than adding
            if single and stop - start < size:
                once.zero_()
            for place, row, count in _pieces(here, block, remainder, start, stop, start // size * full):
                part = buffer[place - start : place - start + count * block].view(-1, block)
                (once.index_copy_ if single else rows.index_add_)(0, self.runs[row : row + count], part)
            if single:
                rows += once
            for place in here:
                short += buffer[place - start : place - start + remainder]
        return sums.to(dtype)


def _rows(values: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """The full runs, (runs, block), and the short one."""
    full = len(values) // block * block
    return values[:full].view(-1, block), values[full:]


def _pieces(shorts: list[int], block: int, remainder: int, begin: int, end: int, row: int) -> Iterator[tuple[int, int, int]]:
    """Stretches of full runs from `begin`, where run number `row` begins, to `end`: place, number of the first run, runs.

    Between two stretches is a short run. The last run may go beyond the end.
    """
    for stop in [*shorts, end]:
        count = max(0, -(-(stop - begin) // block))
        if count:
            yield begin, row, count
        begin, row = stop + remainder, row + count


def _turn_signs(walk: Tensor, signs: Tensor, first: int) -> None:
    """Flips the sign bits, in place, of what is marked; `walk` begins at weight `first`."""
    integer = torch.int64 if walk.dtype == torch.float64 else torch.int32
    sign_bit = torch.iinfo(integer).min
    shifts = torch.iinfo(integer).bits - 1 - torch.arange(32, dtype=integer, device=walk.device)
    bits = walk.view(integer)
    for start in range(0, len(walk), scaling.AT_ONCE):
        stop = min(start + scaling.AT_ONCE, len(walk))
        low, high = (first + start) // 32, -(-(first + stop) // 32)
        marks = (signs[low:high, None].to(integer) << shifts).bitwise_and_(sign_bit).flatten()
        skipped = first + start - 32 * low
        bits[start:stop] ^= marks[skipped : skipped + stop - start]
