"""Generation with PyTorch's own operations, from index tables that are made once for a device.

There are two kinds of tables. `IndexTables` hold one 32-bit index a weight. A sign is folded into the index: weights are
gathered from [bank, -bank], entry + N being the entry with its sign turned. `RunTables` serve placements that move whole runs
of neighbours: one index a run, and one bit a weight for its sign.

Both gradients add the uses of an entry in the order of the walk, in one thread or lap by lap, so they repeat bit for bit.
Nothing of the tables is stored with a model.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rpgmt.rpg.size import LIMIT

if TYPE_CHECKING:
    from rpgmt.rpg.layout import Layout

_PLACED_AT_ONCE = 2**14  # positions for which the placement is computed at once: its temporaries stay in the cache
_AT_ONCE = 2**17  # weights that are worked on at once: they stay in the cache, and are enough for two threads
_SHORTEST_RUN = 16  # copying shorter runs one by one takes longer than gathering their weights
_SHORTEST_LAP = 2**14  # shorter laps that a short run cuts up are too many pieces


@dataclass(frozen=True)
class IndexTables:
    """One index a weight.

    Args:
        layout: What is generated.
        entries: (flat length,) indices into [bank, -bank, 0]; padding reads the 0.
    """

    layout: Layout
    entries: Tensor

    @property
    def bytes(self) -> int:
        """Memory that the tables take."""
        return self.entries.nbytes

    def rescaled(self, layout: Layout) -> IndexTables:
        """The same for a layout that differs in scales."""
        return replace(self, layout=layout)

    def to(self, device: torch.device) -> IndexTables:
        """The same on another device."""
        return replace(self, entries=self.entries.to(device))

    def generate(self, bank: Tensor, dtype: torch.dtype, segment: int | None = None) -> Tensor:
        """See `rpgmt.rpg.generate.generate`."""
        layout = self.layout
        if segment is None:
            plan = (layout.offsets, layout.lengths, layout.scales)
            return _generate(bank, self.entries, layout.placement.size, *plan, dtype)
        start, length = layout.offsets[segment], layout.lengths[segment]
        entries = self.entries[start : start + length]
        return _generate(bank, entries, layout.placement.size, [0, length], [length], [layout.scales[segment]], dtype)

    def fold(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        """See `rpgmt.rpg.generate.fold`."""
        layout = self.layout
        plan = (layout.offsets, layout.lengths, layout.scales)
        return _fold(flat, self.entries, layout.placement.size, *plan, dtype)


@dataclass(frozen=True)
class RunTables:
    """One index a run, one bit a weight.

    Args:
        layout: What is generated.
        runs: (full runs on the walk,) which of the bank's full runs comes; they are `block` entries long.
        signs: (⌈M/32⌉,) int32; bit k of word w is set where weight 32 w + k of the walk has its sign turned.
        shorts: Places on the walk where the bank's last, shorter run begins; empty if N is a multiple of `block`.
    """

    layout: Layout
    runs: Tensor
    signs: Tensor
    shorts: list[int]

    @property
    def bytes(self) -> int:
        """Memory that the tables take."""
        return self.runs.nbytes + self.signs.nbytes

    def rescaled(self, layout: Layout) -> RunTables:
        """The same for a layout that differs in scales."""
        return replace(self, layout=layout)

    def to(self, device: torch.device) -> RunTables:
        """The same on another device."""
        return replace(self, runs=self.runs.to(device), signs=self.signs.to(device))

    def generate(self, bank: Tensor, dtype: torch.dtype, segment: int | None = None) -> Tensor:
        """See `rpgmt.rpg.generate.generate`."""
        layout = self.layout
        if segment is None:
            return _generate_runs(bank, *self._plan(0, layout.offsets, layout.lengths, layout.scales), dtype)
        length = layout.lengths[segment]
        plan = self._plan(layout.starts[segment], [0, length], [length], [layout.scales[segment]])
        return _generate_runs(bank, *plan, dtype)

    def fold(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        """See `rpgmt.rpg.generate.fold`."""
        return _fold_runs(flat, *self._plan(0, self.layout.offsets, self.layout.lengths, self.layout.scales), dtype)

    def _plan(self, first: int, offsets: list[int], lengths: list[int], scales: list[float]) -> tuple[Any, ...]:
        placement = self.layout.placement
        walk = (self.runs, self.signs, self.shorts, placement.block, first)
        return (*walk, placement.size, offsets, lengths, scales)


Tables = IndexTables | RunTables


def build(layout: Layout) -> Tables:
    """The tables of a layout, on the CPU."""
    size, block = layout.placement.size, layout.placement.block
    if layout.generated and _SHORTEST_RUN <= block <= size and (size % block == 0 or size >= _SHORTEST_LAP):
        return _build_runs(layout)
    return _build_indices(layout)


def _build_indices(layout: Layout) -> IndexTables:
    placement, size = layout.placement, layout.placement.size
    largest = 2 * size
    entries = np.full(layout.offsets[-1], largest, dtype=np.int32 if largest < LIMIT else np.int64)
    for segment, (begin, end) in enumerate(pairwise(layout.starts)):
        padding = layout.offsets[segment] - begin
        for start, stop in _ranges(begin, end):
            t = np.arange(start, stop)
            lap, position = t // size, t % size
            signed = placement.entries(lap, position) + size * placement.negative(lap, position)
            entries[start + padding : stop + padding] = signed
    return IndexTables(layout, torch.from_numpy(entries))


def _build_runs(layout: Layout) -> RunTables:
    placement, size, block, generated = layout.placement, layout.placement.size, layout.placement.block, layout.generated
    full, remainder = divmod(size, block)
    runs, shorts = [], []
    if not remainder:
        for start, stop in _ranges(0, -(-generated // block)):
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
    for start, stop in _ranges(0, generated):
        t = np.arange(start, stop)
        signs[start:stop] = placement.negative(t // size, t % size)
    words = np.packbits(signs, bitorder="little").view("<i4").astype(np.int32)
    return RunTables(layout, torch.from_numpy(np.concatenate(runs)), torch.from_numpy(words), shorts)


def _ranges(start: int, stop: int) -> Iterator[tuple[int, int]]:
    return ((i, min(i + _PLACED_AT_ONCE, stop)) for i in range(start, stop, _PLACED_AT_ONCE))


def transposes(
    name: str,
    plan: str,
    generate: Callable[..., Tensor],
    fold: Callable[..., Tensor],
    lengths: Callable[..., tuple[int, int]],
) -> tuple[Any, Any]:
    """Declares `rpgmt::generate<name>` and `rpgmt::fold<name>`, of which each is the other's derivative.

    They are operators of their own, so that torch.compile, export and autocast see one opaque node each. They are declared by
    `define` and `impl`: `torch.library.custom_op` imports the compiler at the first call, which takes seconds.

    Args:
        name: What tells them from others.
        plan: Their schema between the tensor that they take and `ScalarType dtype`, the type of their result.
        generate: Bank (N,), plan, dtype → flat weights, on any device.
        fold: Flat weights, plan, dtype → (N,), on any device.
        lengths: Plan → the number of flat weights, and N.

    Returns:
        The two operators.
    """
    names = f"rpgmt::generate{name}", f"rpgmt::fold{name}"
    for own, taken, kernel, i in zip(names, ("bank", "flat"), (generate, fold), (0, 1), strict=True):
        torch.library.define(own, f"(Tensor {taken}, {plan}, ScalarType dtype) -> Tensor")
        torch.library.impl(own, "CompositeExplicitAutograd", kernel)
        torch.library.register_fake(own, lambda x, *plan, i=i: x.new_empty(lengths(*plan[:-1])[i], dtype=plan[-1]))
    operators = tuple(getattr(torch.ops.rpgmt, own.split("::")[1]).default for own in names)

    def keep_plan(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.plan = (*inputs[1:-1], inputs[0].dtype)

    for own, other in zip(names, reversed(operators), strict=True):
        torch.library.register_autograd(
            own, lambda ctx, g, other=other: (other(g, *ctx.plan), *[None] * len(ctx.plan)), setup_context=keep_plan
        )
    return operators


_LAYERS = "int size, int[] offsets, int[] lengths, float[] scales"


def _lengths(*plan: Any) -> tuple[int, int]:
    *_, size, offsets, _, _ = plan
    return offsets[-1], size


def _accurate(dtype: torch.dtype) -> torch.dtype:
    """The type to scale and add in."""
    return dtype if dtype == torch.float64 else torch.float32


# ---- one index a weight


def _gather(
    bank: Tensor,
    entries: Tensor,
    size: int,
    offsets: list[int],
    lengths: list[int],
    scales: list[float],
    dtype: torch.dtype,
) -> Tensor:
    bank = bank.to(_accurate(bank.dtype))
    flat = bank.new_empty(offsets[-1])
    if len(flat) < size and len(flat) == sum(lengths):  # a layer alone: less work than to negate the bank
        turned = entries >= size
        torch.index_select(bank, 0, (entries - size * turned).long(), out=flat)
        flat *= 1 - 2 * turned.to(flat.dtype)  # faster than to choose
    else:
        signed = torch.cat([bank, -bank, bank.new_zeros(1)])
        # Gathers by 64-bit indices take half the time of those by 32-bit ones; in the cache, widening costs little.
        for start in range(0, len(flat), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            torch.index_select(signed, 0, entries[part].long(), out=flat[part])
    _scale(flat, offsets, lengths, scales)
    return flat.to(dtype)  # rounded once


def _scatter(
    flat: Tensor,
    entries: Tensor,
    size: int,
    offsets: list[int],
    lengths: list[int],
    scales: list[float],
    dtype: torch.dtype,
) -> Tensor:
    sums = flat.new_zeros(2 * size + 1, dtype=_accurate(flat.dtype))
    # A CPU adds in order; others in any, but within a lap no two weights have one entry.
    cuts = range(0, len(flat), _AT_ONCE) if flat.device.type == "cpu" else _laps(size, offsets, lengths)
    for start, stop in pairwise([*cuts, len(flat)]):
        scaled = sums.new_empty(stop - start)
        _scaled(flat, start, stop, offsets, offsets, lengths, scales, scaled)
        sums.scatter_add_(0, entries[start:stop].long(), scaled)
    return (sums[:size] - sums[size:-1]).to(dtype)


def _laps(size: int, offsets: list[int], lengths: list[int]) -> list[int]:
    """Where laps begin in the flat tensor."""
    begins = list(accumulate(lengths, initial=0))
    return [offsets[i := bisect_right(begins, t) - 1] + t - begins[i] for t in range(0, begins[-1], size)]


def _scaled(
    flat: Tensor,
    start: int,
    stop: int,
    places: list[int],
    offsets: list[int],
    lengths: list[int],
    scales: list[float],
    out: Tensor,
) -> None:
    """Writes elements `start` to `stop` of a flat tensor, scaled; padding is left as it is.

    `places` says where segments begin as `start` and `stop` count: `offsets` for the flat tensor, starts for the walk.
    """
    for i in range(bisect_right(places, start) - 1, bisect_left(places, stop)):
        low, high = max(start, places[i]), min(stop, places[i] + lengths[i])
        if low < high:
            padding = offsets[i] - places[i]
            torch.mul(flat[low + padding : high + padding].to(out.dtype), scales[i], out=out[low - start : high - start])


def _scale(flat: Tensor, offsets: list[int], lengths: list[int], scales: list[float]) -> None:
    parts = [(flat[start : start + n], s) for start, n, s in zip(offsets, lengths, scales, strict=False) if s != 1.0]
    if parts:
        torch._foreach_mul_([weight for weight, _ in parts], [scale for _, scale in parts])


_generate, _fold = transposes("", f"Tensor entries, {_LAYERS}", _gather, _scatter, _lengths)


# ---- one index a run, one bit a weight


def _gather_runs(
    bank: Tensor,
    runs: Tensor,
    signs: Tensor,
    shorts: list[int],
    block: int,
    first: int,
    size: int,
    offsets: list[int],
    lengths: list[int],
    scales: list[float],
    dtype: torch.dtype,
) -> Tensor:
    begin, end = first, first + sum(lengths)
    values = bank.to(_accurate(bank.dtype))
    rows, short = _rows(values, block)
    # Runs that begin before or end behind what is wanted are written whole, into a margin.
    margin = -(-block // 16) * 16
    walk = values.new_empty(end - begin + 2 * margin)
    origin = begin - margin
    for place, row, count in _pieces(shorts, block, size % block, 0, end, 0):
        low, high = max(0, (begin - place) // block), min(count, -(-(end - place) // block))
        if low < high:
            target = walk[place + low * block - origin : place + high * block - origin].view(-1, block)
            torch.index_select(rows, 0, runs[row + low : row + high], out=target)
    for place in shorts:
        if begin < place + len(short) and place < end:
            walk[place - origin : place - origin + len(short)] = short
    walk = walk[margin : margin + end - begin]
    _turn_signs(walk, signs, first)
    if offsets[-1] == len(walk):
        flat = walk
        _scale(flat, offsets, lengths, scales)
    else:
        flat = walk.new_zeros(offsets[-1])
        for part, offset, length, scale in zip(walk.split_with_sizes(lengths), offsets, lengths, scales, strict=False):
            torch.mul(part, scale, out=flat[offset : offset + length])
    return flat.to(dtype)  # rounded once


def _scatter_runs(
    flat: Tensor,
    runs: Tensor,
    signs: Tensor,
    shorts: list[int],
    block: int,
    first: int,
    size: int,
    offsets: list[int],
    lengths: list[int],
    scales: list[float],
    dtype: torch.dtype,
) -> Tensor:
    end, full, remainder = sum(lengths), size // block, size % block
    sums = flat.new_zeros(size, dtype=_accurate(flat.dtype))
    rows, short = _rows(sums, block)
    # Some laps at a time, in memory that stays warm; one where the order of adding is not that of the laps.
    span = max(1, _AT_ONCE // size if flat.device.type == "cpu" else 1) * size
    buffer, once = sums.new_empty(min(span, end) + block), torch.empty_like(rows)
    begins = list(accumulate(lengths, initial=0))
    for start in range(0, end, span):
        stop = min(start + span, end)
        walk = buffer[: stop - start]
        _scaled(flat, start, stop, begins, offsets, lengths, scales, walk)
        _turn_signs(walk, signs, start)
        buffer[stop - start : stop - start + block] = 0  # the last run may be cut off by the end
        here = shorts[bisect_left(shorts, start) : bisect_left(shorts, stop)]
        single = span == size  # no run comes twice: copying is faster than adding
        if single and stop - start < size:
            once.zero_()
        for place, row, count in _pieces(here, block, remainder, start, stop, start // size * full):
            part = buffer[place - start : place - start + count * block].view(-1, block)
            (once.index_copy_ if single else rows.index_add_)(0, runs[row : row + count], part)
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
    for start in range(0, len(walk), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(walk))
        low, high = (first + start) // 32, -(-(first + stop) // 32)
        marks = (signs[low:high, None].to(integer) << shifts).bitwise_and_(sign_bit).flatten()
        skipped = first + start - 32 * low
        bits[start:stop] ^= marks[skipped : skipped + stop - start]


_RUNS = "Tensor runs, Tensor signs, int[] shorts, int block, int first"
_generate_runs, _fold_runs = transposes("_runs", f"{_RUNS}, {_LAYERS}", _gather_runs, _scatter_runs, _lengths)
