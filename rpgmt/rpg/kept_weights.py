"""What training may keep of generated weights in place of the weights: a gradient that waits in them, or nothing.

Where gradients are deferred, forwards share the weights that the first one made, and gradients wait in them (`Deferral`). Where
weights are regenerated, none is kept: a layer's is made when the layer runs, and again for its backward (`Regeneration`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rpgmt.rpg.current_weights import version_of
from rpgmt.rpg.generate import ParameterGenerator

# ---- deferred gradients


class Deferral:
    """The optimizer step of several forwards and backwards for which a bank generates once, and gathers its gradient once.

    Attributes:
        on: Whether backwards leave their gradients waiting.
    """

    def __init__(self) -> None:
        self.on = False
        self._step: _Step | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Deferral, ()  # copies do not share what waits

    @property
    def concerns_next_forward(self) -> bool:
        """Whether the next forward shares weights: its gradient will wait, or take along what has waited."""
        return self.on or (self._step is not None and not self._step.taken)

    def drop(self) -> None:
        """Forgets the step, and what waits in it."""
        self._step = None

    def share(self, values: Tensor, bank: Tensor, generator: ParameterGenerator, dtype: torch.dtype) -> Tensor:
        """The weights that the forwards of the step share.

        Args:
            values: What the gradient goes to: the bank's parameter, or what was computed from it without changing it.
            bank: The bank's parameter.
            generator: The bank's.
            dtype: Of the weights.

        Raises:
            RuntimeError: The bank changed while a gradient waited.
        """
        now, step = bank.detach(), self._step
        if step is not None:
            step.drop_if_cleared()
        if step is not None and not torch.equal(step.values, now):
            self._step = None
            if step.gradient is not None:
                raise RuntimeError(
                    "a bank's values changed while gradients waited in its generated weights, and these are lost: run the "
                    "last forward and backward of a step outside of `rpgmt.defer_gradients`"
                )
            step = None
        if step is None or step.taken:
            step = _Step(generator, bank, now.clone(), generator.generate(now, dtype))
        elif step.flat.dtype != dtype:
            step.flat = generator.generate(now, dtype)
        self._step = step
        return _Waiting.apply(values, step, self.on)


@dataclass
class _Step:
    """What the forwards of one optimizer step share: weights made from the bank, and the gradient that waits in them.

    Args:
        generator: The bank's.
        bank: The bank's parameter.
        values: What that held.
        flat: The weights made from it.
        gradient: The sum of what waits.
        taken: The last backward has taken it; what comes after goes to the bank at once.
    """

    generator: ParameterGenerator
    bank: Tensor
    values: Tensor
    flat: Tensor
    gradient: Tensor | None = None
    taken: bool = False

    def drop_if_cleared(self) -> None:
        """What waits goes with the bank's `grad`, where a zero, or more, stands for it once its backward has ended."""
        if self.bank.grad is None:
            self.gradient = None


