"""weight = scale · sign · bank[entry] and its gradient, fused for a GPU in Triton, without index tables.

The kernels repeat the integer arithmetic of `placement.py` in 32-bit registers. The forward one walks over generated weights
and reads the bank through the placement; the backward one walks over the bank's entries and *gathers* their gradients through
the inverse placement, lap by lap. There are no atomics, and the order of every sum follows from N, M and the block alone, so
bits repeat from run to run and from GPU to GPU. What is read and written is the bank, the weights and a few numbers a layer.

A program is one warp. Where the placement walks on (see there), a tile loops until all of its elements are inside: a warp asks
that with one instruction, whereas several would meet in shared memory, and loop more often. Sizes are arguments of the kernels
and not compiled into them: all banks share a handful of compiled kernels. With TRITON_INTERPRET=1, Triton runs them on a CPU.
"""

# Kernels are written in Triton's dialect, whose values have no Python types.
# mypy: disallow-untyped-defs=False

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rpgmt.rpg.placement import Placement
from rpgmt.rpg.tables import transposes

if TYPE_CHECKING:
    from rpgmt.rpg.layout import Layout

try:
    import triton
    import triton.language as tl
except ImportError:  # there is none for macOS and Windows
    triton = tl = None

_TILE = 256  # elements that a warp works on at a time: 8 a thread hide the latencies of arithmetic and memory
_WIDTH = 32  # of them, neighbours in a run at most: one warp-wide access
_STEPS = 4  # tiles that a forward program does one after the other, to share what is computed once
_PROGRAMS = 2048  # programs that keep a large GPU busy: a small bank's gradient is split to so many
_UNROLLED = 16  # partial sums that are in flight together


@dataclass(frozen=True)
class Segments:
    """What the kernels know of the layers that draw on one bank: L segments of the walk, on one device.

    Args:
        starts: (2, L + 1) int32: the first weight of each segment in the walk, at the end of the last; and how much later it
            lies in the flat tensor, whose segments are padded, at the end all padding.
        scales: (L,) float64.
        scales32: (L,) float32, the same for the arithmetic of banks that are not float64.
        first: Where the first segment begins on the walk: 0, or more for a layer alone.
        generated: Where the last segment ends on the walk: M, the number of generated weights, for all layers.
        length: Length of the flat tensor.
        padding: Length of the longest padding behind a segment.
    """

    starts: Tensor
    scales: Tensor
    scales32: Tensor
    first: int
    generated: int
    length: int
    padding: int

    @classmethod
    def of(cls, numels: Sequence[int], offsets: Sequence[int], scales: Sequence[float], device: torch.device) -> Segments:
        """Copies a layout to a device.

        Args:
            numels: Weights of each segment.
            offsets: Place of each segment in the flat tensor, and at the end the flat tensor's length (L + 1).
            scales: Scale of each segment.
            device: Where the bank lives.
        """
        starts = list(itertools.accumulate(numels, initial=0))
        shifts = [offset - start for offset, start in zip(offsets, starts, strict=True)]
        return cls(
            torch.tensor([starts, shifts], dtype=torch.int32).to(device),
            torch.tensor(scales, dtype=torch.float64).to(device),
            torch.tensor(scales, dtype=torch.float32).to(device),
            0,
            starts[-1],
            offsets[-1],
            max((after - before for before, after in itertools.pairwise(shifts)), default=0),
        )

    def alone(self, numels: Sequence[int]) -> list[Segments]:
        """Each segment by itself, in a flat tensor without padding."""
        starts = list(itertools.accumulate(numels, initial=0))
        rows = [[[start, stop], [-start, -start]] for start, stop in itertools.pairwise(starts)]
        singles = torch.tensor(rows, dtype=torch.int32).to(self.starts.device)
        return [
            Segments(singles[i], self.scales[i : i + 1], self.scales32[i : i + 1], starts[i], starts[i + 1], numel, 0)
            for i, numel in enumerate(numels)
        ]

    def _plan(self, placement: Placement, bank: torch.dtype) -> tuple[Any, ...]:
        """The layout and the placement as the operators take them."""
        scales = self.scales if bank == torch.float64 else self.scales32
        place = [placement.size, placement.seed, placement.bank, placement.block]
        return self.starts, scales, self.first, self.generated, self.length, self.padding, place


