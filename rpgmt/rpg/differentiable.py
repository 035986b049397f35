"""Generation that every transform of torch differentiates: `torch.func`, forward mode, per-sample gradients.

The operators of `generate.py` know reverse mode alone, which is what training needs and compilers can read. Here the same two
maps are functions that know the rest: each is linear, so it is its own tangent map, and a batch of them is done one by one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rpgmt.rpg.generate import ParameterGenerator


def transforms_are_active() -> bool:
    """Whether a transform of `torch.func` runs, or forward mode does."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def generate(values: Tensor, generator: ParameterGenerator, dtype: torch.dtype) -> Tensor:
    """`generator.generate(values, dtype)`, under transforms."""
    return _Generate.apply(values, generator, dtype)


class _Linear(torch.autograd.Function):
    """A linear map of its first argument, from `generator` and the type of the result. Abstract."""

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.generator, ctx.dtype = inputs
        ctx.own_dtype = x.dtype

    @classmethod
    def _each(cls, dims: tuple[Any, ...], x: Tensor, *rest: Any) -> tuple[Tensor, int]:
        return torch.stack([cls.apply(row, *rest) for row in x.movedim(dims[0], 0)]), 0


class _Generate(_Linear):
    @staticmethod
    def forward(values: Tensor, generator: ParameterGenerator, dtype: torch.dtype) -> Tensor:
        return generator.generate(values, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Fold.apply(gradients[0], ctx.generator, ctx.own_dtype), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Generate.apply(tangents[0], ctx.generator, ctx.dtype)

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        return _Generate._each(dims, *arguments)


class _Fold(_Linear):
    @staticmethod
    def forward(flat: Tensor, generator: ParameterGenerator, dtype: torch.dtype) -> Tensor:
        return generator.fold(flat, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Generate.apply(gradients[0], ctx.generator, ctx.own_dtype), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return _Fold.apply(tangents[0], ctx.generator, ctx.dtype)

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor, int]:
        return _Fold._each(dims, *arguments)


class DividedGradient(torch.autograd.Function):
    """The identity; its gradient is divided by a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, divisor: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.divisor = inputs[1]  # not saved for the backward: activation checkpointing counts what is

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] / ctx.divisor, None
