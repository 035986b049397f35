"""Bank: the trainable vector that generated layers draw on.

A bank is registered once, on the module whose forward uses its layers (the *root*); the layers only point to it. At the start
of the root's forward the bank generates the weights of all its layers in one go, and the layers read them until the forward
ends. Without gradients the weights are kept until the bank changes. `kept_weights.py` has what training may keep instead.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rpgmt.rpg import differentiable
from rpgmt.rpg.bank_registration import Registration, tell_of_registrations
from rpgmt.rpg.current_weights import CurrentWeights, Kept, version_of
from rpgmt.rpg.frozen import FreezeWatch
from rpgmt.rpg.generate import ParameterGenerator, weight_type
from rpgmt.rpg.kept_weights import Deferral, Recipe, Regeneration
from rpgmt.rpg.layout import Layout
from rpgmt.rpg.placement import Placement
from rpgmt.rpg.placement_state import other_scales, state_of
from rpgmt.rpg.projection import exact_entries, nearest_entries
from rpgmt.rpg.running import refuse_change, refuse_tracers, tracer
from rpgmt.rpg.untrained_banks import watch_bank

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
        freezing: Tells what was frozen without effect.

    Raises:
        ValueError: An argument is out of range.
    """

    def __new__(cls, *args: Any, **options: Any) -> Bank:
        tell_of_registrations(Bank, Bank._move_to)  # here, where copies and unpickled banks come by as well
        return watch_bank(super().__new__(cls))

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
        self.gradient, self.regenerate = gradient, regenerate
        self.generator = ParameterGenerator(Layout(Placement(size, seed, number, block), ()))
        self.deferral, self.regeneration = Deferral(), Regeneration()
        values = torch.randn(size, device=device, dtype=dtype)
        self.values = nn.Parameter(values * (std / values.square().mean().sqrt()))
        self.left: dict[str, str] = {}
        self.start = ""
        self._shapes: list[torch.Size] = []
        self.freezing = FreezeWatch()
        self._weights, self._registration = CurrentWeights(), Registration()

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
        if (wanted := sum(weight.numel() for weight in weights)) > self.size:
            raise ValueError(f"a bank of {self.size} entries cannot hold {wanted} weights exactly")
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

    @property
    def serves_forward(self) -> bool:
        """Whether what is read now is a part of the root's forward, or of what a compiler or a transform makes of a layer."""
        if torch.compiler.is_compiling() or self._weights.traced is not None:
            return True
        return self._weights.now.inside or differentiable.transforms_are_active()

    def weight(self, segment: int) -> Tensor:
        """The generated weight of a segment: a view of what the bank last generated, made anew where that is outdated."""
        traced = self._weights.traced
        if torch.compiler.is_compiling() or traced is not None:
            # A part that is compiled apart from its root keeps nothing; outside the root's forward it generates for itself.
            return (traced if traced is not None else self._make()).weights[segment]
        if differentiable.transforms_are_active():
            kept = self._weights.now.kept
            return (kept if kept is not None else self._make()).weights[segment]
        self._check_untouched()
        weight = (self._find() or self._generate()).weights[segment]
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
        self._weights.forget()
        self.deferral.drop()

    def needs_gradient(self) -> bool:
        """Whether weights that are made now get gradients for the bank."""
        return self.values.requires_grad and torch.is_grad_enabled()

    def _mode(self) -> tuple[Any, ...]:
        values = self.values
        modes = self.needs_gradient(), torch.is_inference_mode_enabled()
        return *modes, version_of(values), weight_type(values), values.dtype, values.device

    def _find(self) -> Kept | None:
        return self._weights.find(self.values, self._mode(), self.needs_gradient())

    def _make(self) -> Kept:
        values, generator, dtype = self.values, self.generator, weight_type(self.values)
        traced = torch.compiler.is_compiling()
        transformed = not traced and differentiable.transforms_are_active()
        keeps = self.needs_gradient() and not traced and not transformed
        if self.gradient == "balanced" and values.requires_grad:
            divisor = generator.mean_squared_scales(values.device).to(values.device, values.dtype)
            values = differentiable.DividedGradient.apply(values, divisor)
        if transformed:
            flat = differentiable.generate(values, generator, dtype)
        elif keeps and self.regenerate:
            flat = self.regeneration.promise(values, generator, dtype)
        elif keeps and self.deferral.concerns_next_forward:
            flat = self.deferral.share(values, self.values, generator, dtype)
        else:
            flat = generator.generate(values, dtype)
        pieces = zip(generator.layout.cut(flat), self._shapes, strict=True)
        return Kept(flat, [piece.view(shape) for piece, shape in pieces])

    def _generate(self) -> Kept:
        return self._weights.keep(self._make(), self.values, self._mode(), self.needs_gradient())

    def _begin_forward(self, root: nn.Module, inputs: Any) -> None:
        if not self._shapes:
            return
        if torch.compiler.is_compiling():
            self._weights.traced = self._make()
            return
        refuse_tracers()
        now = self._weights.now
        if differentiable.transforms_are_active():
            now.inside, now.kept = True, self._make()
            return
        self._check_untouched()
        if self.needs_gradient():
            self.check_registered()
            self.freezing.look(self, root)
        else:
            if torch.is_grad_enabled() and self._registration.holder is not None:
                self.freezing.look_at_holder(root, self._registration.holder)
            if self._find() is not None:
                now.inside = True
                return
        now.inside = True
        self._generate()

    def _end_forward(self, root: nn.Module, inputs: Any, output: Any) -> None:
        self._weights.traced = None
        if torch.compiler.is_compiling() or tracer():
            return
        now = self._weights.now
        now.inside = False
        if not differentiable.transforms_are_active():
            self._check_untouched()
        now.kept = None
        if self.needs_gradient():
            self._weights.shared = None  # training starts, or goes on: the next evaluation's weights are others

    def _check_untouched(self) -> None:
        touched = self._weights.find_touched()
        if touched is not None:
            with torch.no_grad():
                pairs = zip(self._make().weights, touched.weights, strict=True)
            changed = {segment for segment, pair in enumerate(pairs) if not torch.equal(*pair)}
            self._weights.forget()
            self.deferral.drop()
            refuse_change(self, self.root, changed)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Bank:
        super()._apply(fn, recurse)
        if self.generator.is_prepared:
            self.prepare()
        return self

    # ---- registration, copies, checkpoints

    def _move_to(self, root: nn.Module, name: str) -> None:
        self._registration.move(self, root, name, self._begin_forward, self._end_forward)

    def lend_to(self, layers: Sequence[nn.Module], root: nn.Module, name: str) -> None:
        """Registers the bank in the first of the layers of a root that counts its children; it is its attribute `name`, too."""
        self._registration.lend(self, root, name, self._begin_forward, self._end_forward, layers)

    def unregister(self) -> None:
        """Takes the bank out of its root, if it has one."""
        self._registration.end(self)

    def check_registered(self) -> None:
        """Sees to it that the root has the bank.

        Raises:
            RuntimeError: It has not, so the bank would be trained by nobody.
        """
        self._registration.check(self, f"a bank of {self.size} entries")

    def __deepcopy__(self, memo: dict[int, Any]) -> Bank:
        self._check_untouched()
        self._registration.check_copy(self, memo)
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        new.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return new

    def get_extra_state(self) -> Tensor:
        """What makes the layers' weights of the entries, see `placement_state`.

        Raises:
            RuntimeError: A generated weight was changed in place, which a file would not hold.
        """
        self._check_untouched()
        return state_of(self.layout)

    def set_extra_state(self, state: Tensor) -> None:
        """Compares the saved placement with this bank's, and takes over the scales.

        Raises:
            ValueError: They differ, so that the loaded entries would make other weights.
        """
        scales = other_scales(state, self.layout)
        if scales is not None:
            self._replace_generator(self.generator.rescaled(scales))
            if self.generator.is_prepared:
                self.prepare()
