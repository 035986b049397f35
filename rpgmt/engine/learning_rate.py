"""The course of the learning rate: warm-up, then constant, cosine or steps."""

from __future__ import annotations

import math

from rpgmt.config import TrainConfig


def learning_rate_factor(step: int, total: int, train: TrainConfig) -> float:
    """Return the factor on every group's learning rate in optimizer step ``step`` of 0 … total - 1."""
    warmup = warmup_steps(total, train)
    if step < warmup:
        return (step + 1) / warmup
    if train.schedule == "cosine":
        done = (step - warmup) / max(1, total - warmup)
        return 0.5 * (1 + math.cos(math.pi * done))
    if train.schedule == "step":
        return train.decay ** sum(step >= fraction * total for fraction in train.milestones)
    return 1.0


def warmup_steps(total: int, train: TrainConfig) -> int:
    """Return the steps of warm-up of a run of ``total`` steps: those of the config, and at most a fifth of the run.

    Presets are made for large sets. Of a few images a whole run has fewer steps than their warm-up.
    """
    return min(train.warmup_steps, -(-total // 5))
