"""A note about optimizers that step the parameters beside generated weights, and not the bank that makes these.

A bank is the child of one module, so groups by part (`model.backbone.parameters()`) or filters by name leave it out without a
word. Every bank is watched until an optimizer that holds it makes a step: from then on nothing is paid. Before, a step of any
optimizer looks at the banks that have a gradient. One that steps parameters of the bank's layers without it is told of at its
second such step, since another optimizer may hold the bank and make its step after the first one.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Iterable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from rpgmt.rpg.frozen import own_parameters, parts

B = TypeVar("B", bound=nn.Module)

# Banks that no optimizer was seen to step, and whether the optimizers that were seen step what lies beside their weights.
_untrained: WeakKeyDictionary[nn.Module, WeakKeyDictionary[Optimizer, bool]] = WeakKeyDictionary()


def watch_bank(bank: B) -> B:
    """Watches the steps of optimizers until one has the bank, which is returned."""
    _untrained[bank] = WeakKeyDictionary()
    _start()
    return bank


def forget_banks(values: Iterable[weakref.ref[Tensor]]) -> None:
    """Watches the banks with these parameters no more: of their optimizer something else was said."""
    told = [reference() for reference in values]
    for bank in list(_untrained):
        if _waits(bank) and any(bank.values is parameter for parameter in told):
            _untrained.pop(bank, None)


@functools.cache
def _start() -> None:
    register_optimizer_step_pre_hook(_look)  # for good: torch goes through its hooks while it calls them


def _look(optimizer: Optimizer, *step: Any) -> None:
    if torch.compiler.is_compiling() or not _untrained:
        return
    waiting = [(bank, seen) for bank, seen in list(_untrained.items()) if _waits(bank)]
    if not waiting:
        return
    steps = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for bank, seen in waiting:
        if id(bank.values) in steps:
            _untrained.pop(bank, None)
        elif optimizer not in seen:
            seen[optimizer] = not steps.isdisjoint(map(id, _beside(bank)))
        elif seen[optimizer]:
            _untrained.pop(bank, None)
            warnings.warn(
                f"the {type(optimizer).__name__} steps parameters of the {type(bank.root).__name__}, and none steps its "
                "bank, which makes the generated weights: take `rpgmt.parameter_groups`, or add `model.bank.parameters()`; "
                "if the bank shall stay, freeze it",
                stacklevel=4,  # at the call of `step`
            )


def _waits(bank: nn.Module) -> bool:
    """Whether the bank is to be trained, and has a gradient; one that is being built has no values yet."""
    values = getattr(bank, "values", None)
    return values is not None and values.requires_grad and values.grad is not None


def _beside(bank: nn.Module) -> list[nn.Parameter]:
    """The parameters of the layers that the bank makes weights for, or of the smallest modules around; not the bank's."""
    root = bank.root
    if not isinstance(root, nn.Module):
        return []
    around = [root.get_submodule(name) for name in parts(bank, root)] or [root]
    return [parameter for part in around for parameter in own_parameters(part, bank)]
