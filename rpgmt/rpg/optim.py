"""Optimizer groups with which one learning rate serves plain and generated networks."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from rpgmt.rpg.layers import banks_of

OPTIMIZERS = ("adam", "adamw", "sgd")


def parameter_groups(model: nn.Module, optimizer: str, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Parameter groups for `torch.optim`: one for each bank with a rate of its own, and one for the rest.

    An entry of a bank makes k = M/N weights, whose gradients are nearly uncorrelated. Adam divides their sum by its typical
    size, √k times that of one gradient, so each weight moves only 1/√k as far along its own gradient as in a plain network:
    the bank's rate is √max(1, k) × `lr`. SGD adds the gradients undivided and needs no factor. AdamW's decay is multiplied by
    the rate, so the bank's is divided by the factor. Schedules must multiply each group's own rate (`LambdaLR` does;
    `OneCycleLR` with one `max_lr` does not).

    Args:
        model: The root, converted or not.
        optimizer: "adam", "adamw" or "sgd": what the groups are for.
        lr: The rate of a plain network's parameters.
        weight_decay: The decay of a plain network's parameters.

    Returns:
        Groups with `params`, `lr`, `weight_decay` and `name`; parameters that need no gradient are left out.

    Raises:
        ValueError: The optimizer is unknown, or a generated layer's bank is not part of the model.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"`optimizer` is {optimizer!r}: must be one of {', '.join(OPTIMIZERS)}")
    banks = banks_of(model)
    in_banks = {id(bank.values) for bank in banks.values()}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in in_banks]
    groups: list[dict[str, Any]] = []
    if rest:
        groups.append({"params": rest, "lr": lr, "weight_decay": weight_decay, "name": "fixed"})
    for name, bank in banks.items():
        if bank.values.requires_grad:
            factor = 1.0 if optimizer == "sgd" else math.sqrt(max(1.0, bank.uses))
            decay = weight_decay / factor if optimizer == "adamw" else weight_decay
            groups.append({"params": [bank.values], "lr": lr * factor, "weight_decay": decay, "name": name})
    return groups
