"""What both kinds of tables do with a flat tensor: scale its segments, in pieces that stay in the cache."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import torch
from torch import Tensor

AT_ONCE = 2**17  # weights that are worked on at once: they stay in the cache, and are enough for two threads
_PLACED_AT_ONCE = 2**14  # positions for which the placement is computed at once: its temporaries stay in the cache


def ranges(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cuts a range into pieces to compute the placement of."""
    return ((i, min(i + _PLACED_AT_ONCE, stop)) for i in range(start, stop, _PLACED_AT_ONCE))


def accurate(dtype: torch.dtype) -> torch.dtype:
    """The type to scale and add in."""
    return dtype if dtype == torch.float64 else torch.float32


def scale_in_place(flat: Tensor, offsets: list[int], lengths: list[int], scales: list[float]) -> None:
    """Multiplies each segment of a flat tensor by its scale."""
    parts = [(flat[start : start + n], s) for start, n, s in zip(offsets, lengths, scales, strict=False) if s != 1.0]
    if parts:
        torch._foreach_mul_([weight for weight, _ in parts], [scale for _, scale in parts])


def write_scaled(
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
