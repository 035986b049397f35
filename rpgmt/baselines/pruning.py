"""Pruning, the usual way to fewer parameters: what generated networks are compared with, and what can be done to them too.

Three functions bring a model to a number of trained parameters. `prune_weights` holds the smallest weights of plain layers at
zero, `prune_channels` takes whole channels out, and `prune_banks` holds entries of banks at zero. The first two want plain
layers: `rpgmt.bake(model)` makes them.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from rpgmt.baselines.masks import Masks, count_remaining
from rpgmt.rpg.generate import squared_scales
from rpgmt.rpg.layers import GeneratedLayer, banks_of
from rpgmt.rpg.report import report

METHODS = ("l1", "fpgm")


@dataclass(frozen=True)
class Pruning:
    """What pruning left.

    Args:
        before: Trained parameters of the model before, without those that were pruned already.
        after: The same afterwards.
        layers: Layer or bank → how many parameters of its weight, or entries, remain, and how many there were at first.
    """

    before: int
    after: int
    layers: dict[str, tuple[int, int]]


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
        chosen.append(_Prunable(name, bank, "values", values.abs() * squared_scales(bank.layout, values.device).sqrt()))
    return _prune(model, parameters, chosen, "entries of banks")


def unmask(model: nn.Module) -> None:
    """Ends the pruning of single elements: zeros stay where they are, and train again."""
    masks = Masks.of(model)
    if masks is not None:
        masks.take_off(model)


def prune_channels(
    model: nn.Module, parameters: int, example: Tensor, *, method: str = "l1", keep: Sequence[str] = ()
) -> Pruning:
    """Takes the least important channels out of a model, compared over all layers; layers become smaller, in place.

    Channels that must go together, as those that a sum joins, are found by torch-pruning (G. Fang et al., DepGraph, CVPR 2023,
    arXiv 2301.12900), which also says how much they matter. Each layer's importances are divided by their mean. Every group of
    layers keeps a channel. An optimizer that was made before holds the old parameters: make a new one.

    Args:
        model: A model of plain layers.
        parameters: Trained parameters of which at most so many shall remain; with one channel more it were more. If no more
            remain, nothing is changed.
        example: An input, (1, channels, height, width).
        method: "l1": channels with small weights (H. Li et al., ICLR 2017, arXiv 1608.08710). "fpgm": channels whose filter is
            near to the others of its layer (Y. He et al., CVPR 2019, arXiv 1811.00250).
        keep: Patterns (as in `fnmatch`) of layers that keep all channels that they put out: those whose output is the model's.

    Returns:
        What remains.

    Raises:
        ValueError: So few parameters cannot be reached, the model's output would get another shape, or it has banks or masks.
    """
    if method not in METHODS:
        raise ValueError(f"`method` is {method!r}: must be one of {', '.join(METHODS)}")
    _check_count(parameters)
    if isinstance(keep, str):
        raise ValueError(f"`keep` is {keep!r}: give a list of patterns, e.g. [{keep!r}]")
    names = [name for name, _ in model.named_modules()]
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"`keep` has {pattern!r}, which matches no layer of the {type(model).__name__}")
    if any(isinstance(module, GeneratedLayer) for module in model.modules()):
        raise ValueError("channels of generated weights cannot be taken out of their bank: call `rpgmt.bake(model)` first")
    if Masks.of(model) is not None:
        raise ValueError(
            "the model has masks, which would not fit fewer channels: call `rpgmt.baselines.pruning.unmask(model)` first"
        )
    before = report(model).trainable
    sizes = _weight_sizes(model)
    if parameters < before:
        most = _remove_channels(copy.deepcopy(model), 0, example, method, keep)
        trials: dict[int, int] = {}

        def surplus(removed: int) -> int:
            """How far the parameters are below what is wanted: grows with what is removed."""
            trial = copy.deepcopy(model)
            _remove_channels(trial, removed, example, method, keep)
            if not trials and _shapes(trial, example) != _shapes(model, example):
                raise ValueError("the model's output would lose channels: name the layers that make it in `keep`")
            trials[removed] = report(trial).trainable
            return parameters - trials[removed]

        if surplus(most) < 0:
            raise ValueError(f"`parameters` is {parameters}: taking out channels leaves no fewer than {trials[most]}")
        _remove_channels(model, bisect_left(range(most), 0, key=surplus), example, method, keep)
    return Pruning(before, report(model).trainable, {n: (now, sizes[n]) for n, now in _weight_sizes(model).items()})


@dataclass(frozen=True)
class _Prunable:
    """A parameter of which elements can be pruned, and how much each matters."""

    name: str
    owner: nn.Module
    attribute: str
    importance: Tensor


def _check_count(parameters: int) -> None:
    if type(parameters) is not int or parameters < 0:
        raise ValueError(f"`parameters` is {parameters!r}: give the number of parameters that shall remain, e.g. 100_000")


def _prune(model: nn.Module, parameters: int, chosen: Sequence[_Prunable], what: str) -> Pruning:
    _check_count(parameters)
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


def _remove_channels(model: nn.Module, count: int, example: Tensor, method: str, keep: Sequence[str]) -> int:
    """Takes `count` channels out of a model in place.

    Returns:
        How many can be taken out.
    """
    import torch_pruning

    kept = [module for name, module in model.named_modules() if any(fnmatchcase(name, pattern) for pattern in keep)]
    modes = {module: module.training for module in model.modules()}
    importance = _Importance(torch_pruning.importance.GroupMagnitudeImportance(p=1) if method == "l1" else _geometric_median)

    def pruner(share: float) -> Any:
        return torch_pruning.pruner.BasePruner(
            model, example, importance, global_pruning=True, pruning_ratio=share, ignored_layers=kept
        )

    total = pruner(0.0).initial_total_channels
    # The library cuts ⌊total · (1 - share)⌋ channels off the total; half a channel keeps that from rounding errors.
    first = pruner(max(0.0, count - 0.5) / max(1, total))
    first.step()
    for module, training in modes.items():  # tracing switches to evaluation
        module.training = training
    return total - importance.groups


class _Importance:
    """Importances of a group's channels, the largest made infinite: each group keeps that channel."""

    def __init__(self, measure: Callable[[Any], Tensor]) -> None:
        self.measure = measure
        self.groups = 0

    def __call__(self, group: Any) -> Tensor:
        self.groups += 1
        importance = self.measure(group).clone()
        importance[importance.argmax()] = math.inf
        return importance


