"""Generation with PyTorch's own operations, from one 32-bit index a weight.

A sign is folded into the index: weights are gathered from [bank, -bank], entry + N being the entry with its sign turned. The
gradient adds the uses of an entry in the order of the walk, in one thread or lap by lap, so it repeats bit for bit. Tables are
made once for a device, and nothing of them is stored with a model.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from rpgmt.rpg.backends import scaling
from rpgmt.rpg.backends.plan import Plan
from rpgmt.rpg.layout import Layout
from rpgmt.rpg.size import LIMIT


@dataclass(frozen=True)
class IndexTables(Plan):
    """One index a weight.

    Args:
        entries: (flat length,) indices into [bank, -bank, 0]; padding reads the 0.
        size: N.
        offsets: Place of each segment in the flat tensor, and at the end the flat tensor's length.
        lengths: Weights of each segment.
        scales: Scale of each segment.
    """

    entries: Tensor
    size: int
    offsets: list[int]
    lengths: list[int]
    scales: list[float]

    @classmethod
    def of(cls, layout: Layout) -> IndexTables:
        """The tables of a layout, on the CPU."""
        placement, size = layout.placement, layout.placement.size
        largest = 2 * size
        entries = np.full(layout.offsets[-1], largest, dtype=np.int32 if largest < LIMIT else np.int64)
        for segment, (begin, end) in enumerate(pairwise(layout.starts)):
            padding = layout.offsets[segment] - begin
            for start, stop in scaling.ranges(begin, end):
                t = np.arange(start, stop)
                lap, position = t // size, t % size
                signed = placement.entries(lap, position) + size * placement.negative(lap, position)
                entries[start + padding : stop + padding] = signed
        return cls(torch.from_numpy(entries), size, layout.offsets, layout.lengths, layout.scales)

    def to(self, device: torch.device) -> IndexTables:
        """The same on another device."""
        return replace(self, entries=self.entries.to(device))

    def rescaled(self, layout: Layout) -> IndexTables:
        return replace(self, scales=layout.scales)

    def alone(self, layout: Layout) -> list[Plan]:
        segments = zip(self.offsets, self.lengths, self.scales, strict=False)
        return [IndexTables(self.entries[at : at + n], self.size, [0, n], [n], [scale]) for at, n, scale in segments]

    @property
    def sizes(self) -> tuple[int, int]:
        return self.offsets[-1], self.size

    def generate(self, bank: Tensor, dtype: torch.dtype) -> Tensor:
        entries, size = self.entries, self.size
        bank = bank.to(scaling.accurate(bank.dtype))
        flat = bank.new_empty(self.offsets[-1])
        if len(flat) < size and len(flat) == sum(self.lengths):  # a layer alone: less work than to negate the bank
            turned = entries >= size
            torch.index_select(bank, 0, (entries - size * turned).long(), out=flat)
            flat *= 1 - 2 * turned.to(flat.dtype)  # faster than to choose
        else:
            signed = torch.cat([bank, -bank, bank.new_zeros(1)])
            # Gathers by 64-bit indices take half the time of those by 32-bit ones; in the cache, widening costs little.
            for start in range(0, len(flat), scaling.AT_ONCE):
                part = slice(start, start + scaling.AT_ONCE)
                torch.index_select(signed, 0, entries[part].long(), out=flat[part])
        scaling.scale_in_place(flat, self.offsets, self.lengths, self.scales)
        return flat.to(dtype)  # rounded once

    def fold(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        size, offsets = self.size, self.offsets
        sums = flat.new_zeros(2 * size + 1, dtype=scaling.accurate(flat.dtype))
        # A CPU adds in order; others in any, but within a lap no two weights have one entry.
        cuts = range(0, len(flat), scaling.AT_ONCE) if flat.device.type == "cpu" else self.laps()
        for start, stop in pairwise([*cuts, len(flat)]):
            scaled = sums.new_empty(stop - start)
            scaling.write_scaled(flat, start, stop, offsets, offsets, self.lengths, self.scales, scaled)
            sums.scatter_add_(0, self.entries[start:stop].long(), scaled)
        return (sums[:size] - sums[size:-1]).to(dtype)

    def laps(self) -> list[int]:
        """Where laps begin in the flat tensor."""
        begins = list(accumulate(self.lengths, initial=0))
        return [self.offsets[i := bisect_right(begins, t) - 1] + t - begins[i] for t in range(0, begins[-1], self.size)]
