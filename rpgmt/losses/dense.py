"""Losses of dense predictions and of classes of whole images.

Each returns the sum over what is labelled and its number as two scalars, as those of key points do: what has no label gives
neither loss nor gradient. All are computed in at least float32, under autocast too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SILOG_BALANCE = 0.5
"""λ of the scale-invariant error in training (Eigen et al., arXiv 1406.2283, section 3.3)."""


def classes_cross_entropy(logits: Tensor, target: Tensor, ignore: int = -1) -> tuple[Tensor, Tensor]:
    """Soft-max cross-entropy of classes.

    Args:
        logits: (B, C, …).
        target: (B, …), the class from 0 to C - 1, or `ignore` where it is not known.
        ignore: marks targets that do not count.

    Returns:
        Sum over the targets that count, in nats, and their number.
    """
    target = target.long()
    total = F.cross_entropy(_at_least_float32(logits), target, ignore_index=ignore, reduction="sum")
    return total, (target != ignore).sum()


def depth_l1(depth: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute error of depth.

    Args:
        depth: (B, H, W), positive.
        target: (B, H, W), 0 where not known.

    Returns:
        Sum over the known pixels, in the target's unit, and their number.
    """
    valid = target > 0
    error = (_at_least_float32(depth) - target).abs()
    return torch.where(valid, error, 0).sum(), valid.sum()


def depth_silog(depth: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scale-invariant logarithmic error (Eigen et al., arXiv 1406.2283, equation 4): mean d² - λ (mean d)², λ = 0.5.

    d = log depth - log target. The mean is over an image's known pixels.

    Args:
        depth: (B, H, W), positive.
        target: (B, H, W), 0 where not known.

    Returns:
        Sum over the images with a known pixel, and their number.
    """
    valid = target > 0
    # Masked before the logarithm: a soft-plus may be 0, and the gradient of log 0 is no number even where it does not count.
    known_depth, known_target = (torch.where(valid, values, 1) for values in (_at_least_float32(depth), target))
    known_depth = known_depth.clamp(min=torch.finfo(known_depth.dtype).tiny)
    difference = (known_depth.log() - known_target.log()).flatten(1)
    count = valid.flatten(1).sum(1)
    known = count.clamp(min=1)
    error = difference.square().sum(1) / known - SILOG_BALANCE * (difference.sum(1) / known).square()
    return error.sum(), (count > 0).sum()


def normals_cosine(normals: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """1 - cosine of the angle between normals.

    Args:
        normals: (B, 3, H, W), unit.
        target: (B, H, W, 3), unit, (0, 0, 0) where not known.

    Returns:
        Sum over the known pixels, and their number. (A known normal has any component that is not 0: their sum may be 0.)
    """
    valid = (target != 0).any(-1)
    cosine = (_at_least_float32(normals) * target.movedim(-1, 1)).sum(1)
    return torch.where(valid, 1 - cosine, 0).sum(), valid.sum()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