def _geometric_median(group: Any) -> Tensor:
    """The sum of a filter's distances to the others of its layer, the mean over the layers that make the channels.

    The library's own FPGM takes distances of squared weights.
    """
    from torch_pruning import prune_conv_out_channels, prune_linear_out_channels

    sums = []
    for i, (dependency, channels) in enumerate(group):
        if dependency.pruning_fn in (prune_conv_out_channels, prune_linear_out_channels):
            layer = dependency.layer
            weight = layer.weight.detach()
            filters = (weight.transpose(0, 1) if getattr(layer, "transposed", False) else weight).flatten(1)[channels]
            distances = torch.cdist(filters, filters).sum(0)
            own = torch.zeros_like(distances)
            own[group[i].root_idxs] = distances
            sums.append(own / own.mean())
    return torch.stack(sums).mean(0)


def _shapes(model: nn.Module, example: Tensor) -> list[torch.Size]:
    from torch_pruning.utils.utils import flatten_as_list

    with torch.no_grad():
        return [tensor.shape for tensor in flatten_as_list(copy.deepcopy(model).eval()(example))]


def _weight_sizes(model: nn.Module) -> dict[str, int]:
    layers = nn.modules.conv._ConvNd | nn.Linear
    return {name: module.weight.numel() for name, module in model.named_modules() if isinstance(module, layers)}
