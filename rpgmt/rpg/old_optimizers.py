"""A note about an optimizer that was made before `convert`: it holds weights that the model has no more, and not the bank.

Whether someone still holds a replaced weight is seen when `convert` is done. Mostly nobody does, and nothing is left behind.
Else torch's hook for the steps of all optimizers is set, until the weights are gone or the note was given. An optimizer is told
of where it holds a replaced weight that gets no gradient, and none of the parameters that make the layers' weights now. So
weights that are kept on purpose are no cause: those that another model trains get gradients, and where nobody steps them,
nobody asks.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook


def watch_optimizers(replaced: Iterable[weakref.ref[Tensor]], banks: Iterable[Tensor], model: str) -> None:
    """Watches the steps of optimizers for parameters that a model lost.

    Args:
        replaced: The weights that the model had.
        banks: The parameters that make its weights now.
        model: What to call it.
    """
    alive = [reference for reference in replaced if reference() is not None]
    if not alive:
        return
    made = [weakref.ref(bank) for bank in banks]

    def look(optimizer: Optimizer, *step: Any) -> None:
        lost = {id(weight) for reference in alive if (weight := reference()) is not None and weight.grad is None}
        if not any(reference() is not None for reference in alive):
            handle.remove()
            return
        steps = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if lost & steps and not any(id(bank()) in steps for bank in made if bank() is not None):
            handle.remove()
            warnings.warn(
                f"the {type(optimizer).__name__} steps weights that `rpgmt.convert` took out of the {model}, and not its bank: "
                "make the optimizer after `convert`",
                stacklevel=4,  # at the call of `step`
            )

    handle = register_optimizer_step_pre_hook(look)