@dataclass(frozen=True)
class Fused:
    """Generation by these kernels on one device.

    Args:
        layout: What is generated.
        segments: All layers of the layout.
        singles: Each of them alone.
    """

    layout: Layout
    segments: Segments
    singles: list[Segments]

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> Fused:
        """Copies a few numbers of each layer to the device."""
        segments = Segments.of(layout.lengths, layout.offsets, layout.scales, device)
        return cls(layout, segments, segments.alone(layout.lengths))

    @property
    def bytes(self) -> int:
        """Memory that the numbers of the layers take; placement takes none."""
        every = [self.segments.scales, self.segments.scales32, self.segments.starts, *(s.starts for s in self.singles)]
        return sum(tensor.nbytes for tensor in every)

    def rescaled(self, layout: Layout) -> Fused:
        """The same for a layout that differs in scales."""
        return Fused.of(layout, self.segments.starts.device)

    def to(self, device: torch.device) -> Fused:
        """The same on another device."""
        return Fused.of(self.layout, device)

    def generate(self, bank: Tensor, dtype: torch.dtype, segment: int | None = None) -> Tensor:
        """See `rpgmt.rpg.generate.generate`."""
        return generate(bank, self.segments if segment is None else self.singles[segment], self.layout.placement, dtype)

    def fold(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        """See `rpgmt.rpg.generate.fold`."""
        return fold(flat, self.segments, self.layout.placement, dtype)


def usable(device: torch.device) -> bool:
    """Whether the kernels run on tensors of `device`: with Triton on a GPU of ROCm or CUDA (compute capability 7.0 or more), in
    Triton's interpreter on a CPU too."""
    if triton is None:
        return False
    if not isinstance(_generate_kernel, triton.JITFunction):  # but an interpreted one
        return device.type in ("cpu", "cuda")
    return device.type == "cuda" and (torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (7, 0))


def generate(bank: Tensor, segments: Segments, placement: Placement, dtype: torch.dtype) -> Tensor:
    """All weights of a bank's layers: scale · sign · bank[entry].

    The product is taken in float32, or in float64 where the bank is, and rounded once.

    Args:
        bank: (N,) entries.
        segments: The layers' segments, on the bank's device.
        placement: The bank's placement (arXiv 2107.07110, section 3).
        dtype: Type of the weights.

    Returns:
        (segments.length,) flat weights of `dtype`; padding is 0.

    Raises:
        ValueError: The bank is not of the placement's size.
    """
    _check("bank", bank, placement.size)
    return _generate_fused(bank, *segments._plan(placement, bank.dtype), dtype)


def fold(flat: Tensor, segments: Segments, placement: Placement, dtype: torch.dtype) -> Tensor:
    """The transpose of `generate`: for each bank entry the sum over its uses of scale · sign · flat[use], lap by lap.

    Sums are taken in float32, or in float64 where `dtype` is, and rounded once.

    Args:
        flat: (segments.length,), e.g. the gradients of the generated weights; padding is not read.
        segments: The layers' segments, on the device of `flat`.
        placement: The bank's placement.
        dtype: The bank's type.

    Returns:
        (N,) sums of `dtype`.

    Raises:
        ValueError: `flat` is not of the segments' length.
    """
    _check("flat", flat, segments.length)
    return _fold_fused(flat, *segments._plan(placement, dtype), dtype)


def _check(name: str, tensor: Tensor, length: int) -> None:
    if tensor.shape != (length,):
        raise ValueError(f"`{name}` has shape {tuple(tensor.shape)}: give ({length},)")


# ---- the placement in registers: x, lap, keys … are uint32, whose products wrap

_NUMBERS = [
    *("segments", "generated", "first_lap", "laps", "laps_per_group", "programs_per_lap", "chunks", "groups"),
    *("size", "block", "missing", "runs", "a", "b", "reciprocal", "shift", "key0", "key1", "key2", "key3", "key4"),
]


def _jit(function: Any) -> Any:
    """Compiles for types alone, not anew for numbers that are 1 or divisible by 16."""
    return function if triton is None else triton.jit(function, do_not_specialize=_NUMBERS)


@_jit
def _mix(x):
    x = tl.mul(x ^ (x >> 16), 0x21F0AAAD, sanitize_overflow=False)
    x = tl.mul(x ^ (x >> 15), 0x735A2D97, sanitize_overflow=False)
    return x ^ (x >> 15)


@_jit
def _key(base, lap):
    return _mix(tl.add(base.to(tl.uint32), tl.mul(lap, 0x9E3779B9, sanitize_overflow=False), sanitize_overflow=False))


@_jit
def _turn(value, key, modulus, FORWARD: tl.constexpr):
    """value ± hash(key) in Z_modulus: of the result and the result one modulus away, the one that did not wrap is smaller."""
    shift = tl.umulhi(_mix(key), modulus)
    if FORWARD:
        value = value + shift
        return tl.minimum(value, tl.sub(value, modulus, sanitize_overflow=False))
    value = tl.sub(value, shift, sanitize_overflow=False)
    return tl.minimum(value, tl.add(value, modulus, sanitize_overflow=False))


@_jit
def _feistel(x, sides, keys, FORWARD: tl.constexpr):
    _, a, b, reciprocal, shift = sides
    key0, key1, key2, key3 = keys
    left = tl.umulhi(x + 1, reciprocal) >> shift  # x // b
    right = x - left * b
    if FORWARD:
        left = _turn(left, right ^ key0, a, FORWARD)
        right = _turn(right, left ^ key1, b, FORWARD)
        left = _turn(left, right ^ key2, a, FORWARD)
        right = _turn(right, left ^ key3, b, FORWARD)
    else:
        right = _turn(right, left ^ key3, b, FORWARD)
        left = _turn(left, right ^ key2, a, FORWARD)
        right = _turn(right, left ^ key1, b, FORWARD)
        left = _turn(left, right ^ key0, a, FORWARD)
    return left * b + right


@_jit
def _permute(x, sides, keys, FORWARD: tl.constexpr, WALKS: tl.constexpr):
    """The lap's permutation of the runs, or its inverse; x is a vector below `runs`."""
    runs = sides[0]
    x = _feistel(x, sides, keys, FORWARD)
    if WALKS:
        while tl.max((x >= runs).to(tl.int32), axis=0) > 0:
            x = tl.where(x >= runs, _feistel(x, sides, keys, FORWARD), x)
    return x


@_jit
def _slot_of_short_run(sides, keys, SHORT: tl.constexpr):
    """Where the lap puts the last run, the shorter one."""
    slot = sides[0] - 1
    if SHORT:
        slot = _feistel(slot, sides, keys, False)
        while slot >= sides[0]:
            slot = _feistel(slot, sides, keys, False)
    return slot


@_jit
def _of_blocks(block, missing, runs, WIDTH: tl.constexpr):
    """The numbers as uint32; blocks of 1 are compiled in."""
    block = block.to(tl.uint32) if WIDTH > 1 else tl.full((), 1, tl.uint32)
    return block, missing.to(tl.uint32), runs.to(tl.uint32)


@_jit
def _length(run, block, missing, runs, SHORT: tl.constexpr):
    """Elements of each run, as a column."""
    return (tl.where(run == runs - 1, block - missing, block) if SHORT else block + tl.zeros_like(run))[:, None]


@_jit
def _start(slot, short_slot, block, missing, SHORT: tl.constexpr):
    """First position of the run in `slot`; `missing` elements are what the short run before it may lack."""
    start = slot * block
    if SHORT:
        start -= tl.where(slot > short_slot, missing, 0)
    return start


@_jit
def _segment(starts, t, first, count):
    """The segment that weight number t of the walk lies in, one of `count` from `first` on: a search by halves."""
    first += tl.zeros_like(t).to(tl.int32)
    while count > 1:
        half = count // 2
        middle = first + half
        first = tl.where(tl.load(starts + middle).to(tl.uint32) <= t, middle, first)
        count -= half
    return first


# ---- kernels


@_jit
def _generate_kernel(
    bank, flat, starts, scales, segments, generated, first_lap, programs_per_lap, chunks,
    size, block, missing, runs, a, b, reciprocal, shift, key0, key1, key2, key3, key4,
    RUNS: tl.constexpr, WIDTH: tl.constexpr, WALKS: tl.constexpr, SHORT: tl.constexpr,
    STEPS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """A program makes the weights of STEPS · RUNS neighbouring runs on one lap, of each run WIDTH elements."""
    program = tl.program_id(0)
    tile = program % programs_per_lap
    chunk = (tile % chunks).to(tl.uint32)
    first_slot = (tile // chunks).to(tl.uint32) * (STEPS * RUNS)
    lap = (first_lap + program // programs_per_lap).to(tl.uint32)
    begin = lap * size.to(tl.uint32)
    block, missing, runs = _of_blocks(block, missing, runs, WIDTH)
    sides = (runs, a.to(tl.uint32), b.to(tl.uint32), reciprocal.to(tl.uint32), shift.to(tl.uint32))
    keys = (_key(key0, lap), _key(key1, lap), _key(key2, lap), _key(key3, lap))
    sign_key = _key(key4, lap)
    short_slot = _slot_of_short_run(sides, keys, SHORT)

    # Neighbouring weights nearly always lie in one segment, whose numbers are then scalars.
    end_slot = tl.minimum(first_slot + STEPS * RUNS, runs)
    t_first = begin + _start(first_slot, short_slot, block, missing, SHORT)
    t_end = tl.minimum(begin + _start(end_slot, short_slot, block, missing, SHORT), generated.to(tl.uint32))
    if t_end <= tl.load(starts).to(tl.uint32):
        return  # a layer alone begins later on the lap
    first = _segment(starts, t_first, 0, segments)
    last = first
    while tl.load(starts + last + 1).to(tl.uint32) < t_end:
        last += 1

    shifts = starts + segments + 1
    offset = chunk * WIDTH + tl.arange(0, WIDTH).to(tl.uint32)[None, :]
    for step in range(STEPS):
        # What is behind the last slot does that one's work again: it takes no mask, and a walk from there might not end.
        slot = tl.minimum(first_slot + step * RUNS + tl.arange(0, RUNS).to(tl.uint32), runs - 1)
        run = _permute(slot, sides, keys, True, WALKS)
        position = _start(slot, short_slot, block, missing, SHORT)[:, None] + offset
        inside = offset < _length(run, block, missing, runs, SHORT)
        value = tl.load(bank + ((run * block)[:, None] + offset), mask=inside).to(scales.dtype.element_ty)
        negative = (_mix(position ^ sign_key) >> 31) != 0
        t = begin + position
        for segment in range(first, last + 1):
            scale = tl.load(scales + segment)
            weight = value * tl.where(negative, -scale, scale)
            start, end = tl.load(starts + segment).to(tl.uint32), tl.load(starts + segment + 1).to(tl.uint32)
            tl.store(flat + (t + tl.load(shifts + segment)), weight, mask=inside & (t >= start) & (t < end))

    if PADDING:
        hole = tl.arange(0, PADDING)
        for segment in range(first, last + 1):
            end, shift = tl.load(starts + segment + 1).to(tl.uint32), tl.load(shifts + segment)
            length = tl.where(end <= t_end, tl.load(shifts + segment + 1) - shift, 0)
            tl.store(flat + (end + shift) + hole, 0.0, mask=hole < length)


@_jit
def _fold_kernel(
    flat, sums, starts, scales, segments, generated, laps, laps_per_group, chunks,
    size, block, missing, runs, a, b, reciprocal, shift, key0, key1, key2, key3, key4,
    RUNS: tl.constexpr, WIDTH: tl.constexpr, WALKS: tl.constexpr, SHORT: tl.constexpr,
):  # fmt: skip
    """A program adds up what one group of laps makes of RUNS neighbouring runs of the bank, of each run WIDTH entries."""
    tile, group = tl.program_id(0), tl.program_id(1)
    chunk = (tile % chunks).to(tl.uint32)
    first_lap = group * laps_per_group
    size, generated = size.to(tl.uint32), generated.to(tl.uint32)
    block, missing, runs = _of_blocks(block, missing, runs, WIDTH)
    sides = (runs, a.to(tl.uint32), b.to(tl.uint32), reciprocal.to(tl.uint32), shift.to(tl.uint32))
    shifts = starts + segments + 1

    run = (tile // chunks).to(tl.uint32) * RUNS + tl.arange(0, RUNS).to(tl.uint32)
    run = tl.minimum(run, runs - 1)  # as in the forward kernel
    offset = chunk * WIDTH + tl.arange(0, WIDTH).to(tl.uint32)[None, :]
    inside = offset < _length(run, block, missing, runs, SHORT)

    total = tl.zeros([RUNS, WIDTH], scales.dtype.element_ty)
    first = _segment(starts, first_lap.to(tl.uint32) * size, 0, segments)
    for i in range(tl.minimum(laps_per_group, laps - first_lap)):
        lap = (first_lap + i).to(tl.uint32)
        begin = lap * size
        end = tl.minimum(begin + size, generated)
        # Segments from `first` on that hold the lap: 1, 2, 4, …; behind the last one, `starts` has M.
        count = 1
        while tl.load(starts + tl.minimum(first + count, segments)).to(tl.uint32) < end:
            count *= 2
        count = tl.minimum(count, segments - first)

        keys = (_key(key0, lap), _key(key1, lap), _key(key2, lap), _key(key3, lap))
        short_slot = _slot_of_short_run(sides, keys, SHORT)
        slot = _permute(run, sides, keys, False, WALKS)
        position = _start(slot, short_slot, block, missing, SHORT)[:, None] + offset
        t = begin + position
        segment = _segment(starts, t, first, count)
        scale = tl.load(scales + segment)
        place = t + tl.load(shifts + segment)
        value = tl.load(flat + place, mask=inside & (t < end), other=0.0).to(scales.dtype.element_ty)
        negative = (_mix(position ^ _key(key4, lap)) >> 31) != 0
        total += value * tl.where(negative, -scale, scale)
        first = _segment(starts, end, first, count)
    tl.store(sums + (group.to(tl.uint32) * size + (run * block)[:, None] + offset), total, mask=inside)


@_jit
def _add_groups_kernel(partial, sums, groups, size, TILE: tl.constexpr, UNROLLED: tl.constexpr):
    """Adds the groups' sums in their order."""
    entry = tl.program_id(0) * TILE + tl.arange(0, TILE)
    total = tl.zeros([TILE], partial.dtype.element_ty)
    for first in range(0, groups, UNROLLED):
        for i in tl.static_range(UNROLLED):
            count = tl.where(first + i < groups, size, 0)
            total += tl.load(partial + (first + i) * size + entry, mask=entry < count, other=0.0)
    tl.store(sums + entry, total, mask=entry < size)


# ---- launches

# Products and sums are rounded one by one, as they are outside of Triton.
_OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}


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
    constants = {"RUNS": tile, "WIDTH": width, "WALKS": a * b != runs or width > 1, "SHORT": missing > 0, **_OPTIONS}
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


def _on(device: torch.device) -> Any:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _generate(
    bank: Tensor,
    starts: Tensor,
    scales: Tensor,
    first: int,
    generated: int,
    length: int,
    padding: int,
    placement: list[int],
    dtype: torch.dtype,
) -> Tensor:
    flat = bank.new_empty(length, dtype=dtype)
    if not length:
        return flat
    launch = _launch(*placement)
    steps = min(_STEPS, triton.cdiv(launch.runs, launch.tile))
    first_lap, last_lap = first // launch.size, (generated - 1) // launch.size
    # Slots that reach into what the last lap makes, if the short run lies in front of it.
    slots = min(triton.cdiv(generated - last_lap * launch.size + launch.missing, launch.block), launch.runs)
    programs_per_lap, programs_of_last = (
        triton.cdiv(count, steps * launch.tile) * launch.chunks for count in (launch.runs, slots)
    )
    with _on(bank.device):
        _generate_kernel[((last_lap - first_lap) * programs_per_lap + programs_of_last,)](
            bank.contiguous(),
            flat,
            starts,
            scales,
            len(scales),
            generated,
            first_lap,
            programs_per_lap,
            launch.chunks,
            *launch.numbers,
            STEPS=steps,
            PADDING=triton.next_power_of_2(padding) if padding else 0,
            **launch.constants,
        )
    return flat


def _fold(
    flat: Tensor,
    starts: Tensor,
    scales: Tensor,
    first: int,
    generated: int,
    length: int,
    padding: int,
    placement: list[int],
    dtype: torch.dtype,
) -> Tensor:
    launch = _launch(*placement)
    sums = flat.new_empty(launch.size, dtype=dtype)
    laps = triton.cdiv(generated, launch.size)
    tiles = triton.cdiv(launch.runs, launch.tile) * launch.chunks
    laps_per_group = triton.cdiv(laps, max(1, min(_PROGRAMS // tiles, laps)))
    groups = max(1, triton.cdiv(laps, max(1, laps_per_group)))
    partial = sums if groups == 1 else flat.new_empty(groups, launch.size, dtype=scales.dtype)
    with _on(flat.device):
        _fold_kernel[(tiles, groups)](
            flat.contiguous(),
            partial,
            starts,
            scales,
            len(scales),
            generated,
            laps,
            laps_per_group,
            launch.chunks,
            *launch.numbers,
            **launch.constants,
        )
        if groups > 1:
            _add_groups_kernel[(triton.cdiv(launch.size, 32),)](
                partial, sums, groups, launch.size, TILE=32, UNROLLED=_UNROLLED, **_OPTIONS
            )
    return sums


def _lengths(*plan: Any) -> tuple[int, int]:
    *_, length, _, placement = plan
    return length, placement[0]


_PLAN = "Tensor starts, Tensor scales, int first, int generated, int length, int padding, int[] placement"
_generate_fused, _fold_fused = transposes("_fused", _PLAN, _generate, _fold, _lengths)
