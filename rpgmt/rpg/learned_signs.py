"""Learned signs: layers whose weights share magnitudes in small groups, while each weight has a sign of its own.

Generation from a bank gives every use of an entry another sign, at random. Here the signs are learned, a bit for each weight:

    weight[t] = sign[t] · magnitude[t mod n]

Of a layer of M weights n magnitudes and M bits are stored. Entries lie on a ring as a bank's do, without a permutation: where n
is a whole number of rows, a magnitude serves one input and one place of the kernel in several outputs.

A sign has no gradient, so the network is trained free and stored shared: each layer trains M free weights w; the magnitudes are
the means of |w| over their uses, which for these signs is the least-squares fit, and the forward pass uses

    w + firmness · (shared(w) - w),

whose gradient goes straight to w (Courbariaux et al., BinaryConnect, arXiv 1511.00363; Rastegari et al., XNOR-Net, arXiv
1603.05279, where one magnitude serves a whole output). The firmness rises from 0, the plain network, to 1, the stored one,
while training goes on. In evaluation mode it is 1: what is measured is what a file holds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpgmt.rpg.bake import ComputedLayer
from rpgmt.rpg.choice import choose_layers
from rpgmt.rpg.differentiable import transforms_are_active
from rpgmt.rpg.generate import weight_type
from rpgmt.rpg.size import parse_size, split

FREE_UNTIL, FIRM_FROM = 0.1, 0.6
"""Parts of a training: until the first weights are free, from the second on they are shared; between them they become so."""

BITS = 32
"""Of a number: so many signs are stored in the place of one magnitude."""

KERNEL_ON = ("cuda",)
"""Devices on which one kernel makes the weights of all layers; Triton's interpreter would run it on others, and slowly."""


@dataclass(frozen=True)
class Made:
    """Weights that were made for a layer beforehand.

    Args:
        free: The parameter that they were made of.
        training: The layer's mode then.
        used: The weights.
    """

    free: Tensor
    training: bool
    used: Tensor


