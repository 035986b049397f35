"""Pruned parameters: single elements of weights and banks that are held at zero while the rest is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rpgmt.rpg.report import report


class Masks:
    """Holds elements of a model's parameters at zero, as a hook that runs before each of the model's forwards.

    A masked element gets no gradient, so an optimizer that begins with the pruned model leaves it at zero. One that was at work
    before may move it by what it remembers; the next forward sets it back. Names and values in the state dict are those of
    the model without masks: a masked element is a 0. Copies of the model have masks of their own.

    `torch.nn.utils.prune` would do it by replacing each weight by a product, which cannot be deep-copied (by averages of
    weights, by counting) and has other names in checkpoints, and which a bank, that compares its values, cannot have.
    """

    def __init__(self) -> None:
        self._masked: list[_Masked] = []

    @staticmethod
    def of(model: nn.Module) -> Masks | None:
        """The masks of a model, or None."""
        return next((hook for hook in model._forward_pre_hooks.values() if isinstance(hook, Masks)), None)

    def put_on(self, model: nn.Module) -> None:
        """Makes these the masks of `model`."""
        # Before the hook by which a bank generates.
        model.register_forward_pre_hook(self, prepend=True)

    def take_off(self, model: nn.Module) -> None:
        """Ends it; the elements are zero and free."""
        self.hold()
        for masked in self._masked:
            masked.release()
        for key in [key for key, hook in model._forward_pre_hooks.items() if hook is self]:
            del model._forward_pre_hooks[key]

    def mask(self, owner: nn.Module, name: str) -> Tensor | None:
        """True where elements of the parameter `owner.name` are held at zero; None without a mask."""
        return next((m.mask for m in self._masked if m.owner is owner and m.name == name), None)

    def set_mask(self, owner: nn.Module, name: str, mask: Tensor) -> None:
        """Holds the elements of the parameter `owner.name` at zero where `mask` is True, instead of those before."""
        for masked in self._masked:
            if masked.owner is owner and masked.name == name:
                masked.mask = mask
                return
        self._masked.append(_Masked(owner, name, mask))

    def __iter__(self) -> Iterator[tuple[nn.Module, str, Tensor]]:
        return iter([(masked.owner, masked.name, masked.mask) for masked in self._masked])

    def __call__(self, model: nn.Module, inputs: Any) -> None:
        if not torch.compiler.is_compiling():
            self.hold()

    def hold(self) -> None:
        """Sets masked elements that were moved to zero."""
        for masked in self._masked:
            masked.hold()


class _Masked:
    """The mask of one parameter."""

    def __init__(self, owner: nn.Module, name: str, mask: Tensor) -> None:
        self.owner, self.name, self.mask = owner, name, mask
        self._guarded: Tensor | None = None  # whose gradients are masked
        self._guard: Any = None

    def hold(self) -> None:
        parameter = getattr(self.owner, self.name)
        if parameter.is_meta:  # no values, as where multiply-accumulates are counted
            return
        if self.mask.device != parameter.device:
            self.mask = self.mask.to(parameter.device)
        if parameter is not self._guarded:
            self.release()
            self._guarded = parameter
            self._guard = parameter.register_hook(self._without_masked) if parameter.requires_grad else None
        with torch.no_grad():
            # Asked first, since a change in place makes a bank generate anew.
            if (self.mask & (parameter != 0)).any():
                parameter.masked_fill_(self.mask, 0)

    def release(self) -> None:
        if self._guard is not None:
            self._guard.remove()
        self._guarded = self._guard = None

    def _without_masked(self, gradient: Tensor) -> Tensor:
        return gradient.masked_fill(self.mask, 0)

    def __getstate__(self) -> dict[str, Any]:
        # A copy's parameter is another, which is guarded at its first forward.
        return self.__dict__ | {"_guarded": None, "_guard": None}


def count_remaining(model: nn.Module) -> int:
    """Trained parameters of a model that are not held at zero."""
    masks, inside = Masks.of(model), set(model.modules())
    held = sum(int(mask.sum()) for owner, name, mask in masks or () if owner in inside and getattr(owner, name).requires_grad)
    return report(model).trainable - held
