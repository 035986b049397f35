"""Whether a layer's weight looks trained, told from its numbers alone: for `convert`, which would lose it.

torch does not keep whether a weight was trained or loaded. But what initialisers give are independent numbers of one symmetric
distribution, no wider in its tails than the normal one: uniform, normal, or normal and cut off. Training makes channels
differ, shifts their means, and gives a few weights large values. A weight is taken for trained where one of these is too
far from chance.
"""

from __future__ import annotations

import math

from torch import Tensor

_LIMIT = 8.0  # standard errors; of 3,780 fresh weights of nine shapes and seven initialisers the farthest is at 4.9
_FEWEST = 512  # numbers that show the tails of their distribution
_FEWEST_CHANNELS = 8


def looks_trained(weight: Tensor) -> bool:
    """Whether the numbers of `weight` are unlike what an initialiser gives.

    Weights that an initialiser gives in another way (identity, sparse) look trained, too. Small ones never do, and those that
    were trained for some tens of steps may not.

    Args:
        weight: (out, in, …) of a convolution or linear layer; not constant.
    """
    if weight.ndim < 2:
        return False
    w = weight.detach().float()
    w = w / w.square().mean().sqrt()
    squares, count = w.square(), w.numel()
    kurtosis = float(squares.square().mean())  # 1.8 of a uniform distribution, 3 of a normal one
    if count >= _FEWEST:
        if kurtosis > 3 + _LIMIT * math.sqrt(24 / count):
            return True
        end = math.sqrt(3) * (1.02 + 2 / math.sqrt(count))  # of a uniform distribution, and some error
        if kurtosis < 2 and float(squares.max()) > end**2:  # nearly uniform, as after a few steps of training
            return True
    return any(_varies(w, squares, kurtosis, dim) for dim in (0, 1))


def _varies(w: Tensor, squares: Tensor, kurtosis: float, dim: int) -> bool:
    """Whether means or energies of the channels in `dim` vary more than those of independent numbers."""
    channels = w.shape[dim]
    each = w.numel() // channels
    if min(channels, each) < _FEWEST_CHANNELS:
        return False
    others = [i for i in range(w.ndim) if i != dim]
    limit = 1 + _LIMIT * math.sqrt((2 + 6 / each) / (channels - 1))
    means = float(w.mean(others).square().mean()) * each
    energies = float(squares.mean(others).var()) * each / max(kurtosis - 1, 0.1)
    return means > limit or energies > limit
