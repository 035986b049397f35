"""weight = scale · sign · bank[entry] and its gradient as Triton kernels: what a GPU runs. `fused.py` launches them.

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

from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:  # there is none for macOS and Windows
    triton = tl = None

# ---- the placement in registers: x, lap, keys … are uint32, whose products wrap

_NUMBERS = [
    *("segments", "generated", "first_lap", "laps", "laps_per_group", "programs_per_lap", "chunks", "groups"),
    *("size", "block", "missing", "runs", "a", "b", "reciprocal", "shift", "key0", "key1", "key2", "key3", "key4"),
    "layers",
]


def jit(function: Any) -> Any:
    """Compiles for types alone, not anew for numbers that are 1 or divisible by 16."""
    return function if triton is None else triton.jit(function, do_not_specialize=_NUMBERS)


@jit
def _mix(x):
    x = tl.mul(x ^ (x >> 16), 0x21F0AAAD, sanitize_overflow=False)
    x = tl.mul(x ^ (x >> 15), 0x735A2D97, sanitize_overflow=False)
    return x ^ (x >> 15)


@jit
def _key(base, lap):
    return _mix(tl.add(base.to(tl.uint32), tl.mul(lap, 0x9E3779B9, sanitize_overflow=False), sanitize_overflow=False))


@jit
def _turn(value, key, modulus, FORWARD: tl.constexpr):
    """value ± hash(key) in Z_modulus: of the result and the result one modulus away, the one that did not wrap is smaller."""
    shift = tl.umulhi(_mix(key), modulus)
    if FORWARD:
        value = value + shift
        return tl.minimum(value, tl.sub(value, modulus, sanitize_overflow=False))
    value = tl.sub(value, shift, sanitize_overflow=False)
    return tl.minimum(value, tl.add(value, modulus, sanitize_overflow=False))


@jit
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


@jit
def _permute(x, sides, keys, FORWARD: tl.constexpr, WALKS: tl.constexpr):
    """The lap's permutation of the runs, or its inverse; x is a vector below `runs`."""
    runs = sides[0]
    x = _feistel(x, sides, keys, FORWARD)
    if WALKS:
        while tl.max((x >= runs).to(tl.int32), axis=0) > 0:
            x = tl.where(x >= runs, _feistel(x, sides, keys, FORWARD), x)
    return x


@jit
def _slot_of_short_run(sides, keys, SHORT: tl.constexpr):
    """Where the lap puts the last run, the shorter one."""
    slot = sides[0] - 1
    if SHORT:
        slot = _feistel(slot, sides, keys, False)
        while slot >= sides[0]:
            slot = _feistel(slot, sides, keys, False)
    return slot


@jit
def _of_blocks(block, missing, runs, WIDTH: tl.constexpr):
    """The numbers as uint32; blocks of 1 are compiled in."""
    block = block.to(tl.uint32) if WIDTH > 1 else tl.full((), 1, tl.uint32)
    return block, missing.to(tl.uint32), runs.to(tl.uint32)


@jit
def _length(run, block, missing, runs, SHORT: tl.constexpr):
    """Elements of each run, as a column."""
    return (tl.where(run == runs - 1, block - missing, block) if SHORT else block + tl.zeros_like(run))[:, None]


@jit
def _start(slot, short_slot, block, missing, SHORT: tl.constexpr):
    """First position of the run in `slot`; `missing` elements are what the short run before it may lack."""
    start = slot * block
    if SHORT:
        start -= tl.where(slot > short_slot, missing, 0)
    return start


@jit
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


@jit
def generate_kernel(
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


@jit
def fold_kernel(
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


@jit
def add_groups_kernel(partial, sums, groups, size, TILE: tl.constexpr, UNROLLED: tl.constexpr):
    """Adds the groups' sums in their order."""
    entry = tl.program_id(0) * TILE + tl.arange(0, TILE)
    total = tl.zeros([TILE], partial.dtype.element_ty)
    for first in range(0, groups, UNROLLED):
        for i in tl.static_range(UNROLLED):
            count = tl.where(first + i < groups, size, 0)
            total += tl.load(partial + (first + i) * size + entry, mask=entry < count, other=0.0)
    tl.store(sums + entry, total, mask=entry < size)
