"""Which model runs, and whether it holds the bank that its generated layers draw on.

A part of a converted model that is put into another one takes the layers along, but the bank may stay behind: it then gets
gradients, and no optimizer of the new model has it. A layer cannot see who holds it. But where it runs outside of its bank's
root, the modules that run are on Python's stack, the outermost first. That is looked at there alone, so training pays nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import CodeType, FrameType
from typing import NoReturn
from weakref import WeakSet

import torch
from torch import nn
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

REMEDY = "change the bank's `values` (`project` fits them to weights), or call `rpgmt.bake(model)` first"

_CALL = nn.Module._call_impl.__code__
_STATE = nn.Module.state_dict.__code__

_told: WeakSet[nn.Module] = WeakSet()  # banks without which a state was saved


def running_model(layer: nn.Module) -> nn.Module | None:
    """The outermost of the running modules that hold `layer`; None where none does, as where a weight is read by hand."""
    return next((module for module in reversed(_on_stack(_CALL)) if holds(module, layer)), None)


def warn_of_state_without_bank(bank: nn.Module, root: nn.Module | None) -> None:
    """Called while the state of a layer of `bank` is saved: notes once that the state that is asked for lacks the bank.

    Warns:
        UserWarning: It would load into a like model without an error, and leave the generated weights there as they are.
    """
    if root is None or bank in _told:
        return
    saved = _on_stack(_STATE)
    # The root first, which is the usual case and takes no search.
    if not saved or any(module is root for module in saved) or any(holds(module, bank) for module in saved):
        return
    _told.add(bank)
    warnings.warn(
        f"the `state_dict` of a {type(saved[-1]).__name__} lacks its generated weights, which are the bank's: save that of the "
        f"{type(root).__name__} that was converted, or `rpgmt.bake` a copy of it and save the part of this",
        stacklevel=2,
    )


def _on_stack(code: CodeType) -> list[nn.Module]:
    """The modules whose method of this code runs, the outermost last."""
    frame: FrameType | None = sys._getframe(1)
    running = []
    while frame is not None:
        if frame.f_code is code:
            running.append(frame.f_locals["self"])
        frame = frame.f_back
    return running


def holds(module: nn.Module, part: nn.Module) -> bool:
    """Whether `part` is somewhere in `module`."""
    return any(other is part for other in module.modules())


def check_trains_with_bank(
    layer: nn.Module, model: nn.Module | None, bank: nn.Module, root: nn.Module | None, check_registered: Callable[[], None]
) -> None:
    """Sees to it that whoever trains what runs has the bank among its parameters.

    Args:
        layer: A generated layer, which is read with gradients outside of the forward of its bank's root.
        model: The outermost module that runs and holds the layer, if one runs.
        bank: The layer's.
        root: The bank's.
        check_registered: Raises an error where the root has the bank no more.

    Raises:
        RuntimeError: `model` neither holds the bank nor is a part of its root.
    """
    if torch._C._current_graph_task_id() != -1:  # a checkpoint runs its part again, for a forward that was looked at
        return
    if model is not None and holds(model, bank):
        return
    check_registered()
    if model is None or root is None or holds(root, model):
        return
    name = next((name for name, module in model.named_modules() if module is layer), "")
    raise RuntimeError(
        f"`{name}` of a {type(model).__name__} runs with gradients and without its bank, which would train unseen by the "
        f"optimizer: keep it a part of the {type(root).__name__} that was converted, or call `rpgmt.bake` on that before "
        "you take it apart; to look, run it under `torch.no_grad()`"
    )


def tracer() -> str:
    """What records the running forward once, if anything does: the bank would be left out, and the weights be constants."""
    if torch._C._get_tracing_state():
        return "torch.jit.trace"
    return "torch.fx.symbolic_trace" if is_fx_symbolic_tracing() else ""


def refuse_tracers() -> None:
    """Refuses these.

    Raises:
        RuntimeError: One is at work.
    """
    if tool := tracer():
        refuse(f"{tool} cannot follow generated weights to their bank")


def refuse_change(bank: nn.Module, root: nn.Module | None, segments: set[int]) -> NoReturn:
    """Says that generated weights were changed in place, and those of which layer.

    Raises:
        RuntimeError: Always.
    """
    names = (
        f", that of `{name}`"
        for name, module in (root.named_modules() if root is not None else ())
        if module.__dict__.get("bank") is bank and not segments.isdisjoint(module.__dict__["segments"].values())
    )
    where = next(names, "")
    raise RuntimeError(f"a generated weight was changed in place{where}, which the next generation would undo: {REMEDY}")


def refuse(what: str) -> NoReturn:
    """Says that plain layers are wanted.

    Raises:
        RuntimeError: Always.
    """
    raise RuntimeError(f"{what}: call `rpgmt.bake(model)` first")
