"""Pruning of single elements: the smallest weights of plain layers, or entries of banks, are held at zero.

The usual way to fewer parameters, with which generated networks are compared, and which can be done to them too. Plain layers
are what `rpgmt.bake(model)` makes; `rpgmt.baselines.channels` takes whole channels out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rpgmt.baselines.masks import Masks, count_remaining
from rpgmt.baselines.parameter_count import Pruning, check_count
from rpgmt.rpg.layers import banks_of
from rpgmt.rpg.learned_signs import refuse_signed


def prune_weights(model: nn.Module, parameters: int) -> Pruning:
    """Holds the smallest weights of a model's convolutions and linear layers at zero, compared over all layers.

    Global magnitude pruning (S. Han et al., Learning both weights and connections, NeurIPS 2015, arXiv 1506.02626). The zeros
    last through training, see `Masks`; norms, biases, banks and frozen weights are left alone. Pruning again goes on from what
    remains.

    Args:
        model: The root: the module whose forward is called.
        parameters: Trained parameters that shall remain in the whole model; if no more remain, nothing is changed.

    Returns:
        What remains: exactly `parameters`.

    Raises:
        ValueError: More parameters than that cannot be pruned.
    """
    refuse_signed(model, "pruned")
    chosen, seen = [], set()
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and weight is not None:
            if weight.requires_grad and id(weight) not in seen:
                chosen.append(_Prunable(name, module, "weight", weight.detach().abs()))
            seen.add(id(weight))
    return _prune(model, parameters, chosen, "weights of plain convolutions and linear layers")


def prune_banks(model: nn.Module, parameters: int) -> Pruning:
    """Holds entries of a model's banks at zero: those that change its generated weights least.

    Without an entry the weights change, squared and summed, by entry² · Σ scale² over its uses; entries of all banks are
    compared by it. The zeros last through training, see `Masks`.

    Args:
        model: A root with banks.
        parameters: As for `prune_weights`.

    Returns:
        What remains: exactly `parameters`.

    Raises:
        ValueError: As for `prune_weights`.
    """
    chosen = []
    for name, bank in banks_of(model).items():
        values = bank.values.detach()
        chosen.append(_Prunable(name, bank, "values", values.abs() * bank.generator.squared_scales(values.device).sqrt()))
    return _prune(model, parameters, chosen, "entries of banks")


def unmask(model: nn.Module) -> None:
    """Ends the pruning of single elements: zeros stay where they are, and train again."""
    masks = Masks.of(model)
    if masks is not None:
        masks.take_off(model)


@dataclass(frozen=True)
class _Prunable:
    """A parameter of which elements can be pruned, and how much each matters."""

    name: str
    owner: nn.Module
    attribute: str
    importance: Tensor


def _prune(model: nn.Module, parameters: int, chosen: Sequence[_Prunable], what: str) -> Pruning:
    check_count(parameters)
    masks = Masks.of(model) or Masks()
    before = count_remaining(model)
    flags = []
    for c in chosen:
        mask = masks.mask(c.owner, c.attribute)
        flags.append(torch.zeros_like(c.importance, dtype=torch.bool) if mask is None else mask.to(c.importance.device))
    if parameters < before:
        flat = torch.cat([flag.flatten() for flag in flags]) if flags else torch.zeros(0, dtype=torch.bool)
        free = len(flat) - int(flat.sum())
        if before - parameters > free:
            raise ValueError(
                f"`parameters` is {parameters}: only {free} of the {before} remaining parameters are {what}; give at least "
                f"{before - free}"
            )
        importance = torch.cat([c.importance.flatten().double() for c in chosen])
        importance[flat] = math.inf  # pruned before
        flat[importance.topk(before - parameters, largest=False).indices] = True
        split = flat.split([flag.numel() for flag in flags])
        flags = [piece.view_as(flag) for piece, flag in zip(split, flags, strict=True)]
        for c, flag in zip(chosen, flags, strict=True):
            if flag.any():
                masks.set_mask(c.owner, c.attribute, flag.clone())
        if Masks.of(model) is None:
            masks.put_on(model)
        masks.hold()
    layers = {c.name: (int((~flag).sum()), flag.numel()) for c, flag in zip(chosen, flags, strict=True)}
    return Pruning(before, count_remaining(model), layers)
