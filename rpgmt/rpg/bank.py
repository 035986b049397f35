"""Bank: the trainable vector that generated layers draw on.

A bank is registered once, on the module whose forward uses its layers (the *root*); the layers only point to it. At the start
of the root's forward the bank generates the weights of all its layers in one go, and the layers read them until the forward
ends. Without gradients the weights are kept until the bank changes.

Two things change what training keeps. Inside `defer_gradients`, forwards share the weights that the first one made, and
gradients wait in them. A bank with `regenerate` keeps no weight at all: a layer's is made when the layer runs, and again for
its backward.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import register_module_module_registration_hook

from rpgmt.rpg.generate import Layout, Segment, fold, generate, mean_squared_scales, squared_scales
from rpgmt.rpg.placement import VERSION, Placement

GRADIENTS = ("exact", "balanced")


class Bank(nn.Module):
    """N trainable parameters from which layers generate their weights (arXiv 2107.07110, section 3).

    Args:
        size: N, the number of entries.
        std: Root mean square of the entries at the start, met exactly. Best is the typical deviation of the weights that the
            bank makes: Adam moves every entry by about its rate, so an entry must have the size of a weight.
        seed: Seed of the placement. The entries themselves come from torch's global generator, as every layer's do.
        number: The bank's number among the banks of one seed; they are placed independently.
        block: Granularity of the placement, see `Placement`.
        gradient: "exact" is the loss's gradient. "balanced" divides each entry's by the mean of scale² over its uses, which
            undoes that a layer with a large scale moves by scale² under its own gradient (after STABLE-RPS, arXiv 2310.11611).
        regenerate: Keep no generated weight between forward and backward: make each when its layer runs, and again in the
            backward pass. Saves the memory of M weights for the time of generating once more, in small pieces. Compiled
            models ignore it.

    Attributes:
        values: (N,) parameter.
        root: The module that the bank is registered on, or None.
        left: The modules that `convert` left alone, and why.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        size: int,
        *,
        std: float = 0.05,
        seed: int = 0,
        number: int = 0,
        block: int = 1,
        gradient: str = "exact",
        regenerate: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not (math.isfinite(std) and std > 0):
            raise ValueError(f"`std` is {std}: give a positive number, e.g. 0.05")
        if gradient not in GRADIENTS:
            raise ValueError(f"`gradient` is {gradient!r}: must be one of {', '.join(GRADIENTS)}")
        self.placement = Placement(size, seed, number, block)
        self.std = std
        self.gradient = gradient
        self.regenerate = regenerate
        self.deferring = False  # `defer_gradients` is on
        values = torch.randn(size, device=device, dtype=dtype)
        self.values = nn.Parameter(values * (std / values.square().mean().sqrt()))
        self.layout = Layout(self.placement, ())
        self._shapes: list[torch.Size] = []
        self._deferred: _Deferred | None = None  # the optimizer step that `defer_gradients` is in
        self._drawn: tuple[int, int] | None = None  # a regenerated weight in use: the address of its memory, its segment
        self._divisor: tuple[Layout, Tensor] | None = None  # of the balanced gradient
        self._forget()
        self.left: dict[str, str] = {}
        self.root: nn.Module | None = None
        self._hooks: list[Any] = []

    @property
    def size(self) -> int:
        """N, the number of entries."""
        return self.placement.size

    @property
    def generated(self) -> int:
        """M, the number of weights that the bank's layers use."""
        return self.layout.generated

    @property
    def uses(self) -> float:
        """M / N, the mean number of weights that an entry makes."""
        return self.generated / self.size

    def add(self, shape: torch.Size, deviation: float) -> int:
        """Takes the next segment of the ring for a weight of `shape` with standard deviation `deviation` at the start.

        Returns:
            The segment's number, for `weight`.
        """
        self._append(shape, deviation / self.std)
        return len(self._shapes) - 1

    def add_exactly(self, weights: Sequence[Tensor]) -> None:
        """Takes segments for `weights` with unit scale and sets the entries so that they generate these very values.

        Raises:
            ValueError: The bank is smaller than the weights together, or has segments already.
        """
        if self._shapes:
            raise ValueError("the bank makes other layers' weights already: give the layers a bank of their own")
        if sum(weight.numel() for weight in weights) > self.size:
            raise ValueError(f"a bank of {self.size} entries cannot hold {sum(w.numel() for w in weights)} weights exactly")
        for weight in weights:
            self._append(weight.shape, 1.0)
        flat = torch.cat([weight.detach().flatten() for weight in weights]).to(self.values)
        position = torch.arange(len(flat))
        lap = torch.zeros(1, dtype=torch.int64)
        entry = self.placement.entries(lap, position).to(flat.device)
        sign = (1 - 2 * self.placement.negative(lap, position)).to(flat)
        with torch.no_grad():
            self.values.zero_()
            self.values[entry] = flat * sign

    def project(self, weights: Sequence[Tensor]) -> None:
        """Sets the entries to the least-squares fit of `weights`: those for which the bank generates what is nearest to them.

        With the layers' scales as they are, Σ (scale · sign · entry - weight)² is least where each entry is
        (Σ scale · sign · weight) / (Σ scale²), both sums over its uses. An entry without uses becomes 0, as in `add_exactly`:
        it makes nothing and gets no gradient. `std` becomes the fit's root mean square. For uncorrelated weights that is about
        √k times less than before, k = M/N, and so is each generated weight: the fit keeps 1/k of their energy. Layers' scales
        stay, so that an entry still has the size of the weights that it makes, as the optimizer wants it. Layers of unequal
        scales lose less altogether, but unequally: an entry follows those of its uses that have large weights.

        Args:
            weights: One for each segment, in their order.
        """
        layout, values = self.layout, self.values
        flat = torch.zeros(layout.offsets[-1], dtype=torch.float64, device=values.device)
        for piece, weight in zip(layout.cut(flat), weights, strict=True):
            piece.copy_(weight.detach().flatten())
        squares = squared_scales(layout, values.device)
        fit = torch.where(squares > 0, fold(flat, layout) / squares, 0.0)
        with torch.no_grad():
            values.copy_(fit)
        self.std = float(fit.square().mean().sqrt()) or self.std  # weights may cancel to zeros, which are no deviation

    def weight(self, segment: int) -> Tensor:
        """The generated weight of a segment: a view of what the bank last generated, made anew where that is outdated."""
        if torch.compiler.is_compiling():
            # A part that is compiled apart from its root keeps nothing; outside the root's forward it generates for itself.
            return (self._weights if self._inside and self._weights is not None else self._make()[1])[segment]
        self._check_untouched()
        if not self._is_current():
            self._generate()
        assert self._weights is not None
        weight = self._weights[segment]
        if self.regenerate and weight.requires_grad:
            return _Redeemed.apply(weight, self, segment)
        return weight

    @contextmanager
    def dropping_weights(self) -> Iterator[None]:
        """Meanwhile autograd keeps a note for each generated weight that it would save, and makes the weight again from it."""
        self._drawn = None
        try:
            with torch.autograd.graph.saved_tensors_hooks(self._note, _remake):
                yield
        finally:
            self._drawn = None  # the memory may soon be another tensor's

    def forward(self, x: Any) -> Any:
        """The identity: so a bank may stand among the layers of an `nn.Sequential`."""
        return x

    def extra_repr(self) -> str:
        return f"N={self.size}, M={self.generated}, seed={self.placement.seed}, block={self.placement.block}"

    # ---- generation

    def prepare(self) -> None:
        """Makes the tables that generation needs: now, and not in the middle of a compilation."""
        self.layout.on(self.values.device)
        if self.gradient == "balanced":
            self._mean_squared_scales()

    def _mean_squared_scales(self) -> Tensor:
        layout, device = self.layout, self.values.device
        if self._divisor is None or self._divisor[0] is not layout or self._divisor[1].device != device:
            self._divisor = layout, mean_squared_scales(layout, device)
        return self._divisor[1]

    def _append(self, shape: torch.Size, scale: float) -> None:
        self._shapes.append(shape)
        self.layout = Layout(self.placement, (*self.layout.segments, Segment(shape.numel(), scale)))
        self._forget()
        self._deferred = None

    def _forget(self) -> None:
        self._flat: Tensor | None = None
        self._weights: list[Tensor] | None = None
        self._version = 0
        self._mode: tuple[Any, ...] | None = None
        self._source: list[Tensor] = []  # the values that they were made from, and a copy of what those were then
        self._inside = False  # the root's forward

    def _needs_gradient(self) -> bool:
        return self.values.requires_grad and torch.is_grad_enabled()

    def _weight_type(self) -> torch.dtype:
        """The type in which layers use their weights now."""
        dtype, kind = self.values.dtype, self.values.device.type
        if dtype != torch.float64 and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            return torch.get_autocast_dtype(kind)
        return dtype

    def _current_mode(self) -> tuple[Any, ...]:
        values = self.values
        types = self._weight_type(), values.dtype, values.device
        return self._needs_gradient(), torch.is_inference_mode_enabled(), _version(values), *types

    def _is_current(self) -> bool:
        """Whether the bank would generate again what it generated last."""
        if self._weights is None or not self._source:  # while a compiler traced, no more was kept
            return False
        if self._source[0] is not self.values or self._mode != self._current_mode():
            return False
        # `.data` and what is built on it change values past their version counter, so the values themselves are
        # compared; not for every layer, but once a forward.
        return self._inside or self.values.is_meta or torch.equal(self.values, self._source[1])

    def _make(self) -> tuple[Tensor, list[Tensor]]:
        values, layout, dtype = self.values, self.layout, self._weight_type()
        eager = self._needs_gradient() and not torch.compiler.is_compiling()
        if eager:
            self._check_registered()
        if self.gradient == "balanced" and values.requires_grad:
            values = _DividedGradient.apply(values, self._mean_squared_scales().to(values))
        if eager and self.regenerate:
            flat = _Promised.apply(values, layout, dtype)
        elif eager and (self.deferring or (self._deferred is not None and not self._deferred.taken)):
            flat = _Waiting.apply(values, self._share(dtype), self.deferring)
        else:
            flat = generate(values, layout, dtype)
        return flat, [piece.view(shape) for piece, shape in zip(layout.cut(flat), self._shapes, strict=True)]

    def _share(self, dtype: torch.dtype) -> _Deferred:
        """The weights that the forwards of one optimizer step share."""
        values, deferred = self.values.detach(), self._deferred
        if deferred is not None:
            deferred.drop_if_cleared()
        if deferred is not None and not torch.equal(deferred.values, values):
            self._deferred = None
            if deferred.gradient is not None:
                raise RuntimeError(
                    "a bank's values changed while gradients waited in its generated weights, and these are lost: run the "
                    "last forward and backward of a step outside of `rpgmt.defer_gradients`"
                )
            deferred = None
        if deferred is None or deferred.taken:
            deferred = _Deferred(self.layout, self.values, values.clone(), generate(values, self.layout, dtype))
        elif deferred.flat.dtype != dtype:
            deferred.flat = generate(values, self.layout, dtype)
        self._deferred = deferred
        return deferred

    def _note(self, saved: Tensor) -> Tensor | _Note:
        if self._drawn is None or saved.untyped_storage().data_ptr() != self._drawn[0]:
            return saved
        view = saved.size(), saved.stride(), saved.storage_offset()
        return _Note(self, self._drawn[1], saved.dtype, view, self.values, _version(self.values))

    def _generate(self) -> None:
        self._flat, self._weights = self._make()
        if not torch.compiler.is_compiling():
            self._version = _version(self._flat)
            self._mode = self._current_mode()
            kept = not (self._inside and self._needs_gradient())
            self._source = [self.values, *([self.values.detach().clone()] if kept else [])]

    def _begin_forward(self, root: nn.Module, inputs: Any) -> None:
        if not torch.compiler.is_compiling():
            self._check_untouched()
            if not self._needs_gradient() and self._is_current():
                self._inside = True
                return
        if self._shapes:
            self._inside = True
            self._generate()

    def _end_forward(self, root: nn.Module, inputs: Any, output: Any) -> None:
        self._inside = False
        if torch.compiler.is_compiling():
            self._forget()
            return
        self._check_untouched()
        if self._needs_gradient() or len(self._source) == 1:
            self._forget()  # autograd holds what the backward needs; the next step's weights are others

    def _check_untouched(self) -> None:
        if self._flat is not None and self._mode is not None and _version(self._flat) != self._version:
            self._forget()
            self._deferred = None
            raise RuntimeError(
                "a generated weight was changed in place, which the next generation would undo: change the bank's "
                "`values`, or call `rpgmt.bake(model)` first"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Bank:
        super()._apply(fn, recurse)
        if self.layout.has_tables:
            self.prepare()
        return self

    # ---- registration, copies, checkpoints

    def _register(self, root: nn.Module, name: str) -> None:
        if isinstance(root, nn.ModuleList | nn.ModuleDict):
            raise ValueError(
                f"a bank was put into an {type(root).__name__}: make it an attribute of the module whose forward uses it"
            )
        if self.root is not None and self.root is not root and self._is_registered():
            raise ValueError("the bank is registered on another module already: a bank is registered once, at the root")
        if any(child is self and other != name for other, child in root._modules.items()):
            raise ValueError(f"the bank was put under the name `{name}` too: a bank is registered once, at the root")
        for handle in self._hooks:
            handle.remove()
        self.__dict__["root"] = root  # past nn.Module, which would make the root a child of its bank
        self._hooks = [
            root.register_forward_pre_hook(self._begin_forward),
            root.register_forward_hook(self._end_forward, always_call=True),
        ]

    def unregister(self) -> None:
        """Takes the bank out of its root, if it has one."""
        for handle in self._hooks:
            handle.remove()
        self._hooks = []
        root, self.root = self.root, None
        if root is not None:
            for name in [name for name, child in root.named_children() if child is self]:
                delattr(root, name)

    def _is_registered(self) -> bool:
        return self.root is not None and any(child is self for child in self.root._modules.values())

    def _check_registered(self) -> None:
        if not self._is_registered():
            raise RuntimeError(
                f"a bank of {self.size} entries would train unseen by the optimizer: it is not registered on the model; "
                "make it an attribute of the root, `self.bank = Bank(…)`"
            )

    def __getstate__(self) -> dict[str, Any]:
        # What was generated stays behind: it is not a leaf, and is made again when it is needed.
        nothing = {"_flat": None, "_weights": None, "_deferred": None, "_divisor": None}
        return self.__dict__ | nothing | {"_source": [], "_inside": False, "deferring": False}

    def __deepcopy__(self, memo: dict[int, Any]) -> Bank:
        if self._is_registered() and id(self.root) not in memo:
            raise RuntimeError(
                "a part of a model was copied without its bank, and would train apart from it: copy the whole model, or "
                "the part of a copy that went through `rpgmt.bake`"
            )
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        new.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return new

    def get_extra_state(self) -> Tensor:
        """(4 + layers,) int64: placement version, seed, bank number and checksum, and the bits of the layers' float64
        scales, which were measured on weights that another model of the same placement does not have. A tensor, since
        safetensors takes nothing else, and not a buffer, since averaging of weights would average it."""
        checksum = self.placement.checksum(self.generated)
        scales = torch.tensor([segment.scale for segment in self.layout.segments], dtype=torch.float64)
        head = torch.tensor([VERSION, self.placement.seed, self.placement.bank, checksum], dtype=torch.int64)
        return torch.cat([head, scales.view(torch.int64)])

    def set_extra_state(self, state: Tensor) -> None:
        """Compares the saved placement with this bank's, and takes over the scales.

        Raises:
            ValueError: They differ, so that the loaded entries would make other weights.
        """
        saved, own = state.tolist(), self.get_extra_state().tolist()
        names = ("version", "seed", "bank number", "checksum", "layers")
        compared = [[*state[:4], len(state) - 4] for state in (saved, own)]
        for name, theirs, ours in zip(names, *compared, strict=True):
            if theirs != ours:
                raise ValueError(
                    f"the saved bank was placed with {name} {theirs}, this one with {ours}: build the model with the same "
                    "network, size, seed, scope and block as the saved one"
                )
        if saved != own:
            self._forget()
            self._deferred = None
            self.layout = self.layout.scaled(state[4:].cpu().clone().view(torch.float64).tolist())
            if self.layout.has_tables:
                self.prepare()


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # torch itself refuses to change an inference tensor in place


@dataclass
class _Deferred:
    """What the forwards of one optimizer step share: weights made from the bank, and the gradient that waits in them.

    Args:
        layout: The bank's.
        bank: The bank's parameter.
        values: What that held.
        flat: The weights made from it.
        gradient: The sum of what waits.
        taken: The last backward has taken it; what comes after goes to the bank at once.
    """

    layout: Layout
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
    def forward(ctx: Any, values: Tensor, deferred: _Deferred, deferring: bool) -> Tensor:
        ctx.deferred, ctx.deferring, ctx.had_gradient = deferred, deferring, deferred.bank.grad is not None
        return deferred.flat.view_as(deferred.flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        deferred = ctx.deferred
        waits = ctx.deferring and not deferred.taken
        total = gradients[0].to(torch.promote_types(deferred.values.dtype, torch.float32), copy=waits)
        if ctx.had_gradient:
            deferred.drop_if_cleared()
        if deferred.gradient is not None:
            total = deferred.gradient.add_(total)
        if waits:
            first, deferred.gradient = deferred.bank.grad is None, total
            # A gradient for `zero_grad` to clear, so that it drops what waits, too.
            return torch.zeros_like(deferred.values) if first else None, None, None
        deferred.gradient, deferred.taken = None, True
        return fold(total, deferred.layout, deferred.values.dtype), None, None


class _Promised(torch.autograd.Function):
    """A stand-in for all weights that takes no memory: `_Redeemed` makes those of a layer. Its gradient is the weights'."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        ctx.layout, ctx.dtype = layout, values.dtype
        return values.new_zeros((), dtype=dtype).expand(layout.offsets[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return fold(gradients[0], ctx.layout, ctx.dtype), None, None


class _Redeemed(torch.autograd.Function):
    """A layer's weight in place of its stand-in."""

    @staticmethod
    def forward(ctx: Any, promised: Tensor, bank: Bank, segment: int) -> Tensor:
        weight = generate(bank.values.detach(), bank.layout, promised.dtype, segment).view(promised.shape)
        bank._drawn = weight.untyped_storage().data_ptr(), segment
        return weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


@dataclass(frozen=True)
class _Note:
    """What autograd keeps of a weight that can be made again."""

    bank: Bank
    segment: int
    dtype: torch.dtype
    view: tuple[Any, ...]  # size, strides and offset
    values: Tensor
    version: int


def _remake(saved: Tensor | _Note) -> Tensor:
    if isinstance(saved, Tensor):
        return saved
    values = saved.values
    if _version(values) != saved.version:
        raise RuntimeError(
            "a bank's values changed between a forward and its backward, which makes the weights of the forward again: call "
            "the optimizer after the backward"
        )
    with torch.no_grad():
        return generate(values.detach(), saved.bank.layout, saved.dtype, saved.segment).as_strided(*saved.view)


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
    banks = [module for module in model.modules() if isinstance(module, Bank)]
    before = [bank.deferring for bank in banks]
    for bank in banks:
        bank.deferring = True
    try:
        yield
    finally:
        for bank, deferring in zip(banks, before, strict=True):
            bank.deferring = deferring


class _DividedGradient(torch.autograd.Function):
    """The identity; its gradient is divided by a constant."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, divisor: Tensor) -> Tensor:
        ctx.divisor = divisor  # not saved for the backward: activation checkpointing counts what is
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] / ctx.divisor, None


def _tell_bank(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
    if isinstance(submodule, Bank):
        submodule._register(module, name)


# A bank learns here where it is registered: it generates at the start of that module's forward, and says so when it would train
# unregistered.
register_module_module_registration_hook(_tell_bank)