class _Waiting(torch.autograd.Function):
    """Shared weights. Their gradient waits, or takes what has waited along to the bank."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: _Step, waits: bool) -> Tensor:
        ctx.step, ctx.waits, ctx.had_gradient = step, waits, step.bank.grad is not None
        return step.flat.view_as(step.flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        step = ctx.step
        waits = ctx.waits and not step.taken
        total = gradients[0].to(torch.promote_types(step.values.dtype, torch.float32), copy=waits)
        if ctx.had_gradient:
            step.drop_if_cleared()
        if step.gradient is not None:
            total = step.gradient.add_(total)
        if waits:
            first, step.gradient = step.bank.grad is None, total
            # A gradient for `zero_grad` to clear, so that it drops what waits, too.
            return torch.zeros_like(step.values) if first else None, None, None
        step.gradient, step.taken = None, True
        return step.generator.fold(total, step.values.dtype), None, None


@contextmanager
def defer_gradients(model: nn.Module) -> Iterator[None]:
    """Banks generate once, and gather their gradient once, for an optimizer step of several forwards and backwards.

    Meanwhile forwards share the weights that the first one made, and backwards leave the banks' gradients waiting in them. The
    first forward and backward outside take them along, as those of `DistributedDataParallel.no_sync` do, so that a step is

        for i, batch in enumerate(batches):
            with defer_gradients(model) if i < len(batches) - 1 else nullcontext():
                loss(model(batch)).backward()
        optimizer.step()

    `zero_grad()` drops what waits, with `set_to_none`, its default. It costs the memory of the M weights and their gradients
    between the batches. Compiled models and banks with `regenerate` ignore it. Not for `torch.autograd.grad`: inside, a
    bank's gradient is zero or None.

    Args:
        model: The root of the banks.

    Raises:
        RuntimeError: By a later forward: the values of a bank changed while gradients waited.
    """
    deferrals = [d for module in model.modules() if isinstance(d := module.__dict__.get("deferral"), Deferral)]
    before = [deferral.on for deferral in deferrals]
    for deferral in deferrals:
        deferral.on = True
    try:
        yield
    finally:
        for deferral, on in zip(deferrals, before, strict=True):
            deferral.on = on


# ---- regenerated weights


@dataclass(frozen=True)
class Recipe:
    """How to make one layer's weight, again.

    Args:
        generator: The bank's.
        values: The bank's parameter.
        version: The version that the parameter had.
        segment: The layer's.
        dtype: Of the weight.
    """

    generator: ParameterGenerator
    values: Tensor
    version: int
    segment: int
    dtype: torch.dtype

    def make(self) -> Tensor:
        """The (numel,) weight."""
        return self.generator.generate_alone(self.values, self.segment, self.dtype)


class Regeneration(threading.local):
    """Makes a layer's weight when the layer runs, and again for its backward; each thread runs layers of its own."""

    def __init__(self) -> None:
        # The weights that the running layer has read, by segment; None outside of layers. They are held, so that a layer that
        # reads its weight again gets it again, and no other tensor comes to lie in a weight's memory meanwhile.
        self._drawn: dict[int, tuple[Tensor, Recipe]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Regeneration, ()

    def promise(self, values: Tensor, generator: ParameterGenerator, dtype: torch.dtype) -> Tensor:
        """A stand-in for all weights, which takes no memory; gradients go through it to `values`."""
        return _Promised.apply(values, generator, dtype)

    def redeem(self, promised: Tensor, recipe: Recipe) -> Tensor:
        """A layer's weight in place of its part of the stand-in."""
        drawn = {} if self._drawn is None else self._drawn
        if recipe.segment not in drawn:
            drawn[recipe.segment] = _Redeemed.apply(promised, recipe), recipe
        return drawn[recipe.segment][0]

    @contextmanager
    def dropping_weights(self) -> Iterator[None]:
        """Meanwhile autograd keeps a note for each redeemed weight that it would save, and makes the weight again from it."""
        before, self._drawn = self._drawn, {}
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._note, _remake):
                yield
        finally:
            self._drawn = before

    def _note(self, saved: Tensor) -> Tensor | _Note:
        address = saved.untyped_storage().data_ptr()
        for weight, recipe in (self._drawn or {}).values():
            if weight.untyped_storage().data_ptr() == address:
                return _Note(recipe, (saved.size(), saved.stride(), saved.storage_offset()))
        return saved


class _Promised(torch.autograd.Function):
    """A stand-in whose gradient is that of the weights."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, generator: ParameterGenerator, dtype: torch.dtype) -> Tensor:
        ctx.generator, ctx.dtype = generator, values.dtype
        return values.new_zeros((), dtype=dtype).expand(generator.layout.offsets[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.generator.fold(gradients[0], ctx.dtype), None, None


class _Redeemed(torch.autograd.Function):
    """The identity for gradients, another value."""

    @staticmethod
    def forward(ctx: Any, promised: Tensor, recipe: Recipe) -> Tensor:
        return recipe.make().view(promised.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@dataclass(frozen=True)
class _Note:
    """What autograd keeps of a weight that can be made again."""

    recipe: Recipe
    view: tuple[Any, ...]  # size, strides and offset


def _remake(saved: Tensor | _Note) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    if version_of(saved.recipe.values) != saved.recipe.version:
        raise RuntimeError(
            "a bank's values changed between a forward and its backward, which makes the weights of the forward again: call "
            "the optimizer after the backward"
        )
    with torch.no_grad():
        return saved.recipe.make().as_strided(*saved.view)
