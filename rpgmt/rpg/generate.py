"""weight = scale · sign · bank[entry], and the bank's exact gradient.

`ParameterGenerator.generate` makes every weight of a bank's layers in one flat tensor; `fold` is its transpose, which adds the
gradients of all uses of an entry. Each is the other's derivative, so any order of differentiation works, and each gives the
same bits every time. Here their operators are registered, and here is decided which backend serves a device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rpgmt.rpg.backends import block_tables
from rpgmt.rpg.backends.block_tables import RunTables
from rpgmt.rpg.backends.index_tables import IndexTables
from rpgmt.rpg.backends.plan import Plan
from rpgmt.rpg.layout import Layout


class Operators:
    """`rpgmt::generate<name>` and `rpgmt::fold<name>`, of which each is the other's derivative.

    They are operators of their own, so that torch.compile, export and autocast see one opaque node each. They are declared by
    `define` and `impl`: `torch.library.custom_op` imports the compiler at the first call, which takes seconds. Objects as
    arguments (`torch._library.opaque_object`) would save the packing. They work in torch 2.15, but only for a plan without
    tensors, and in a private module whose names changed between 2.11 and 2.15.

    Args:
        name: What tells them from others.
        plan: What they take between the tensor and `dtype`, the type of their result.
    """

    def __init__(self, name: str, plan: type[Plan]) -> None:
        names = f"rpgmt::generate{name}", f"rpgmt::fold{name}"
        for own, taken, kernel, i in zip(names, ("bank", "flat"), (plan.generate, plan.fold), (0, 1), strict=True):
            torch.library.define(own, f"(Tensor {taken}, {plan.schema()}, ScalarType dtype) -> Tensor")
            torch.library.impl(
                own, "CompositeExplicitAutograd", lambda x, *rest, kernel=kernel: kernel(plan(*rest[:-1]), x, rest[-1])
            )
            torch.library.register_fake(own, lambda x, *rest, i=i: x.new_empty(plan(*rest[:-1]).sizes[i], dtype=rest[-1]))
        self._generate, self._fold = (getattr(torch.ops.rpgmt, own.split("::")[1]).default for own in names)

        def keep_rest(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            ctx.rest = (*inputs[1:-1], inputs[0].dtype)

        for own, other in zip(names, (self._fold, self._generate), strict=True):
            torch.library.register_autograd(
                own, lambda ctx, g, other=other: (other(g, *ctx.rest), *[None] * len(ctx.rest)), setup_context=keep_rest
            )

    def generate(self, bank: Tensor, plan: Plan, dtype: torch.dtype) -> Tensor:
        """See `Plan.generate`.

        Raises:
            ValueError: The bank is not of the plan's size.
        """
        _check("bank", bank, plan.sizes[1])
        return self._generate(bank, *plan.arguments(), dtype)

    def fold(self, flat: Tensor, plan: Plan, dtype: torch.dtype) -> Tensor:
        """See `Plan.fold`.

        Raises:
            ValueError: `flat` is not of the plan's length.
        """
        _check("flat", flat, plan.sizes[0])
        return self._fold(flat, *plan.arguments(), dtype)


def _check(name: str, tensor: Tensor, length: int) -> None:
    if tensor.shape != (length,):
        raise ValueError(f"`{name}` has shape {tuple(tensor.shape)}: give ({length},)")


BY_INDEX = Operators("", IndexTables)
BY_RUN = Operators("_runs", RunTables)


@functools.cache
def fused_operators() -> Operators:
    """Those of the Triton kernels."""
    from rpgmt.rpg.backends.fused import Fused  # Triton takes a while to import

    return Operators("_fused", Fused)


class Backend(NamedTuple):
    """What generates on one device: operators, and their plans for all layers and for each layer alone."""

    operators: Operators
    plan: Plan
    alone: list[Plan]

    @property
    def bytes(self) -> int:
        """Memory that the plans take; those of single layers may lie in that of all."""
        tensors = [value for plan in (self.plan, *self.alone) for value in plan.arguments() if isinstance(value, Tensor)]
        storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
        return sum(storages.values())


AUTOCAST = frozenset(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))
"""Devices that know it. Asked once: the compiler of torch 2.11 cannot read the question, and would cut every forward in two."""


def weight_type(values: Tensor) -> torch.dtype:
    """The type in which layers use their weights now, made from a bank of `values`: autocast's, where that is on."""
    dtype, kind = values.dtype, values.device.type
    if dtype != torch.float64 and kind in AUTOCAST and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return dtype


