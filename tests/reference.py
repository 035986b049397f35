"""Slow, obviously right twins of the fast code: Python integers, dense matrices and loops, from the definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# ---- placement: docstrings of rpgmt/rpg/placement.py, in Python's integers

_MASK = 0xFFFFFFFF


def mix(x: int) -> int:
    """The 32-bit finaliser with the constants 0x21F0AAAD and 0x735A2D97 (xor-shifts 16, 15, 15)."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD & _MASK
    x = (x ^ (x >> 15)) * 0x735A2D97 & _MASK
    return x ^ (x >> 15)


def lap_key(seed: int, bank: int, stream: int, lap: int) -> int:
    """Key of a lap: streams 0 … 3 are the Feistel rounds', 4 is the signs'."""
    base = mix((seed ^ 0x52504721) & _MASK)
    for word in (seed >> 32, bank, stream):
        base = mix((base + word) * 0x9E3779B9 & _MASK)
    return mix((base + lap * 0x9E3779B9) & _MASK)


def permuted(count: int, seed: int, bank: int, lap: int) -> list[int]:
    """The permutation of 0 … count-1: four Feistel rounds on Z_a × Z_b, again while the result is outside."""
    a = math.isqrt(count)
    a += a * a < count
    b = -(-count // a)
    keys = [lap_key(seed, bank, stream, lap) for stream in range(4)]

    def feistel(x: int) -> int:
        left, right = divmod(x, b)
        left = (left + (mix(right ^ keys[0]) * a >> 32)) % a
        right = (right + (mix(left ^ keys[1]) * b >> 32)) % b
        left = (left + (mix(right ^ keys[2]) * a >> 32)) % a
        right = (right + (mix(left ^ keys[3]) * b >> 32)) % b
        return left * b + right

    result = []
    for x in range(count):
        y = feistel(x)
        while y >= count:
            y = feistel(y)
        result.append(y)
    return result


def entries_and_signs(size: int, seed: int, bank: int, block: int, lap: int) -> tuple[list[int], list[int]]:
    """Bank entry and sign (±1) of every position of a lap: runs of `block` entries in permuted order."""
    runs = [range(start, min(start + block, size)) for start in range(0, size, block)]
    entries = [entry for run in permuted(len(runs), seed, bank, lap) for entry in runs[run]]
    signs = [1 - 2 * (mix(position ^ lap_key(seed, bank, 4, lap)) >> 31) for position in range(size)]
    return entries, signs


# ---- generation: W_layer = R · bank (arXiv 2107.07110, section 3), R as a dense matrix


def generating_matrix(
    size: int, segments: Sequence[tuple[int, float]], seed: int = 0, bank: int = 0, block: int = 1
) -> np.ndarray:
    """(M, N) float64 R with one ±scale a row: all layers' weights in the order of the walk are R @ bank."""
    scales = [scale for numel, scale in segments for _ in range(numel)]
    matrix = np.zeros((len(scales), size))
    for start in range(0, len(scales), size):
        entries, signs = entries_and_signs(size, seed, bank, block, start // size)
        for t in range(start, min(start + size, len(scales))):
            matrix[t, entries[t - start]] = signs[t - start] * scales[t]
    return matrix


def split_by_largest_remainder(total: int, shares: Sequence[int]) -> list[int]:
    """Hamilton's apportionment; who would get nothing gets 1, at the cost of the largest."""
    quotas = [total * share / sum(shares) for share in shares]
    parts = [int(quota) for quota in quotas]
    while sum(parts) < total:
        i = max(range(len(parts)), key=lambda i: (quotas[i] - parts[i], -i))
        parts[i] += 1
    while 0 in parts:
        parts[parts.index(0)] = 1
        parts[parts.index(max(parts))] -= 1
    return parts
