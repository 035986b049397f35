"""Accuracy of classes: whether the true one is among the k that are thought most likely."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """The place of each image's true class when classes are sorted by falling logit: 0 if it comes first.

    Of equal logits the class of the lower number comes first, as `argmax` has it. Where a logit is not a number, the true class
    never comes before it: a broken network has no accuracy.

    Args:
        logits: (B, C).
        labels: int64 (B,), from 0 to C - 1.

    Returns:
        int64 (B,), from 0 to C.
    """
    true = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return (~(logits <= true) | ((logits == true) & earlier)).sum(1)


def top_k(found: Sequence[int], k: int) -> float | None:
    """The part of the images whose true class has one of the first k places; None without images."""
    return sum(rank < k for rank in found) / len(found) if found else None
