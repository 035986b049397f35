"""The optimizer of a training."""

from __future__ import annotations

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