class ParameterGenerator:
    """Makes the weights of one layout, on any device.

    Besides the layout it holds what was derived from it and is used again, each made on first use: copies share it, and
    pickles leave it out.

    Args:
        layout: The layers' segments.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._backends: dict[torch.device, Backend] = {}
        self._mean_squared_scales: dict[torch.device, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> ParameterGenerator:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return ParameterGenerator, (self.layout,)

    def generate(self, bank: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """All weights of the layers, scaled.

        Args:
            bank: (N,) entries.
            dtype: Of the weights; the bank's if None. A weight is scaled as precisely as the bank is and then rounded.

        Returns:
            (layout.offsets[-1],) flat weights, which `layout.cut` cuts into those of the layers.

        Raises:
            ValueError: The bank has another size.
        """
        backend = self.on(bank.device)
        return backend.operators.generate(bank, backend.plan, dtype or bank.dtype)

    def generate_alone(self, bank: Tensor, segment: int, dtype: torch.dtype | None = None) -> Tensor:
        """The (numel,) weights of one segment, the same bits as among all; without gradient, which only `fold` gathers."""
        backend = self.on(bank.device)
        return backend.operators.generate(bank.detach(), backend.alone[segment], dtype or bank.dtype)

    def fold(self, flat: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The transpose of `generate`: for each bank entry the sum over its uses of scale · sign · flat[use].

        Args:
            flat: (layout.offsets[-1],), e.g. the gradients of the generated weights. Sums are of float32, or float64 for
                float64; padding is not read.
            dtype: Of the result; `flat`'s if None.

        Returns:
            (N,) sums.

        Raises:
            ValueError: `flat` has another length.
        """
        backend = self.on(flat.device)
        return backend.operators.fold(flat, backend.plan, dtype or flat.dtype)

    def squared_scales(self, device: torch.device) -> Tensor:
        """(N,) sum over an entry's uses of scale²: what a change of the entry changes in the weights, squared.

        Of float64, where the device has it.
        """
        exact = torch.float32 if device.type == "mps" else torch.float64
        ones = torch.ones(self.layout.placement.size, dtype=exact, device=device)
        return self.fold(self.generate(ones))  # sign · sign = 1 for each use

    def mean_squared_scales(self, device: torch.device) -> Tensor:
        """(N,) mean over an entry's uses of scale², 1 for an entry without uses: how much steeper the loss is in that entry
        than it would be with unit scales."""
        if device not in self._mean_squared_scales:
            uses = self.rescaled([1.0] * len(self.layout.segments)).squared_scales(device)
            means = torch.where(uses > 0, self.squared_scales(device) / uses.clamp(min=1), 1.0)
            self._mean_squared_scales[device] = means
        return self._mean_squared_scales[device]

    def rescaled(self, scales: Sequence[float]) -> ParameterGenerator:
        """One for the same layout with other scales; it takes over the tables."""
        generator = ParameterGenerator(self.layout.scaled(scales))
        for device, backend in self._backends.items():
            generator._serve(device, backend.operators, backend.plan.rescaled(generator.layout))
        return generator

    @property
    def is_prepared(self) -> bool:
        """Whether tables, or what is in place of them, were made for any device."""
        return bool(self._backends)

    def on(self, device: torch.device) -> Backend:
        """What generates on `device`, made on first use: fused kernels on a GPU with Triton, tables elsewhere.

        Raises:
            RuntimeError: It is still to be made while a compiler traces, which would take that for a part of the network.
        """
        if device not in self._backends:
            if torch.compiler.is_compiling():
                raise RuntimeError("a bank has no index tables yet: call the model once before you compile or export it")
            self._serve(device, *_choose(self.layout, device, self._backends.get(torch.device("cpu"))))
        return self._backends[device]

    def _serve(self, device: torch.device, operators: Operators, plan: Plan) -> None:
        self._backends[device] = Backend(operators, plan, plan.alone(self.layout))


def _choose(layout: Layout, device: torch.device, on_cpu: Backend | None) -> tuple[Operators, Plan]:
    if device.type == "cuda":
        from rpgmt.rpg.backends import fused

        if fused.usable(device):
            return fused_operators(), fused.Fused.of(layout, device)
    if on_cpu is not None and isinstance(on_cpu.plan, IndexTables | RunTables):
        return on_cpu.operators, on_cpu.plan.to(device)
    if block_tables.are_faster(layout):
        return BY_RUN, RunTables.of(layout).to(device)
    return BY_INDEX, IndexTables.of(layout).to(device)
