"""A note about an optimizer that was made before `convert` or `bake`: it holds parameters that the model has no more, and none
of those in their place.

Whether someone still holds a replaced parameter is seen when the model is done. Mostly nobody does, and nothing is left behind.
Else the steps of optimizers are watched, by torch's hook for all of them, until these are gone or the note was given. An
optimizer is told of where it holds a replaced parameter that gets no gradient, and none of the parameters that make the layers'
weights now. So weights that are kept on purpose are no cause: those that another model trains get gradients, and where nobody
steps them, nobody asks.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from rpgmt.rpg.untrained_banks import forget_banks


@dataclass(frozen=True, eq=False)
class _Watch:
    """What was replaced in one model, what stands for it, and what to say of an optimizer that steps the former."""

    replaced: list[weakref.ref[Tensor]]
    now: list[weakref.ref[Tensor]]
    note: str


_watches: list[_Watch] = []  # of the process, since the hook is


def watch_optimizers(replaced: Iterable[weakref.ref[Tensor]], now: Iterable[Tensor], note: str) -> None:
    """Watches the steps of optimizers for parameters that a model lost.

    Args:
        replaced: The parameters that the model had, without gradients.
        now: The parameters that make its weights now.
        note: What an optimizer steps and does not, and the way out.
    """
    alive = [reference for reference in replaced if reference() is not None]
    if alive:
        _watches.append(_Watch(alive, [weakref.ref(parameter) for parameter in now], note))
        _start()


@functools.cache
def _start() -> None:
    register_optimizer_step_pre_hook(_look)  # for good: torch goes through its hooks while it calls them


def _look(optimizer: Optimizer, *step: Any) -> None:
    for watch in list(_watches):
        alive = [weight for reference in watch.replaced if (weight := reference()) is not None]
        if not alive:
            _watches.remove(watch)
            continue
        steps = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        lost = any(id(weight) in steps and weight.grad is None for weight in alive)
        if lost and not any(id(reference()) in steps for reference in watch.now):
            _watches.remove(watch)
            forget_banks(watch.now)
            warnings.warn(f"the {type(optimizer).__name__} steps {watch.note}", stacklevel=4)  # at the call of `step`