class SignedConv2d(ComputedLayer, nn.Conv2d):
    """A convolution whose weights share magnitudes and have signs of their own; `learn_signs` makes it of a plain one.

    Attributes:
        weight: The free weights that are trained; see the module's text.
        entries: n, how many magnitudes there are.
        firmness: () from 0, where the free weights are used, to 1, where those that a file holds are.
        made: What `made_together` has made, while that lasts.
    """

    entries: int
    firmness: Tensor
    made: Made | None = None

    def forward(self, x: Tensor) -> Tensor:
        used = self._made()
        if used is None:
            used = self._between(self.firmness if self.training else None)
        return self._conv_forward(x, _StraightThrough.apply(self.weight, used), self.bias)

    def _made(self) -> Tensor | None:
        """What was made beforehand, unless the layer runs with another weight, in another mode or of another type by now."""
        made = None if torch.compiler.is_compiling() else self.made
        if made is None or made.free is not self.weight or made.training != self.training:
            return None
        return made.used if made.used.dtype == weight_type(self.weight) else None

    def magnitudes(self) -> Tensor:
        """(n,) mean of |weight| over the uses of each entry; of equal ones of float32 it is their value, bit for bit."""
        sizes, full = self.weight.detach().abs().flatten(), self.weight.numel() // self.entries
        exact = torch.float32 if sizes.device.type == "mps" else torch.float64  # in which sums of equal ones are exact
        sums = sizes[: full * self.entries].view(full, self.entries).sum(0, dtype=exact)
        rest = len(sizes) - full * self.entries  # the last lap is one of the first entries only
        sums[:rest] += sizes[full * self.entries :]
        sums[:rest] /= full + 1
        sums[rest:] /= full
        return sums.to(sizes.dtype)

    def shared_weight(self) -> Tensor:
        """(outputs, inputs, height, width): the weights that a file holds, without gradient."""
        return self._between(None)

    def _between(self, firmness: Tensor | None) -> Tensor:
        """The weights between free and shared ones; None: the shared ones."""
        free = self.weight.detach()
        shared = torch.copysign(self.spread(self.magnitudes()), free)
        return shared if firmness is None else shared.lerp_(free, (1 - firmness).to(free.dtype))

    def spread(self, magnitudes: Tensor) -> Tensor:
        """(outputs, inputs, height, width): for each weight the magnitude of its entry."""
        count = self.weight.numel()
        return magnitudes.repeat(-(-count // self.entries))[:count].view(self.weight.shape)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """The plain layer's; refuses what masks and norms would make of the free weights, which are not those in use."""
        if "entries" in self.__dict__ and name.startswith("weight_"):
            raise RuntimeError(f"a convolution that learns signs cannot have a `{name}`: `rpgmt.bake(model)` makes it plain")
        super().register_parameter(name, param)

    def extra_repr(self) -> str:
        """The plain layer's, and n."""
        return f"{super().extra_repr()}, {self.entries} magnitudes"

    def become_plain(self) -> None:
        shared = torch.empty_like(self.weight).copy_(self.shared_weight())
        self.weight = nn.Parameter(shared.detach(), requires_grad=self.weight.requires_grad)
        del self.firmness, self.entries
        self.__class__ = nn.Conv2d  # type: ignore[assignment]


@contextmanager
def made_together(layers: Iterable[SignedConv2d]) -> Iterator[None]:
    """While it lasts, layers use weights that are made once, at its beginning: on a GPU by one kernel for all of them.

    Otherwise each makes its own whenever it runs, which on a GPU takes much of a step. Enter it for each forward pass of a
    training, under autocast if that is used, or for a whole evaluation. Neither weights nor firmness may change meanwhile. A
    layer that runs in another way than it would have at the beginning makes its own: in the other mode, in another type, with
    another weight (`torch.func.functional_call`), compiled.

    Args:
        layers: What `learn_signs` returned.
    """
    chosen = [] if transforms_are_active() else list(layers)
    for layer, used in zip(chosen, _make_together(chosen), strict=True):
        layer.made = Made(layer.weight, layer.training, used)
    try:
        yield
    finally:
        for layer in chosen:
            layer.__dict__.pop("made", None)


@torch.no_grad()
def _make_together(layers: Sequence[SignedConv2d]) -> list[Tensor]:
    firmness = [layer.firmness if layer.training else None for layer in layers]
    if layers and layers[0].weight.device.type in KERNEL_ON:
        from rpgmt.rpg.backends import signs_kernel  # Triton takes a while to import

        free, entries = [layer.weight.detach() for layer in layers], [layer.entries for layer in layers]
        if signs_kernel.usable(free, entries, firmness):
            return signs_kernel.used_weights(free, entries, firmness, weight_type(free[0]))
    pairs = zip(layers, firmness, strict=True)
    return [layer._between(firm).to(weight_type(layer.weight)) for layer, firm in pairs]


class _StraightThrough(torch.autograd.Function):
    """Other weights in the place of the free ones, which get their gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(free: Tensor, used: Tensor) -> Tensor:
        return used.view_as(used)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def learn_signs(
    model: nn.Module, size: int | str, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> list[SignedConv2d]:
    """Makes a model's convolutions share magnitudes and learn their signs, in place. Make the optimizer as ever.

    Training then has to say how far it is, see `set_firmness`; until it does, weights are shared from the start.

    Args:
        model: Any module, with plain `nn.Conv2d` layers.
        size: Stored numbers of all these layers together, e.g. `250_000`, "250K", or "25%" of their weights: magnitudes, and
            one number for 32 signs. Layers get shares in proportion to their weights. With as many numbers as weights, or
            more, they stay as they are.
        include: Patterns (as in `fnmatch`) of layer names; what matches none is left alone, and so is what is frozen, shared,
            pruned or normed.
        exclude: Patterns of layer names that are left alone.

    Returns:
        The layers.

    Raises:
        ValueError: There is no such layer, a pattern matches nothing, or the size leaves no magnitude for each layer beside the
            signs.
        UserWarning: There are more numbers than weights.
    """
    chosen = [layer for layer in choose_layers(model, include, exclude)[0].values() if type(layer) is nn.Conv2d]
    if not chosen:
        raise ValueError(f"the {type(model).__name__} has no plain convolution whose signs could be learned")
    weights = [layer.weight.numel() for layer in chosen]
    total = parse_size(size, sum(weights))
    if total >= sum(weights):
        if total > sum(weights):
            warnings.warn(f"`size` is {size}: the layers have {sum(weights)} weights, so none is shared", stacklevel=2)
        return []
    signs = sum(map(numbers_of_signs, weights))
    if total - signs < len(chosen):
        raise ValueError(
            f"`size` is {size}: {sum(weights)} signs take {signs} numbers, and {len(chosen)} layers need a magnitude each: "
            f"give at least {signs + len(chosen)}"
        )
    entries = split(total - signs, weights)
    for layer, count in zip(chosen, entries, strict=True):
        layer.__class__ = SignedConv2d
        signed = cast(SignedConv2d, layer)
        signed.entries = count
        signed.register_buffer("firmness", torch.ones((), device=layer.weight.device), persistent=False)
    return cast(list[SignedConv2d], chosen)


def signed_layers(model: nn.Module) -> dict[str, SignedConv2d]:
    """The layers of a model that learn signs, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SignedConv2d)}


