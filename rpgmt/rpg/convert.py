"""convert(model, size) swaps layers for generated ones, in place."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from rpgmt.rpg.bank import Bank
from rpgmt.rpg.bank_registration import counts_its_children
from rpgmt.rpg.choice import choose_layers, own_weights
from rpgmt.rpg.frozen import FreezeWatch, frozen_parts
from rpgmt.rpg.layers import GeneratedLayer, banks_of, deviation, generated_class
from rpgmt.rpg.old_optimizers import watch_optimizers
from rpgmt.rpg.placement import Placement
from rpgmt.rpg.report import Report, report
from rpgmt.rpg.size import parse_size, split
from rpgmt.rpg.trained_weights import looks_trained

Scope = str | Callable[[str], str]

INITS = ("fresh", "project")

_UNUSED_LIMIT = 10_000_000  # entries without a use, that a bank is still made with


def convert(
    model: nn.Module,
    size: int | str,
    *,
    scope: Scope = "global",
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    seed: int = 0,
    block: int = 1,
    gradient: str = "exact",
    regenerate: bool = False,
    init: str | None = None,
) -> Report:
    """Generates the weights of a model's convolutions, linear layers and attention from banks of `size` parameters, in place.

    Module names stay. Each bank becomes a child of `model` (`bank`, or `bank_<scope>` where there are several), so the model's
    forward generates once. Where the children of `model` are counted (an `nn.Sequential`, or an `nn.ModuleList` or
    `nn.ModuleDict` with a forward of its own), it is an attribute of `model`, and a child of the first layer that it generates.

    With fewer parameters than weights, each layer's scale is in proportion to the deviation that its weight had, and `init`
    says where a bank starts; otherwise the weights keep their values, and training goes on as the plain network's would.

    **With fewer parameters than weights the values that the weights had are lost**, unless `init` is "project". A warning says
    so where they look trained and `init` is not given.

    Args:
        model: The root: the module whose forward is called.
        size: Parameters of all banks together: `250_000`, "250K", "1M", or "25%" of the generated weights. Banks get shares in
            proportion to the weights that they make.
        scope: Which layers draw on one bank. "global": all. Any other word is put to `model.bank_scope(scope, layer_name)`,
            which models with stages and blocks define. Or a function from a layer's name to its bank's name.
        include: Patterns (as in `fnmatch`) of layer names; what matches none is left alone.
        exclude: Patterns of layer names that are left alone.
        seed: Seed of the placement.
        block: Granularity of the placement, see `Placement`.
        gradient: See `Bank`.
        regenerate: See `Bank`.
        init: Where a bank with fewer parameters than weights starts. "fresh" (default): at random, so that each weight has the
            deviation that it had. "project": at the least-squares fit of the weights, see `Bank.project`; for a trained
            network. Weights are about √k smaller then, k = M/N, and statistics of norms fit only after some training.

    Make the optimizer afterwards. Freeze before: frozen weights are left as they are.

    Returns:
        What was converted, what was left and why, and the counts. To print it gives a table.

    Raises:
        ValueError: No layer is left to convert, a pattern matches nothing, a module is lazy and has no weights yet, or an
            argument is out of range. The model is as it was then.

    Warns:
        UserWarning: Trained weights are lost, most of a bank has no use, or `size` is text like "25", which may be meant in
            percent.
    """
    if init is not None and init not in INITS:
        raise ValueError(f"`init` is {init!r}: must be one of {', '.join(INITS)}")
    _check_model(model)
    Placement(1, seed=seed, block=block)
    chosen, left = choose_layers(model, include, exclude)
    groups: dict[str, dict[str, nn.Module]] = {}
    bank_of = _bank_names(model, scope)
    for name, layer in chosen.items():
        groups.setdefault(bank_of(name), {})[name] = layer
    for layers in groups.values():
        _one_kind(layers)
    generated = [sum(weight.numel() for weight in _weights(layers)) for layers in groups.values()]
    total = parse_size(size, sum(generated))
    shares = split(total, generated)
    _check_use(size, total, sum(generated))
    if init is None and total < sum(generated):
        _warn_of_trained(chosen, type(model).__name__)
    first = sum(isinstance(module, Bank) for module in model.modules())  # converted before: other placements
    banks = [
        _make_bank(layers, share, seed=seed, number=number, block=block, gradient=gradient, init=init or INITS[0])
        for number, (layers, share) in enumerate(zip(groups.values(), shares, strict=True), start=first)
    ]
    # So far the model is as it was, and from here on nothing is refused.
    replaced: list[weakref.ref[torch.Tensor]] = []
    for bank, (group, layers) in zip(banks, groups.items(), strict=True):
        bank.regenerate = regenerate
        bank.left = left
        for weight in _weights(layers):
            weight.grad = None  # an old gradient would hide that an optimizer's weight gets none any more
            replaced.append(weakref.ref(weight))
        del weight
        _draw_from(bank, layers)
        name = _unused_name(model, f"bank_{group}".replace(".", "_") if group else "bank")
        if counts_its_children(model):
            bank.lend_to(list(layers.values()), model, name)
        else:
            model.add_module(name, bank)
    for bank in banks:
        bank.freezing = FreezeWatch(frozen_parts(bank, model))
    watch_optimizers(
        replaced,
        [bank.values for bank in banks],
        f"weights that `rpgmt.convert` took out of the {type(model).__name__}, and not its bank: make the optimizer after "
        "`convert`",
    )
    return report(model)


def _check_model(model: nn.Module) -> None:
    """Refuses a model that cannot be a root, or of which the report could not be made.

    Raises:
        ValueError: It has no forward, is a traced one, has lazy modules without weights, or lost the bank of layers that were
            converted before.
    """
    if isinstance(model, torch.fx.GraphModule):
        raise ValueError("`model` is a traced GraphModule, whose copies would lose the bank: convert before it is traced")
    if isinstance(model, nn.ModuleList | nn.ModuleDict) and type(model).forward is nn.Module.forward:
        raise ValueError(f"`model` is a {type(model).__name__}, which has no forward: convert the module that holds it")
    for name, module in model.named_modules():
        if any(map(is_lazy, [*module.parameters(recurse=False), *module.buffers(recurse=False)])):
            raise ValueError(
                f"`{name}` is a {type(module).__name__}, which has no weights yet: run the model once on a batch, then convert"
            )
    banks_of(model)


def _check_use(size: int | str, total: int, generated: int) -> None:
    """Refuses a size of which more is without use than a model of this size can bear, and notes what may be meant otherwise.

    Raises:
        ValueError: So many entries that a machine may not hold them would make no weight.
    """
    unused = total - generated
    if unused > max(generated, _UNUSED_LIMIT):
        raise ValueError(
            f"`size` is {size}: the layers have {generated} weights, so {unused} entries would make none: give at most 100%"
        )
    if total > 10 * generated:
        _note(f"`size` is {size}: the layers have {generated} weights, so {unused} of the bank's entries are never used")
    if isinstance(size, str) and size.strip().isdecimal() and total <= 100 and 100 * total < generated:
        _note(f"`size` is {size}: that is {total} parameters for {generated} weights; for a part of them give '{total}%'")


def _warn_of_trained(chosen: dict[str, nn.Module], model: str) -> None:
    trained = [name for name, layer in chosen.items() if any(map(looks_trained, _weights({name: layer})))]
    if trained:
        _note(
            f"weights of the {model} look trained ({len(trained)} or more of {len(chosen)} layers, e.g. `{trained[0]}`), and "
            'are lost: new ones are generated; `init="project"` generates what is nearest to them, and `init="fresh"` '
            "says that they may go"
        )


def _note(text: str) -> None:
    warnings.warn(text, stacklevel=4)  # at the call of `convert`


def _bank_names(model: nn.Module, scope: Scope) -> Callable[[str], str]:
    if callable(scope):
        return scope
    if scope == "global":
        return lambda name: ""
    if not hasattr(model, "bank_scope"):
        raise ValueError(f"`scope` is {scope!r}: a {type(model).__name__} knows only 'global', or give a function")
    return lambda name: model.bank_scope(scope, name)  # type: ignore[operator]


def _make_bank(
    layers: dict[str, nn.Module], size: int, *, seed: int, number: int, block: int, gradient: str, init: str
) -> Bank:
    """A bank for the layers, which are left as they are."""
    weights = _weights(layers)
    dtype, device = _one_kind(layers)
    generated = sum(weight.numel() for weight in weights)
    std = math.sqrt(sum(weight.numel() * deviation(weight) ** 2 for weight in weights) / generated)
    bank = Bank(size, std=std, seed=seed, number=number, block=block, gradient=gradient, device=device, dtype=dtype)
    if size >= generated:
        bank.add_exactly(weights)
        bank.start = "kept exactly"
    else:
        for weight in weights:
            bank.add(weight.shape, deviation(weight))
        bank.start = "drawn anew"
        if init == "project":
            bank.project(weights)
            bank.start = "projected"
    bank.prepare()
    return bank


def _draw_from(bank: Bank, layers: dict[str, nn.Module]) -> None:
    """Makes the layers draw on the bank that was made for them."""
    segments = iter(range(len(_weights(layers))))
    for layer in layers.values():
        kind = generated_class(type(layer))
        names = own_weights(layer, kind.names)
        layer.__class__ = kind
        assert isinstance(layer, GeneratedLayer)
        layer.draw_from(bank, dict(zip(names, segments, strict=False)))


def _one_kind(layers: dict[str, nn.Module]) -> tuple[torch.dtype, torch.device]:
    """The type and device of all the layers' weights."""
    kinds = {(weight.dtype, weight.device) for weight in _weights(layers)}
    if len(kinds) > 1:
        raise ValueError(f"layers of one bank differ in type or device ({kinds}): convert before you move parts of a model")
    return kinds.pop()


def _weights(layers: dict[str, nn.Module]) -> list[nn.Parameter]:
    """The weights of plain layers that are to be generated, in the order of the ring."""
    return [w for layer in layers.values() for w in own_weights(layer, generated_class(type(layer)).names).values()]


def _unused_name(model: nn.Module, name: str) -> str:
    candidates = [name, *(f"{name}_{i}" for i in range(2, 1000))]
    return next(candidate for candidate in candidates if not hasattr(model, candidate))
