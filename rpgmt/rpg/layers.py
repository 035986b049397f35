"""Convolutions and linear layers whose weight is generated from a bank. Biases stay parameters of the layer."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from rpgmt.rpg.bank import Bank


class GeneratedLayer(nn.Module):
    """A layer whose `weight` is read from a bank. Abstract: the layers below are it and one of `nn`'s.

    Attributes:
        bank: The bank; not a child of the layer.
        segment: The number of the layer's weight in the bank.
    """

    bank: Bank
    segment: int

    def draw_from(self, bank: Bank, segment: int) -> None:
        """Gives up the layer's own weight for a segment of `bank`."""
        self._parameters.pop("weight")
        # Past nn.Module, which would make the bank a child of every layer.
        self.__dict__["bank"] = bank
        self.__dict__["segment"] = segment

    @property
    def weight(self) -> Tensor:
        """The generated weight; it belongs to the bank and can be read only."""
        if "bank" not in self.__dict__:  # the layer is being built: its initialiser fills a weight of its own
            return self._parameters["weight"]  # type: ignore[return-value]
        return self.bank.weight(self.segment)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The plain layer's."""
        plain = super().forward
        if not self.bank.regenerate or torch.compiler.is_compiling():
            return plain(*args, **kwargs)
        with self.bank.regeneration.dropping_weights():
            return plain(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "weight":
            super().__setattr__(name, value)
        elif "bank" in self.__dict__:
            self._refuse("be assigned")
        else:
            self._parameters["weight"] = value

    def reset_parameters(self) -> None:
        """The layer's own initialiser, before the layer draws on its bank; later an error."""
        if "bank" in self.__dict__:
            self._refuse("be initialised again")
        super().reset_parameters()  # type: ignore[misc]

    def extra_repr(self) -> str:
        """The plain layer's, and N."""
        return f"{super().extra_repr()}, generated from {self.bank.size}"

    def _refuse(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"the generated weight of a {type(self).__name__} cannot {what}: change the bank's `values`, or call "
            "`rpgmt.bake(model)` first"
        )

    def _draw_fresh(self, bank: Bank) -> None:
        """Draws on `bank` with the deviation that the layer's own initialiser gave."""
        own = self._parameters["weight"]
        assert own is not None
        self.draw_from(bank, bank.add(own.shape, deviation(own)))


def deviation(weight: Tensor) -> float:
    """Root mean square of a freshly initialised weight."""
    return float(weight.detach().double().square().mean().sqrt())


class RPGConv2d(GeneratedLayer, nn.Conv2d):  # type: ignore[override]
    """`nn.Conv2d` with a generated weight: its arguments, and `bank`."""

    def __init__(self, *args: Any, bank: Bank, **kwargs: Any) -> None:
        nn.Conv2d.__init__(self, *args, **kwargs)
        self._draw_fresh(bank)


class RPGConvTranspose2d(GeneratedLayer, nn.ConvTranspose2d):  # type: ignore[override]
    """`nn.ConvTranspose2d` with a generated weight: its arguments, and `bank`."""

    def __init__(self, *args: Any, bank: Bank, **kwargs: Any) -> None:
        nn.ConvTranspose2d.__init__(self, *args, **kwargs)
        self._draw_fresh(bank)


class RPGLinear(GeneratedLayer, nn.Linear):  # type: ignore[override]
    """`nn.Linear` with a generated weight: its arguments, and `bank`."""

    def __init__(self, *args: Any, bank: Bank, **kwargs: Any) -> None:
        nn.Linear.__init__(self, *args, **kwargs)
        self._draw_fresh(bank)


GENERATED: dict[type[nn.Module], type[GeneratedLayer]] = {
    nn.Conv2d: RPGConv2d,
    nn.ConvTranspose2d: RPGConvTranspose2d,
    nn.Linear: RPGLinear,
}
"""The plain layers that `convert` replaces, and what replaces them."""

PLAIN = {generated: plain for plain, generated in GENERATED.items()}


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
