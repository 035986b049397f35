"""bake(model) turns generated layers into plain ones, in place."""

from __future__ import annotations

import abc
import weakref
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from rpgmt.rpg.bank import Bank
from rpgmt.rpg.layers import GeneratedLayer
from rpgmt.rpg.old_optimizers import watch_optimizers

M = TypeVar("M", bound=nn.Module)


class ComputedLayer(nn.Module, abc.ABC):
    """A layer whose weight is computed of several parameters, and comes from no bank. Abstract: see `rpgmt.baselines`."""

    @abc.abstractmethod
    def become_plain(self) -> None:
        """Becomes the plain `nn` layer, in place, with the weight as it is now."""


def bake(model: M) -> M:
    """Turns generated layers into plain `nn` layers that hold the weights generated last, bit for bit, in place.

    So it does with layers that compute their weights (`ComputedLayer`); other layers are left as they are.

    Returns:
        The same model.

    Raises:
        RuntimeError: The model is a part of one whose bank it draws on, or a generated layer has a parametrization, of its bias
            say.
    """
    layers = [module for module in model.modules() if isinstance(module, GeneratedLayer)]
    banks = {id(layer.bank): layer.bank for layer in layers} | {id(m): m for m in model.modules() if isinstance(m, Bank)}
    inside = set(model.modules())
    if any(bank.root is not None and bank.root not in inside for bank in banks.values()):
        raise RuntimeError("a part of a model was given, whose bank makes other layers' weights too: bake the root")
    made: list[nn.Parameter] = []
    for name, module in model.named_modules():
        if isinstance(module, GeneratedLayer) and is_parametrized(module):
            raise RuntimeError(f"`{name}` has a parametrization: take it off by `remove_parametrizations`, then bake")
    with torch.no_grad():
        for layer in layers:
            trains = layer.bank.values.requires_grad
            weights = {name: nn.Parameter(weight.clone(), requires_grad=trains) for name, weight in layer.weights().items()}
            del layer.__dict__["bank"], layer.__dict__["segments"]
            layer.__class__ = layer.plain  # type: ignore[assignment]
            layer._parameters = {**weights, **layer._parameters}
            made += weights.values()
    replaced = _take_out(banks.values())
    banks.clear()  # a bank that nobody else holds is gone now
    watch_optimizers(
        replaced,
        made,
        f"a bank that `rpgmt.bake` took out of the {type(model).__name__}, and not its weights: make the optimizer after "
        "`bake`",
    )
    for module in list(model.modules()):
        if isinstance(module, ComputedLayer):
            module.become_plain()
    return model


def _take_out(banks: Iterable[Bank]) -> list[weakref.ref[Tensor]]:
    """Takes banks out of their roots; returns the parameters that were trained there."""
    trained: list[weakref.ref[Tensor]] = []
    for bank in banks:
        bank.unregister()
        bank.values.grad = None  # an old gradient would hide that an optimizer's bank gets none any more
        if bank.values.requires_grad:
            trained.append(weakref.ref(bank.values))
    return trained
