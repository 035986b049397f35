"""Losses of heat maps of key points.

Each returns the sum over the valid key points and their number as two scalars, so that a mean over several processes,
steps or stages divides by the count of all of them. All are computed in at least float32, under autocast too.
"""

from __future__ import annotations

import torch
from torch import Tensor


def heatmap_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Soft-max cross-entropy over each map's cells, less the target's entropy.

    Each target map is divided by its sum. Without its entropy, a constant, the loss is the Kullback-Leibler divergence:
    0 for a perfect map and the same gradient.

    Args:
        logits: (B, K, h, w).
        target: (B, K, h, w), not negative; a map of a key point that counts is not all zero.
        weights: (B, K), 0 for key points that do not count.

    Returns:
        Sum of weight · divergence in nats, and sum of weights.
    """
    logits, target, weights = (_at_least_float32(x) for x in (logits, target, weights))
    target = target.flatten(2)
    # Cells far from the key point are 0, and so are whole maps that do not count: they are to give 0, not 0/0 or 0·∞.
    tiny = torch.finfo(target.dtype).tiny
    target = target / target.sum(-1, keepdim=True).clamp(min=tiny)
    divergence = (target * (target.clamp(min=tiny).log() - logits.flatten(2).log_softmax(-1))).sum(-1)
    return (weights * divergence).sum(), weights.sum()


def heatmap_mse(maps: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error, the mean over each map's cells (no factor ½; Newell et al., Stacked Hourglass Networks, sec. 3.2).

    Sum divided by count is the mean over the key points that count. HRNet and mmpose divide by all key points, those
    included that do not count, and HRNet takes half of it: theirs is ours times the part of key points that count (times ½).

    Args:
        maps: (B, K, h, w).
        target: (B, K, h, w).
        weights: (B, K), 0 for key points that do not count.

    Returns:
        Sum of weight · mean squared error, and sum of weights.
    """
    maps, target, weights = (_at_least_float32(x) for x in (maps, target, weights))
    return (weights * (maps - target).square().mean((-2, -1))).sum(), weights.sum()


def heatmap_ohkm(maps: Tensor, target: Tensor, weights: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """`heatmap_mse` of each person's `top` worst key points alone: on-line hard key points mining.

    The worst are those with the greatest weight · mean squared error (Chen et al., Cascaded Pyramid Network, arXiv
    1711.07319, sec. 3.2.2). Which they are is decided anew each time; the others have no gradient. A person with fewer
    key points that count gives all of these. Sum divided by count is the mean over the chosen ones; HRNet and mmpose
    divide by `top` and the number of persons, so that persons with few key points weigh less, and HRNet takes half of it.

    Args:
        maps: (B, K, h, w).
        target: (B, K, h, w).
        weights: (B, K), 0 for key points that do not count.
        top: key points of each person, at least 1; all where there are no more.

    Returns:
        Sum of weight · mean squared error, and sum of weights, over the chosen key points.

    Raises:
        ValueError: `top` is less than 1.
    """
    if top < 1:
        raise ValueError(f"`top` is {top}: give at least 1 key point, e.g. 8")
    maps, target, weights = (_at_least_float32(x) for x in (maps, target, weights))
    errors = weights * (maps - target).square().mean((-2, -1))
    # Below every error, so that a perfect key point that counts is chosen, and counted, before one that does not.
    ranked = errors.masked_fill(weights == 0, -1.0)
    chosen = ranked.topk(min(top, errors.shape[1]), dim=1).indices
    return errors.gather(1, chosen).sum(), weights.gather(1, chosen).sum()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
