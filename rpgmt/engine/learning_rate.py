"""The course of the learning rate: warm-up, then constant, cosine or steps."""

from __future__ import annotations

import math

from rpgmt.config import TrainConfig


def learning_rate_factor(step: int, total: int, train: TrainConfig) -> float:
    """Return the factor on every group's learning rate in optimizer step ``step`` of 0 … total - 1."""
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    if train.schedule == "cosine":
        done = (step - train.warmup_steps) / max(1, total - train.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))
    if train.schedule == "step":
        return train.decay ** sum(step >= fraction * total for fraction in train.milestones)
    return 1.0