def set_firmness(layers: Iterable[SignedConv2d], progress: float) -> None:
    """Sets how firmly weights are shared, before each step of a training; `tools/train.py` does it.

    Args:
        layers: What `learn_signs` returned.
        progress: Which part of the training is over, from 0 to 1.
    """
    if buffers := [layer.firmness for layer in layers]:
        torch._foreach_zero_(buffers)  # in one call each: a GPU is soon done with a number, and there are many
        torch._foreach_add_(buffers, min(1.0, max(0.0, (progress - FREE_UNTIL) / (FIRM_FROM - FREE_UNTIL))))


def refuse_signed(model: nn.Module, what: str) -> None:
    """Raise ValueError where a model has layers that learn signs, of which `what` would change weights that are not in use."""
    if names := list(signed_layers(model)):
        raise ValueError(f"`{names[0]}` learns its signs and cannot be {what}: `rpgmt.bake(model)` makes it plain")


def numbers_of_signs(weights: int) -> int:
    """How many stored numbers the signs of a layer's weights count for."""
    return -(-weights // BITS)


def stored_numbers(layer: SignedConv2d) -> int:
    """What a file holds in place of the layer's weights, in numbers."""
    return layer.entries + numbers_of_signs(layer.weight.numel())


# ---- in a file


def stored_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state dict as files hold it: shared tensors under their first name only, learned signs as `pack` makes them."""
    state = model.state_dict()
    for prefix, layer in signed_layers(model).items():
        del state[f"{prefix}.weight"]
        state |= {f"{prefix}.{name}": tensor for name, tensor in pack(layer).items()}
    seen: set[tuple[int, Any]] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.shape)
        if key not in seen or not tensor.numel():
            tensors[name] = tensor
        seen.add(key)
    return tensors


def unpack_state(state: dict[str, Tensor], layers: Mapping[str, SignedConv2d]) -> None:
    """Puts the weights of layers in the place of what `stored_state` made of them.

    Args:
        state: What `stored_state` made; it is changed.
        layers: By name, those whose magnitudes and signs it holds.

    Raises:
        ValueError: As of `unpack`.
    """
    for name, layer in layers.items():
        state[f"{name}.weight"] = unpack(layer, state.pop(f"{name}.magnitudes"), state.pop(f"{name}.signs"))


def pack(layer: SignedConv2d) -> dict[str, Tensor]:
    """What a file holds in place of the layer's weight: `magnitudes` (n,), and `signs`, a bit for each weight, 1 for minus, the
    first in the lowest bit of the first byte; uint8 (⌈M / 8⌉,)."""
    bits = torch.signbit(layer.weight.detach()).flatten()
    bits = F.pad(bits.to(torch.uint8), (0, -len(bits) % 8)).view(-1, 8)
    return {"magnitudes": layer.magnitudes(), "signs": (bits << _places(bits)).sum(1, dtype=torch.uint8)}


def unpack(layer: SignedConv2d, magnitudes: Tensor, signs: Tensor) -> Tensor:
    """The weight of which `pack` made these.

    Raises:
        ValueError: They are of other types.
    """
    if signs.dtype != torch.uint8 or not magnitudes.is_floating_point():
        raise ValueError(f"signs are {signs.dtype} and magnitudes {magnitudes.dtype}, not torch.uint8 and torch.float32")
    bits = ((signs[:, None] >> _places(signs)) & 1).flatten()[: layer.weight.numel()]
    sizes = layer.spread(magnitudes)
    return torch.where(bits.view(sizes.shape).bool(), -sizes, sizes)


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)
