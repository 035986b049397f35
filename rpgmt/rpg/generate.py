"""weight = scale · sign · bank[entry], and the bank's exact gradient, without atomics.

`generate` makes every weight of a bank's layers in one flat tensor; `fold` is its transpose, which adds the gradients of all
uses of an entry. Each is the other's derivative, so any order of differentiation works. `fold` *gathers*: for every lap it
fetches each entry's one gradient through the inverse placement and adds the laps in their order. Nothing is scattered, so the
result does not depend on the timing of threads.

Both take their index tables from a `Layout`: 32-bit, 8 bytes a generated weight, made once from the integer placement and
never stored with a model. A sign is folded into its index: the gather reads from [bank, -bank], entry + N being the entry with
its sign turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rpgmt.rpg.placement import Placement
from rpgmt.rpg.size import LIMIT

_ALIGN = 16  # elements: each layer's weight starts on a 64-byte boundary, as in a tensor of its own
_CHUNK = 2**18  # gradients that one gather of `fold` reads: short laps are taken together up to this many
_PLACED_AT_ONCE = 2**14  # positions for which the placement is computed at once: its temporaries stay in the cache


@dataclass(frozen=True)
class Segment:
    """One layer's share of the walk: `numel` consecutive weights, multiplied by `scale`."""

    numel: int
    scale: float


@dataclass
class Tables:
    """Index tables on one device.

    Args:
        forward: (padded,) indices into [bank, -bank] in the order of the flat weights; padding reads entry 0.
        backward: For each group of laps (laps, N) indices into [g, -g, 0], g being the group's part of the flat gradient.
        parts: For each group (start, stop) of that part.
        mean_squared_scales: (N,), made on first use.
    """

    forward: Tensor
    backward: list[Tensor]
    parts: list[tuple[int, int]]
    mean_squared_scales: Tensor | None = None


