"""Which bank entry makes which generated weight, and with which sign: integer arithmetic, written down here.

A bank of N entries is a ring that the generated weights walk round. Weight number t lies on lap t // N at position t % N. On
each lap a keyed permutation sends the position to a bank entry and a keyed bit decides the sign, so that

    weight[t] = ± bank[entry(lap, position)]

This is the paper's R_i (arXiv 2107.07110, section 3: random permutation and element-wise random sign, spread evenly): every
entry is used ⌊M/N⌋ or ⌈M/N⌉ times, and no layer meets an entry twice within a lap.

The permutation is a 4-round Feistel network on pairs (l, r) of Z_a × Z_b with a = ⌈√N⌉ and b = ⌈N/a⌉. It permutes 0 … ab-1;
what lands outside 0 … N-1 (at most one element in √N) walks on until it is inside, which makes a permutation of 0 … N-1; the
inverse walks the inverse network. Nothing but +, -, *, //, ^, >>, & and comparisons of integers below 2⁶³ is used, so the same
lines serve NumPy and PyTorch on any device, and a GPU kernel can repeat them in 32-bit registers. Golden vectors in the tests
pin the result: a change of one value is a change of `VERSION`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from rpgmt.rpg.size import LIMIT

VERSION = 1

_WORD = 0xFFFFFFFF
_ROUNDS = 4
_SIGN_STREAM = _ROUNDS  # the sign's key is drawn like one more round's

IntArray = TypeVar("IntArray", np.ndarray, torch.Tensor)
Words = TypeVar("Words", int, np.ndarray, torch.Tensor)


def mix(x: Words) -> Words:
    """A bijection of the 32-bit words held in int64 with good avalanche (multiply and xor-shift, the constants of
    C. Wellons' hash prospector)."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _WORD
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _WORD
    return x ^ (x >> 15)


def _mix_int(x: int) -> int:
    return mix(x & _WORD)


@dataclass(frozen=True)
class Placement:
    """The map (lap, position) → (bank entry, sign) of one bank.

    Args:
        size: N, the number of entries of the bank, 1 ≤ N < 2³¹.
        seed: The user's seed, 0 ≤ seed < 2⁶³.
        bank: The bank's number in its network: banks of one seed are placed independently.
        block: Runs of so many neighbouring entries move together (the last N mod block entries are one shorter run, which
            moves too); signs remain one an element. 1 is the paper's.

    Raises:
        ValueError: One of them is out of range.
    """

    size: int
    seed: int = 0
    bank: int = 0
    block: int = 1

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size < LIMIT:
            raise ValueError(f"`size` is {self.size!r}: a bank has 1 to {LIMIT - 1} entries")
        if type(self.seed) is not int or not 0 <= self.seed < 2**63:
            raise ValueError(f"`seed` is {self.seed!r}: give an integer from 0 to 2**63 - 1")
        if type(self.bank) is not int or not 0 <= self.bank < LIMIT:
            raise ValueError(f"`bank` is {self.bank!r}: give an integer from 0 to {LIMIT - 1}")
        if type(self.block) is not int or not 1 <= self.block < LIMIT:
            raise ValueError(f"`block` is {self.block!r}: give an integer from 1 to {LIMIT - 1}")

    def entries(self, lap: IntArray, position: IntArray) -> IntArray:
        """The bank entry of each (lap, position); int64 arrays that broadcast together, e.g. laps (L, 1) and positions (P,)."""
        remainder = self.size % self.block
        if not remainder:
            run, offset = position // self.block, position % self.block
            return self._permute(lap, run) * self.block + offset
        # The short run sits somewhere among the others; behind its slot, positions are taken as if it had full length.
        slot = self._permute_back(lap, lap * 0 + (self.runs - 1))
        position = position + (position >= slot * self.block + remainder) * (self.block - remainder)
        run, offset = position // self.block, position % self.block
        return self._permute(lap, run) * self.block + offset

    def positions(self, lap: IntArray, entry: IntArray) -> IntArray:
        """The inverse: the position at which `lap` visits each entry; int64 arrays that broadcast together."""
        run, offset = entry // self.block, entry % self.block
        slot = self._permute_back(lap, run)
        position = slot * self.block + offset
        remainder = self.size % self.block
        if remainder:
            short_slot = self._permute_back(lap, lap * 0 + (self.runs - 1))
            position = position - (slot > short_slot) * (self.block - remainder)
        return position

    def negative(self, lap: IntArray, position: IntArray) -> IntArray:
        """1 where the weight at (lap, position) is its entry with the sign turned, else 0; int64 arrays as above."""
        return mix(position ^ self._key(lap, _SIGN_STREAM)) >> 31

    def checksum(self, generated: int) -> int:
        """A 32-bit digest of the first `generated` weights' placement, to tell a checkpoint's placement from another.

        It covers the arguments of the placement, `generated`, and the entries and signs of up to 4,096 weights that are
        spread over all of them.
        """
        t = np.unique(np.linspace(0, max(generated - 1, 0), 4096).astype(np.int64))
        lap, position = t // self.size, t % self.size
        words = np.concatenate([self.entries(lap, position) * 2 + self.negative(lap, position), [self.block, generated]])
        digest = _mix_int(self.size)
        for word in words.tolist():
            digest = _mix_int(digest * 31 + word)
        return digest

    @property
    def runs(self) -> int:
        """Runs of `block` entries, the last one perhaps shorter: what is permuted."""
        return -(-self.size // self.block)

    @property
    def sides(self) -> tuple[int, int]:
        """(a, b), the sides of the Feistel network."""
        a = math.isqrt(self.runs - 1) + 1  # ⌈√runs⌉
        return a, -(-self.runs // a)

    @property
    def keys(self) -> list[int]:
        """The 32-bit words that the laps' keys come from, one for each round and one for signs."""
        return [self._base(stream) for stream in (*range(_ROUNDS), _SIGN_STREAM)]

    def _base(self, stream: int) -> int:
        base = _mix_int(self.seed ^ 0x52504721)
        for word in (self.seed >> 32, self.bank, stream):
            base = _mix_int((base + word) * 0x9E3779B9)
        return base

    def _key(self, lap: IntArray, stream: int) -> IntArray:
        """A 32-bit key for each lap: different laps of one bank have different keys in every stream."""
        return mix((self._base(stream) + lap * 0x9E3779B9) & _WORD)

    def _permute(self, lap: IntArray, run: IntArray) -> IntArray:
        return self._walk(lap, run, forward=True)

    def _permute_back(self, lap: IntArray, run: IntArray) -> IntArray:
        return self._walk(lap, run, forward=False)

    def _walk(self, lap: IntArray, run: IntArray, *, forward: bool) -> IntArray:
        """The Feistel network or its inverse, applied again to what lies outside 0 … runs-1."""
        run = self._feistel(lap, run, forward=forward)
        outside = run >= self.runs
        if outside.any():
            run[outside] = self._walk((lap + run * 0)[outside], run[outside], forward=forward)
        return run

    def _feistel(self, lap: IntArray, x: IntArray, *, forward: bool) -> IntArray:
        a, b = self.sides
        keys = [self._key(lap, stream) for stream in range(_ROUNDS)]
        left = x // b
        right = x - left * b  # cheaper than a second division
        for stream in range(_ROUNDS) if forward else reversed(range(_ROUNDS)):
            if stream % 2 == 0:
                left = _rotate(left, right ^ keys[stream], a, forward)
            else:
                right = _rotate(right, left ^ keys[stream], b, forward)
        return left * b + right


def _rotate(value: IntArray, key: IntArray, modulus: int, forward: bool) -> IntArray:
    """value ± hash(key) in Z_modulus. The hash is brought into range by a multiplication and a shift: modulus < 2¹⁶."""
    shift = (mix(key) * modulus) >> 32
    if forward:
        value = value + shift
        return value - (value >= modulus) * modulus
    value = value - shift
    return value + (value < 0) * modulus
