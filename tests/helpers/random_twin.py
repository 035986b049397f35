"""A slow, obvious twin of the whole numbers that are drawn on the training device, in Python's integers."""

from __future__ import annotations

WORD = 0xFFFFFFFF


def mixed(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x21F0AAAD & WORD
    x = (x ^ (x >> 15)) * 0x735A2D97 & WORD
    return x ^ (x >> 15)


def drawn(seed: int, epoch: int, index: int, stream: int, count: int) -> int:
    word = 0
    for part in (seed, stream, epoch, index):
        word = mixed((word + part + 1) * 0x9E3779B9 & WORD)
    return word * count >> 32
