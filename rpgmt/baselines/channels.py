"""Pruning of channels: layers become smaller, and with them the network's arithmetic."""

from __future__ import annotations

import copy
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from rpgmt.baselines.masks import Masks
from rpgmt.baselines.parameter_count import Pruning, check_count
from rpgmt.rpg.layers import GeneratedLayer
from rpgmt.rpg.report import report

METHODS = ("l1", "fpgm")


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
    check_count(parameters)
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
