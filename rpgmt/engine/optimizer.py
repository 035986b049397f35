"""The optimizer of a training, and the course of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from rpgmt.config import TrainConfig
from rpgmt.rpg.optim import parameter_groups


def make_optimizer(model: nn.Module, train: TrainConfig, others: Sequence[nn.Parameter] = ()) -> torch.optim.Optimizer:
    """Return the optimizer of a model's parameters, each group with its own peak rate.

    Args:
        model: the root of its banks.
        train: optimizer, rate, decay.
        others: parameters that are learned beside the model's, without decay.
    """
    groups = parameter_groups(model, train.optimizer, train.lr, train.weight_decay)
    if others:
        groups.append({"params": list(others), "lr": train.lr, "weight_decay": 0.0, "name": "balance"})
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=0.9),
    }
    # Fused: the hundreds of small tensors of norms and biases would otherwise take a tenth of a step on a CPU. Fabric clips no
    # gradients for a fused optimizer with float16, since that would unscale them itself.
    fused = train.clip_norm is None or train.precision == "32"
    return kinds[train.optimizer](groups, train.lr, fused=fused)


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
