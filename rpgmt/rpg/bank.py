"""Bank: the trainable vector that generated layers draw on.

A bank is registered once, on the module whose forward uses its layers (the *root*); the layers only point to it. At the start
of the root's forward the bank generates the weights of all its layers in one go, and the layers read them until the forward
ends. Without gradients the weights are kept until the bank changes. `kept_weights.py` has what training may keep instead.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rpgmt.rpg.bank_registration import Registration, tell_of_registrations
from rpgmt.rpg.generate import ParameterGenerator
from rpgmt.rpg.kept_weights import Deferral, Kept, Recipe, Regeneration, Source, version_of
from rpgmt.rpg.layout import Layout
from rpgmt.rpg.placement import VERSION, Placement
from rpgmt.rpg.projection import exact_entries, nearest_entries

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
        generator: Makes the weights of the bank's layers.
        deferral: Whether gradients wait, see `defer_gradients`.
        regeneration: How weights are made again, where they are.
        left: The modules that `convert` left alone, and why.
        start: What `convert` did to the weights that were there; empty for other banks.

    Raises:
        ValueError: An argument is out of range.
    """

    def __new__(cls, *args: Any, **options: Any) -> Bank:
        tell_of_registrations(Bank, Bank._move_to)  # here, where copies and unpickled banks come by as well
        return super().__new__(cls)

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
        self.std = std
        self.gradient = gradient
        self.regenerate = regenerate
        self.generator = ParameterGenerator(Layout(Placement(size, seed, number, block), ()))
        self.deferral = Deferral()
        self.regeneration = Regeneration()
        values = torch.randn(size, device=device, dtype=dtype)
        self.values = nn.Parameter(values * (std / values.square().mean().sqrt()))
        self.left: dict[str, str] = {}
        self.start = ""
        self._shapes: list[torch.Size] = []
        self._kept: Kept | None = None
        self._inside = False  # the root's forward
        self._registration = Registration()

    @property
    def layout(self) -> Layout:
        """The bank's layers, on the ring and in memory."""
        return self.generator.layout

    @property
    def placement(self) -> Placement:
        """Which entry makes which weight."""
        return self.layout.placement

    @property
    def root(self) -> nn.Module | None:
        """The module that the bank is registered on."""
        return self._registration.root

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
        with torch.no_grad():
            self.values.copy_(exact_entries(self.placement, weights, self.values))

    def project(self, weights: Sequence[Tensor]) -> None:
        """Sets the entries to the least-squares fit of `weights`: those for which the bank generates what is nearest to them.

        See `nearest_entries`. An entry without uses becomes 0, as in `add_exactly`: it makes nothing and gets no gradient.
        `std` becomes the fit's root mean square. For uncorrelated weights that is about √k times less than before, k = M/N, and
        so is each generated weight: the fit keeps 1/k of their energy. Layers' scales stay, so that an entry still has the size
        of the weights that it makes, as the optimizer wants it. Layers of unequal scales lose less altogether, but unequally:
        an entry follows those of its uses that have large weights.

        Args:
            weights: One for each segment, in their order.
        """
        fit = nearest_entries(self.generator, weights, self.values.device)
        with torch.no_grad():
            self.values.copy_(fit)
        self.std = float(fit.square().mean().sqrt()) or self.std  # weights may cancel to zeros, which are no deviation

    def weight(self, segment: int) -> Tensor:
        """The generated weight of a segment: a view of what the bank last generated, made anew where that is outdated."""
        if torch.compiler.is_compiling():
            # A part that is compiled apart from its root keeps nothing; outside the root's forward it generates for itself.
            kept = self._kept if self._inside and self._kept is not None else self._make()
            return kept.weights[segment]
        self._check_untouched()
        if not self._is_current():
            self._generate()
        assert self._kept is not None
        weight = self._kept.weights[segment]
        if self.regenerate and weight.requires_grad:
            recipe = Recipe(self.generator, self.values, version_of(self.values), segment, weight.dtype)
            return self.regeneration.redeem(weight, recipe)
        return weight

    def forward(self, x: Any) -> Any:
        """The identity: so a bank may stand among the layers of an `nn.Sequential`."""
        return x

    def extra_repr(self) -> str:
        return f"N={self.size}, M={self.generated}, seed={self.placement.seed}, block={self.placement.block}"

    # ---- generation

    def prepare(self) -> None:
        """Makes the tables that generation needs: now, and not in the middle of a compilation."""
        self.generator.on(self.values.device)
        if self.gradient == "balanced":
            self.generator.mean_squared_scales(self.values.device)

    def _append(self, shape: torch.Size, scale: float) -> None:
        self._shapes.append(shape)
        self._replace_generator(ParameterGenerator(self.layout.with_segment(shape.numel(), scale)))

    def _replace_generator(self, generator: ParameterGenerator) -> None:
        """What was made by the one before is none of the bank's any more."""
        self.generator = generator
        self._forget()
        self.deferral.drop()

    def _forget(self) -> None:
        self._kept, self._inside = None, False

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
        return self._needs_gradient(), torch.is_inference_mode_enabled(), version_of(values), *types

    def _is_current(self) -> bool:
        """Whether the bank would generate again what it generated last."""
        source = self._kept.source if self._kept is not None else None
        if source is None or source.values is not self.values or source.mode != self._current_mode():
            return False
        # `.data` and what is built on it change values past their version counter, so the values themselves are
        # compared; not for every layer, but once a forward.
        return self._inside or self.values.is_meta or (source.copy is not None and torch.equal(self.values, source.copy))

    def _make(self) -> Kept:
        values, generator, dtype = self.values, self.generator, self._weight_type()
        eager = self._needs_gradient() and not torch.compiler.is_compiling()
        if eager:
            self._check_registered()
        if self.gradient == "balanced" and values.requires_grad:
            values = _DividedGradient.apply(values, generator.mean_squared_scales(values.device).to(values))
        if eager and self.regenerate:
            flat = self.regeneration.promise(values, generator, dtype)
        elif eager and self.deferral.concerns_next_forward:
            flat = self.deferral.share(values, self.values, generator, dtype)
        else:
            flat = generator.generate(values, dtype)
        pieces = zip(generator.layout.cut(flat), self._shapes, strict=True)
        return Kept(flat, [piece.view(shape) for piece, shape in pieces])

    def _generate(self) -> None:
        made = self._make()
        if not torch.compiler.is_compiling():
            changes = not (self._inside and self._needs_gradient())
            now = self.values.detach().clone() if changes else None
            source = Source(self.values, self._current_mode(), now, version_of(made.flat))
            made = Kept(made.flat, made.weights, source)
        self._kept = made

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
        source = self._kept.source if self._kept is not None else None
        if self._needs_gradient() or (source is not None and source.copy is None):
            self._forget()  # autograd holds what the backward needs; the next step's weights are others

    def _check_untouched(self) -> None:
        if self._kept is not None and not self._kept.is_untouched:
            self._forget()
            self.deferral.drop()
            raise RuntimeError(
                "a generated weight was changed in place, which the next generation would undo: change the bank's "
                "`values`, or call `rpgmt.bake(model)` first"
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Bank:
        super()._apply(fn, recurse)
        if self.generator.is_prepared:
            self.prepare()
        return self

    # ---- registration, copies, checkpoints

    def _move_to(self, root: nn.Module, name: str) -> None:
        self._registration.move(self, root, name, self._begin_forward, self._end_forward)

    def unregister(self) -> None:
        """Takes the bank out of its root, if it has one."""
        self._registration.end(self)

    def _check_registered(self) -> None:
        if not self._registration.holds(self):
            raise RuntimeError(
                f"a bank of {self.size} entries would train unseen by the optimizer: it is not registered on the model; "
                "make it an attribute of the root, `self.bank = Bank(…)`"
            )

    def __getstate__(self) -> dict[str, Any]:
        # What was generated stays behind: it is not a leaf, and is made again when it is needed.
        return self.__dict__ | {"_kept": None, "_inside": False}

    def __deepcopy__(self, memo: dict[int, Any]) -> Bank:
        if self._registration.holds(self) and id(self.root) not in memo:
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
            self._replace_generator(self.generator.rescaled(state[4:].cpu().clone().view(torch.float64).tolist()))
            if self.generator.is_prepared:
                self.prepare()


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
    before = [bank.deferral.on for bank in banks]
    for bank in banks:
        bank.deferral.on = True
    try:
        yield
    finally:
        for bank, on in zip(banks, before, strict=True):
            bank.deferral.on = on


class _DividedGradient(torch.autograd.Function):
    """The identity; its gradient is divided by a constant."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, divisor: Tensor) -> Tensor:
        ctx.divisor = divisor  # not saved for the backward: activation checkpointing counts what is
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] / ctx.divisor, None
