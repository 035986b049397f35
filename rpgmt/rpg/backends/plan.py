"""What a backend of generation is: a plan that holds what its kernels need, and the kernels as its methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from rpgmt.rpg.layout import Layout

# The types that a field may have, as torch.library calls them.
_SCHEMA = {"Tensor": "Tensor", "int": "int", "list[int]": "int[]", "list[float]": "float[]"}


class Plan(ABC):
    """All that one backend needs to make the weights of some layers, on one device. Subclasses are frozen dataclasses.

    Operators of `torch.library` take tensors, numbers and lists, and no objects, so the fields of a plan are the operators'
    arguments: a plan is packed by `arguments`, unpacked by the constructor, and declared by `schema`, for all backends here.
    """

    @classmethod
    def schema(cls) -> str:
        """The fields as the arguments of an operator."""
        return ", ".join(f"{_SCHEMA[str(field.type)]} {field.name}" for field in fields(cls))  # type: ignore[arg-type]

    def arguments(self) -> tuple[Any, ...]:
        """The values of the fields: `type(plan)(*plan.arguments())` is the plan."""
        return tuple([getattr(self, name) for name in self.__match_args__])  # type: ignore[attr-defined]

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Lengths of the flat tensor, and of the bank (N)."""

    @abstractmethod
    def generate(self, bank: Tensor, dtype: torch.dtype) -> Tensor:
        """The flat weights: scale · sign · bank[entry], scaled as precisely as the bank is and then rounded once to `dtype`."""

    @abstractmethod
    def fold(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        """The transpose: each entry's sum over its uses of scale · sign · flat[use], in float32 or more, then of `dtype`."""

    @abstractmethod
    def alone(self, layout: Layout) -> list[Plan]:
        """Plans for each segment of the layout by itself, in a flat tensor without padding."""

    @abstractmethod
    def rescaled(self, layout: Layout) -> Plan:
        """The same for a layout that differs in scales."""
