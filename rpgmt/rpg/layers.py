"""Layers whose weights are generated from a bank. Biases stay parameters of the layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from rpgmt.rpg.bank import Bank
from rpgmt.rpg.differentiable import transforms_are_active
from rpgmt.rpg.generated_weight import GeneratedWeight
from rpgmt.rpg.running import REMEDY, check_trains_with_bank, refuse, refuse_tracers, running_model, warn_of_state_without_bank


def _generated(name: str) -> property:
    """The attribute `name` of a layer, where the layer's own parameter was."""

    def read(layer: GeneratedLayer) -> Tensor | None:
        if "bank" not in layer.__dict__ or name not in layer.segments:
            # The layer is being built and its initialiser fills a weight of its own, or it has no such weight.
            return layer._parameters[name]
        bank, segment = layer.bank, layer.segments[name]
        return bank.weight(segment) if bank.serves_forward else layer._read_outside(segment)

    return property(read, doc="The generated weight; it belongs to the bank and can be read only.")


class GeneratedLayer(nn.Module):
    """A layer whose weights are read from a bank. Abstract: the layers below are it and one of `nn`'s.

    Attributes:
        plain: The class of the layer with weights of its own.
        names: The parameters of that class that are generated, where it has them.
        bank: The bank; not a child of the layer.
        segments: The number of each weight in the bank.
    """

    plain: ClassVar[type[nn.Module]]
    names: ClassVar[tuple[str, ...]] = ("weight",)
    bank: Bank
    segments: dict[str, int]

    def draw_from(self, bank: Bank, segments: Mapping[str, int]) -> None:
        """Gives up the layer's own weights for segments of `bank`."""
        for name in segments:
            self._parameters.pop(name)
        self.__dict__["_parameters"] = _OwnParameters(self._parameters)
        # Past nn.Module, which would make the bank a child of every layer.
        self.__dict__["bank"] = bank
        self.__dict__["segments"] = dict(segments)

    def weights(self) -> dict[str, Tensor]:
        """The generated weights by name."""
        return {name: self.bank.weight(segment) for name, segment in self.segments.items()}

    def _read_outside(self, segment: int) -> Tensor:
        """The weight outside of the root's forward: what runs trains with the bank, and who reads it by hand cannot write."""
        refuse_tracers()
        model = running_model(self)
        if self.bank.needs_gradient():
            check_trains_with_bank(self, model, self.bank, self.bank.root, self.bank.check_registered)
        weight = self.bank.weight(segment)
        return weight if model is not None else GeneratedWeight.of(weight, self._refuse)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The plain layer's."""
        plain = super().forward
        if not self.bank.regenerate or torch.compiler.is_compiling() or transforms_are_active():
            return plain(*args, **kwargs)
        with self.bank.regeneration.dropping_weights():
            return plain(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.names:
            super().__setattr__(name, value)
        elif "bank" in self.__dict__:
            self._refuse("be assigned")
        else:
            self._parameters[name] = value

    def reset_parameters(self) -> None:
        """The layer's own initialiser, before the layer draws on its bank; later an error."""
        if "bank" in self.__dict__:
            self._refuse("be initialised again")
        super().reset_parameters()  # type: ignore[misc]

    def extra_repr(self) -> str:
        """The plain layer's, and N."""
        return ", ".join(filter(None, (super().extra_repr(), f"generated from {self.bank.size}")))

    def __reduce__(self) -> tuple[Any, ...]:
        return _new, (self.plain,), self.__getstate__()  # classes made here for other people's cannot be imported

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """The plain layer's; refuses what masks and norms would make of a generated weight."""
        if "bank" in self.__dict__ and isinstance(param, Tensor) and not isinstance(param, nn.Parameter):
            self._refuse("be pruned or normed")
        super().register_parameter(name, param)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """The plain layer's, of its own parameters; notes where the bank's are not saved with them."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if "bank" in self.__dict__:
            warn_of_state_without_bank(self.bank, self.bank.root)

    def __prepare_scriptable__(self) -> NoReturn:
        self._refuse("be compiled by torch.jit.script")

    def _refuse(self, what: str) -> NoReturn:
        root = self.bank.root
        name = next((name for name, module in root.named_modules() if module is self), "") if root is not None else ""
        layer = f"`{name}`, a {type(self).__name__}," if name else f"a {type(self).__name__}"
        raise RuntimeError(f"the generated weight of {layer} cannot {what}: {REMEDY}")

    def _draw_fresh(self, bank: Bank) -> None:
        """Draws on `bank` with the deviation that the layer's own initialiser gave."""
        own = self._parameters["weight"]
        assert own is not None
        self.draw_from(bank, {"weight": bank.add(own.shape, deviation(own))})


class _OwnParameters(dict[str, nn.Parameter | None]):
    """A generated layer's own parameters. Tells whoever would take a generated one from there, as old norms do."""

    def __missing__(self, name: str) -> NoReturn:
        refuse(f"`{name}` is no parameter of the layer, but generated from a bank")

    def __delitem__(self, name: str) -> None:
        if name not in self:
            self.__missing__(name)
        super().__delitem__(name)


def deviation(weight: Tensor) -> float:
    """Root mean square of a freshly initialised weight."""
    return float(weight.detach().double().square().mean().sqrt())


class RPGConv2d(GeneratedLayer, nn.Conv2d):
    """`nn.Conv2d` with a generated weight: its arguments, and `bank`."""

    plain = nn.Conv2d
    weight = _generated("weight")

    def __init__(self, *args: Any, bank: Bank, **kwargs: Any) -> None:
        nn.Conv2d.__init__(self, *args, **kwargs)
        self._draw_fresh(bank)


class RPGConvTranspose2d(GeneratedLayer, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` with a generated weight: its arguments, and `bank`."""

    plain = nn.ConvTranspose2d
    weight = _generated("weight")

    def __init__(self, *args: Any, bank: Bank, **kwargs: Any) -> None:
        nn.ConvTranspose2d.__init__(self, *args, **kwargs)
        self._draw_fresh(bank)


class RPGLinear(GeneratedLayer, nn.Linear):
    """`nn.Linear` with a generated weight: its arguments, and `bank`."""

    plain = nn.Linear
    weight = _generated("weight")

    def __init__(self, *args: Any, bank: Bank, **kwargs: Any) -> None:
        nn.Linear.__init__(self, *args, **kwargs)
        self._draw_fresh(bank)


class GeneratedAttention(GeneratedLayer, nn.MultiheadAttention):
    """`nn.MultiheadAttention` with generated projections of query, key and value; only `convert` makes it.

    The projection of the output is a layer of its own (`out_proj`), whose weight the attention reads without calling it.
    """

    plain = nn.MultiheadAttention
    names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    in_proj_weight = _generated("in_proj_weight")
    q_proj_weight = _generated("q_proj_weight")
    k_proj_weight = _generated("k_proj_weight")
    v_proj_weight = _generated("v_proj_weight")

    def _reset_parameters(self) -> None:
        self._refuse("be initialised again")


GENERATED: dict[type[nn.Module], type[GeneratedLayer]] = {
    kind.plain: kind for kind in (RPGConv2d, RPGConvTranspose2d, RPGLinear, GeneratedAttention)
}
"""The plain layers that `convert` replaces, and what replaces them."""

_MIXED: dict[type[nn.Module], type[GeneratedLayer]] = {}  # made so far, for subclasses

# What a subclass may have of its own, and still compute what its base does from the same weight.
_HARMLESS = {"__init__", "__repr__", "extra_repr", "reset_parameters", "_reset_parameters"}


def generated_class(kind: type[nn.Module]) -> type[GeneratedLayer]:
    """What replaces layers of class `kind`: one of those above, or a class that is both, so that a subclass keeps its methods.

    Raises:
        TypeError: There is none; the message says why in a few words.
    """
    if kind in GENERATED:
        return GENERATED[kind]
    base = next((plain for plain in GENERATED if issubclass(kind, plain)), None)
    if base is None:
        why = "must have its weights in one piece" if issubclass(kind, nn.RNNBase) else "is not generated"  # cuDNN's rule
        raise TypeError(f"{kind.__name__} {why}")
    own = [name for part in kind.__mro__ if part not in base.__mro__ for name in vars(part) if _overrides(part, name, base)]
    if own:
        raise TypeError(f"{kind.__name__} has its own {own[0]}")
    return _mixed_class(kind)


def _overrides(part: type, name: str, base: type[nn.Module]) -> bool:
    """Whether `part` changes what `base` does; documentation, annotations and the like of a class do not."""
    if name in _HARMLESS or name.startswith("__annot"):
        return False
    return name in GENERATED[base].names or (hasattr(base, name) and (callable(vars(part)[name]) or not name.startswith("__")))


def _mixed_class(kind: type[nn.Module]) -> type[GeneratedLayer]:
    if kind not in _MIXED:
        base = next(plain for plain in GENERATED if issubclass(kind, plain))
        _MIXED[kind] = type(f"RPG{kind.__name__}", (GENERATED[base], kind), {"plain": kind})
    return _MIXED[kind]


def _new(plain: type[nn.Module]) -> GeneratedLayer:
    """A generated layer of a plain class without any state, for copies and unpickling."""
    kind = generated_class(plain)
    return kind.__new__(kind)


def banks_of(model: nn.Module) -> dict[str, Bank]:
    """The banks of a model by name.

    Raises:
        ValueError: A generated layer of the model draws on a bank that is not part of it.
    """
    banks = {name: module for name, module in model.named_modules() if isinstance(module, Bank)}
    for name, module in model.named_modules():
        if isinstance(module, GeneratedLayer) and all(bank is not module.bank for bank in banks.values()):
            raise ValueError(f"`{name}` draws on a bank that is not part of the {type(model).__name__}: give the root")
    return banks
