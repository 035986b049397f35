"""Notes about parameters that were frozen after a model was converted.

The weights of a generated layer are not the layer's: freezing its parameters, the usual way to keep a part of a network as it
is, leaves them in training, with the bank. Where the bank lies in one of its layers, freezing that one freezes all.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

_WAY_OUT = "freeze layers before `rpgmt.convert`, which leaves them as they are, or convert the others alone (`exclude`)"


class FreezeWatch:
    """Tells of frozen parameters beside generated weights, once a part.

    A part is a generated layer that has parameters of its own (a bias), or the smallest module with parameters around one that
    has none. It is frozen where all of these are. Parts that were frozen when the model was converted are left out.

    Args:
        start: The names of these.
    """

    def __init__(self, start: frozenset[str] = frozenset()) -> None:
        self._start = start
        # A parameter that trains for each part that does: to look at these is all that a forward pays.
        self._trained: dict[str, nn.Parameter] | None = None
        self._told = False

    def __reduce__(self) -> tuple[Any, ...]:
        return FreezeWatch, (self._start,)

    def look(self, bank: nn.Module, root: nn.Module) -> None:
        """Called before a forward with gradients.

        Warns:
            UserWarning: A part was frozen, and its generated weights train on.
        """
        if self._trained is None:
            self._trained = {}
            frozen = [name for name in parts(bank, root) if name not in self._start and not self._find(name, bank, root)]
        else:
            stopped = [name for name, parameter in self._trained.items() if not parameter.requires_grad]
            frozen = [name for name in stopped if not self._find(name, bank, root)]
        if frozen:
            more = f" and {len(frozen) - 1} more" if len(frozen) > 1 else ""
            warnings.warn(
                f"`{frozen[0]}`{more} of the {type(root).__name__} is frozen, but generated weights are not its parameters and "
                f"train on with their bank: {_WAY_OUT}",
                stacklevel=2,
            )

    def look_at_holder(self, root: nn.Module, holder: nn.Module) -> None:
        """Called before a forward in which the bank wants no gradient, and lies in the layer `holder`.

        Warns:
            UserWarning: It was frozen with the layer, while others train.
        """
        if self._told:
            return
        self._told = True
        if any(p.requires_grad for p in holder.parameters()) or not any(p.requires_grad for p in root.parameters()):
            return
        name = next((name for name, module in root.named_modules() if module is holder), "")
        warnings.warn(
            f"`{name}` of the {type(root).__name__} is frozen, and the bank in it with all weights that this makes for other "
            f"layers: {_WAY_OUT}",
            stacklevel=2,
        )

    def _find(self, name: str, bank: nn.Module, root: nn.Module) -> bool:
        """Whether a part trains still; from now on one of its parameters stands for it."""
        assert self._trained is not None
        self._trained.pop(name, None)
        try:
            part = root.get_submodule(name)
        except AttributeError:  # it was taken out
            return True
        trained = next((p for p in own_parameters(part, bank) if p.requires_grad), None)
        if trained is not None:
            self._trained[name] = trained
        return trained is not None


def parts(bank: nn.Module, root: nn.Module) -> list[str]:
    """The names of the parts of `root` whose weights `bank` makes."""
    found: dict[str, None] = {}
    for name, module in root.named_modules():
        if module.__dict__.get("bank") is bank and module is not root:
            while name and not own_parameters(root.get_submodule(name), bank):
                name = name.rpartition(".")[0]
            if name:
                found[name] = None
    return list(found)


def frozen_parts(bank: nn.Module, root: nn.Module) -> frozenset[str]:
    """Those that do not train now."""
    return frozenset(
        name for name in parts(bank, root) if not any(p.requires_grad for p in own_parameters(root.get_submodule(name), bank))
    )


def own_parameters(part: nn.Module, bank: nn.Module) -> list[nn.Parameter]:
    """A part's parameters without those of banks."""
    return [p for module in part.modules() if not isinstance(module, type(bank)) for p in module.parameters(recurse=False)]
