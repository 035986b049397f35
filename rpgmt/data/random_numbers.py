"""Where all random numbers of the data come from: what is drawn is a function of its key alone, e.g. (seed, epoch, index).

So a resumed run sees what the uninterrupted one would have seen, whichever process asks and in whatever order. No generator
is shared, none keeps a state from one sample to the next.

The usual way is `generator(*key)`. Recorded results depend on the bits, and three streams are not its own; they are kept as
they are:

- `uniforms`, of the crops' augmentation: it takes a few numbers a sample, and to make a generator would take far longer.
- `uniform_integers`, of small images that are changed a batch at a time on the training device.
- `library_generators`, of albumentations, which draws by itself from a seed that `uniforms` gave.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_WORD = 0xFFFFFFFF

_PHILOX, _PHILOX_LOCK = np.random.Philox(0), threading.Lock()
_PHILOX_START = _PHILOX.state


def generator(*key: int) -> np.random.Generator:
    """A generator of its own for each key: Philox (Salmon et al., SC 2011), its key hashed by NumPy's `SeedSequence`.

    Args:
        key: whole numbers from 0 on: (seed, epoch) of an epoch's order, (seed, index) of a synthetic scene, (seed, epoch,
            index) of an image file's crop.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def uniforms(seed: int, epoch: int, index: int, stream: int, count: int) -> list[float]:
    """The first uniform numbers, from 0 to 1, of a stream of their own for each (seed, epoch, index, stream).

    Distinct keys and counters of Philox are independent streams; the first word counts within the stream. One generator is
    set to all of them: a new one asks the system for entropy, even if it is given its key, which takes far longer.
    """
    start = {"key": np.array([seed, 0], np.uint64), "counter": np.array([0, epoch, index, stream], np.uint64)}
    state: Any = {**_PHILOX_START, "state": start}
    with _PHILOX_LOCK:
        _PHILOX.state = state
        return np.random.Generator(_PHILOX).random(count).tolist()


def uniform_integers(seed: int, epoch: Tensor, index: Tensor, stream: int, count: int) -> Tensor:
    """Numbers from 0 to count - 1, evenly and as if at random, the same on every device.

    Args:
        seed, stream: from 0 to 2³¹ - 1; each stream is independent of the others.
        epoch, index: int64 (B,), of the samples.
        count: from 1 to 2³¹ - 1.

    Returns:
        int64 (B,).
    """
    from rpgmt.rpg.placement import mix  # comes with torch, which drawing people does not need

    word = index.new_zeros(index.shape)
    for part in (seed, stream, epoch, index):
        word = mix((word + part + 1) * 0x9E3779B9 & _WORD)  # products beyond 2⁶³ wrap round, which leaves the low bits right
    return word * count >> 32


def library_generators(seed: int) -> tuple[np.random.Generator, random.Random]:
    """NumPy's and Python's generators of a seed, for a library that draws from both."""
    return np.random.default_rng(seed), random.Random(seed)