@dataclass(frozen=True)
class Layout:
    """Where the weights of one bank's layers come from, and where they lie in the flat tensor that `generate` returns.

    Args:
        placement: The bank's placement.
        segments: The layers' shares in their order on the ring.

    Raises:
        ValueError: The layers ask for 2³¹ weights or more.
    """

    placement: Placement
    segments: tuple[Segment, ...]
    _tables: dict[torch.device, Tables] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.generated >= LIMIT:
            raise ValueError(f"a bank's layers ask for {self.generated} weights: at most {LIMIT - 1} come from one bank")

    def __deepcopy__(self, memo: dict[int, Any]) -> Layout:
        return self  # immutable, and the tables are worth sharing

    def __reduce__(self) -> tuple[Any, ...]:
        return Layout, (self.placement, self.segments)  # tables are made again where they are needed

    @property
    def generated(self) -> int:
        """M, the number of generated weights."""
        return sum(segment.numel for segment in self.segments)

    @property
    def laps(self) -> int:
        """How many times the walk goes round the ring, the last time perhaps in part."""
        return -(-self.generated // self.placement.size)

    @property
    def offsets(self) -> list[int]:
        """Start of each segment in the flat tensor, and at the end the flat tensor's length."""
        offsets = [0]
        for segment in self.segments:
            offsets.append(offsets[-1] + -(-segment.numel // _ALIGN) * _ALIGN)
        return offsets

    def slices(self) -> list[int]:
        """Lengths that cut the flat tensor into weight, padding, weight, padding, …"""
        offsets = self.offsets
        return [
            length
            for segment, start, stop in zip(self.segments, offsets, offsets[1:], strict=False)
            for length in (segment.numel, stop - start - segment.numel)
        ]

    def tables(self, device: torch.device) -> Tables:
        """The index tables on `device`, made on first use.

        Raises:
            RuntimeError: They are still to be made while a compiler traces, which would take that for a part of the network.
        """
        if device not in self._tables:
            cpu = torch.device("cpu")
            if cpu not in self._tables:
                if torch.compiler.is_compiling():
                    raise RuntimeError("a bank has no index tables yet: call the model once before you compile or export it")
                self._tables[cpu] = self._build_tables()
            tables = self._tables[cpu]
            self._tables[device] = Tables(
                tables.forward.to(device), [table.to(device) for table in tables.backward], tables.parts
            )
        return self._tables[device]

    @property
    def has_tables(self) -> bool:
        """Whether index tables were made on any device."""
        return bool(self._tables)

    def scaled(self, scales: Sequence[float]) -> Layout:
        """The same layout with other scales, one a segment; it takes over the tables."""
        segments = tuple(Segment(segment.numel, scale) for segment, scale in zip(self.segments, scales, strict=True))
        tables = {device: replace(tables, mean_squared_scales=None) for device, tables in self._tables.items()}
        return Layout(self.placement, segments, tables)

    def mean_squared_scales(self, device: torch.device) -> Tensor:
        """(N,) float64 mean over an entry's uses of scale², 1 for an entry without uses: how much steeper the loss is in that
        entry than it would be with unit scales."""
        tables = self.tables(device)
        if tables.mean_squared_scales is None:
            squares = torch.zeros(self.offsets[-1], dtype=torch.float64, device=device)
            for segment, start in zip(self.segments, self.offsets, strict=False):
                squares[start : start + segment.numel] = segment.scale**2
            sums = squares.new_zeros(self.placement.size)
            uses = torch.zeros_like(sums)
            for table, (start, stop) in zip(tables.backward, tables.parts, strict=True):
                used = table < 2 * (stop - start)
                sums += (squares[start:stop][table % (stop - start)] * used).sum(0)  # the index without its sign
                uses += used.sum(0)
            tables.mean_squared_scales = torch.where(uses > 0, sums / uses.clamp(min=1), 1.0)
        return tables.mean_squared_scales

    def _build_tables(self) -> Tables:
        size, generated = self.placement.size, self.generated
        signed_indices = 2 * max(size, self.offsets[-1]) + 1  # the largest index that a table may hold
        integer = np.int32 if signed_indices < LIMIT else np.int64
        forward = np.zeros(self.offsets[-1], dtype=integer)
        laps_at_once = max(1, _CHUNK // size)
        backward, parts = [], []
        for first_lap in range(0, self.laps, laps_at_once):
            last_lap = min(first_lap + laps_at_once, self.laps)
            start, stop = first_lap * size, min(last_lap * size, generated)
            begin, end = int(self._flat(np.array([start]))[0]), int(self._flat(np.array([stop - 1]))[0]) + 1
            table = np.full((last_lap - first_lap) * size, 2 * (end - begin), dtype=integer)  # the 0: no use on this lap
            for t in _ranges(start, stop):
                lap, position = t // size, t % size
                flat = self._flat(t)
                entry, negative = self.placement.entries(lap, position), self.placement.negative(lap, position)
                forward[flat] = entry + size * negative
                table[(lap - first_lap) * size + entry] = flat - begin + (end - begin) * negative
            backward.append(torch.from_numpy(table).view(last_lap - first_lap, size))
            parts.append((begin, end))
        return Tables(torch.from_numpy(forward), backward, parts)

    def _flat(self, t: np.ndarray) -> np.ndarray:
        """Places in the flat tensor of the weights number t of the walk."""
        starts = np.cumsum([0] + [segment.numel for segment in self.segments])
        padding = np.array(self.offsets) - starts
        return t + padding[np.searchsorted(starts, t, side="right") - 1]


def _ranges(start: int, stop: int) -> list[np.ndarray]:
    return [np.arange(i, min(i + _PLACED_AT_ONCE, stop)) for i in range(start, stop, _PLACED_AT_ONCE)]


def generate(bank: Tensor, layout: Layout) -> Tensor:
    """All weights of a bank's layers, scaled.

    Args:
        bank: (N,) entries.
        layout: The layers' segments.

    Returns:
        (layout.offsets[-1],) flat weights; `layout.slices()` cuts it into the layers' weights.
    """
    tables = layout.tables(bank.device)
    return _generate(bank, tables.forward, tables.backward, *_plan(layout, tables))


def fold(flat: Tensor, layout: Layout) -> Tensor:
    """The transpose of `generate`: for each bank entry the sum over its uses of scale · sign · flat[use], lap by lap.

    Args:
        flat: (layout.offsets[-1],), e.g. the gradients of the generated weights.
        layout: The layers' segments.

    Returns:
        (N,) sums.
    """
    tables = layout.tables(flat.device)
    return _fold(flat, tables.forward, tables.backward, *_plan(layout, tables))


def _plan(layout: Layout, tables: Tables) -> tuple[list[int], list[int], list[float], list[int]]:
    """A layout as operators take it: segments' starts (with the total) and lengths, scales, and the parts' bounds."""
    return (
        layout.offsets,
        [segment.numel for segment in layout.segments],
        [segment.scale for segment in layout.segments],
        [bound for part in tables.parts for bound in part],
    )


# The two are operators of their own, so that torch.compile, export and autocast see one opaque node each. They are declared by
# `define` and `impl`: `torch.library.custom_op` imports the compiler at the first call, which takes seconds.
_PLAN = "Tensor forward, Tensor[] backward, int[] starts, int[] lengths, float[] scales, int[] parts"
torch.library.define("rpgmt::generate", f"(Tensor bank, {_PLAN}) -> Tensor")
torch.library.define("rpgmt::fold", f"(Tensor flat, {_PLAN}) -> Tensor")


@torch.library.impl("rpgmt::generate", "CompositeExplicitAutograd")
def _generate_eagerly(
    bank: Tensor,
    forward: Tensor,
    backward: list[Tensor],
    starts: list[int],
    lengths: list[int],
    scales: list[float],
    parts: list[int],
) -> Tensor:
    signed = torch.cat([bank, -bank])
    flat = bank.new_empty(starts[-1])
    # Layer by layer: the scale is applied while the weight is still in the cache.
    for start, stop, length, scale in zip(starts, starts[1:], lengths, scales, strict=False):
        flat[start + length : stop].zero_()
        weight = flat[start : start + length]
        torch.index_select(signed, 0, forward[start : start + length], out=weight)
        if scale != 1.0:
            weight.mul_(scale)
    return flat


@torch.library.impl("rpgmt::fold", "CompositeExplicitAutograd")
def _fold_eagerly(
    flat: Tensor,
    forward: Tensor,
    backward: list[Tensor],
    starts: list[int],
    lengths: list[int],
    scales: list[float],
    parts: list[int],
) -> Tensor:
    scaled = flat
    if any(scale != 1.0 for scale in scales):
        scaled = torch.empty_like(flat)  # the padding is read by no table
        for start, length, scale in zip(starts, lengths, scales, strict=False):
            torch.mul(flat[start : start + length], scale, out=scaled[start : start + length])
    size = backward[0].shape[1]
    sums = flat.new_zeros(size)
    zero = flat.new_zeros(1)
    for i, table in enumerate(backward):
        part = scaled[parts[2 * i] : parts[2 * i + 1]]
        picked = torch.cat([part, -part, zero]).index_select(0, table.flatten()).view(table.shape)
        sums += picked[0] if len(picked) == 1 else picked.sum(0)
    return sums


@torch.library.register_fake("rpgmt::generate")
def _(bank: Tensor, forward: Tensor, *plan: Any) -> Tensor:
    return bank.new_empty(forward.shape)


@torch.library.register_fake("rpgmt::fold")
def _(flat: Tensor, forward: Tensor, backward: list[Tensor], *plan: Any) -> Tensor:
    return flat.new_empty(backward[0].shape[1])


def _keep_plan(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.plan = inputs[1:]


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    """The first input's gradient, and none for the tables and the plan."""
    return gradient, None, [None] * len(ctx.plan[1]), None, None, None, None


_generate = torch.ops.rpgmt.generate.default
_fold = torch.ops.rpgmt.fold.default
torch.library.register_autograd(
    "rpgmt::generate", lambda ctx, g: _gradients(ctx, _fold(g, *ctx.plan)), setup_context=_keep_plan
)
torch.library.register_autograd(
    "rpgmt::fold", lambda ctx, g: _gradients(ctx, _generate(g, *ctx.plan)), setup_context=_keep_plan
)
