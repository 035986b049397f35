"""convert(model, size) swaps layers for generated ones, in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from rpgmt.rpg.bank import Bank
from rpgmt.rpg.layers import GENERATED, GeneratedLayer, deviation
from rpgmt.rpg.placement import Placement
from rpgmt.rpg.report import Report, report
from rpgmt.rpg.size import parse_size, split

Scope = str | Callable[[str], str]

INITS = ("fresh", "project")


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
    init: str = "fresh",
) -> Report:
    """Generates the weights of a model's convolutions and linear layers from banks of `size` parameters, in place.

    Module names stay. Each bank becomes a child of `model` (`bank`, or `bank_<scope>` where there are several), so the model's
    forward generates once. With fewer parameters than weights, each layer's scale is in proportion to the deviation that its
    weight had, and `init` says where a bank starts; otherwise the weights keep their values, and training goes on as the plain
    network's would.

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
        init: Where a bank with fewer parameters than weights starts. "fresh": at random, so that each weight has the deviation
            that it had. "project": at the least-squares fit of the weights, see `Bank.project`; for a trained network. Weights
            are about √k smaller then, k = M/N, and statistics of norms fit only after some training.

    Returns:
        What was converted, what was left and why, and the counts.

    Raises:
        ValueError: No layer is left to convert, a pattern matches nothing, or an argument is out of range.
    """
    if init not in INITS:
        raise ValueError(f"`init` is {init!r}: must be one of {', '.join(INITS)}")
    for name, patterns in (("include", include), ("exclude", exclude)):
        if isinstance(patterns, str):
            raise ValueError(f"`{name}` is {patterns!r}: give a list of patterns, e.g. [{patterns!r}]")
    Placement(1, seed=seed, block=block)  # before anything is changed
    chosen, left = _choose(model, include, exclude)
    groups: dict[str, list[str]] = {}
    bank_of = _bank_names(model, scope)
    for name in chosen:
        groups.setdefault(bank_of(name), []).append(name)
    for names in groups.values():
        _one_kind({name: chosen[name] for name in names})  # before anything is changed
    generated = [sum(_weight(chosen[name]).numel() for name in names) for names in groups.values()]
    shares = split(parse_size(size, sum(generated)), generated)
    first = sum(isinstance(module, Bank) for module in model.modules())  # converted before: other placements
    for number, (group, names, share) in enumerate(zip(groups, groups.values(), shares, strict=True), start=first):
        layers = {name: chosen[name] for name in names}
        bank = _make_bank(layers, share, seed=seed, number=number, block=block, gradient=gradient, init=init)
        bank.regenerate = regenerate
        bank.left = left
        model.add_module(_unused_name(model, f"bank_{group}".replace(".", "_") if group else "bank"), bank)
    return report(model)


def _choose(model: nn.Module, include: Sequence[str], exclude: Sequence[str]) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The layers to convert by name, and for the others why not."""
    chosen: dict[str, nn.Module] = {}
    left: dict[str, str] = {}
    unmatched = {*include, *exclude}
    holders = _holders(model)
    for name, module in model.named_modules():
        unmatched -= {pattern for pattern in unmatched if fnmatchcase(name, pattern)}
        if isinstance(module, Bank | GeneratedLayer) or not any(True for _ in module.parameters(recurse=False)):
            continue
        weight = module._parameters.get("weight")
        if type(module) not in GENERATED:
            left[name] = f"{type(module).__name__} is not generated"
        elif not any(fnmatchcase(name, pattern) for pattern in include):
            left[name] = f"not in {', '.join(include)}"
        elif any(fnmatchcase(name, pattern) for pattern in exclude):
            left[name] = "excluded"
        elif (reason := _unfit(name, weight, holders)) is not None:
            left[name] = reason
        else:
            chosen[name] = module
    if unmatched - {"*"}:
        raise ValueError(f"`{sorted(unmatched - {'*'})[0]}` matches no module of the {type(model).__name__}")
    if not chosen:
        why = "; ".join(f"{name or 'model'}: {reason}" for name, reason in list(left.items())[:3])
        raise ValueError(f"the {type(model).__name__} has no layer to generate ({why or 'no parameters'})")
    return chosen, left


def _unfit(name: str, weight: nn.Parameter | None, holders: dict[int, list[str]]) -> str | None:
    """Why a layer's weight cannot be generated.

    Raises:
        ValueError: It could be, if it had proper values.
    """
    if weight is None:
        return "its weight is computed"  # by spectral norm, pruning, …
    if not weight.requires_grad:
        return "its weight is frozen"
    if len(holders[id(weight)]) > 1:
        return f"its weight is also that of {next(other for other in holders[id(weight)] if other != name)}"
    if not weight.is_floating_point():
        return "its weight is not real"
    if not weight.numel():
        return "its weight is empty"
    if weight.is_meta:
        raise ValueError(f"`{name}` is on the meta device: convert a model that has its weights")
    if not weight.isfinite().all():
        raise ValueError(f"the weight of `{name}` is not finite: initialise it, or exclude the layer")
    return "its weight is constant" if weight.min() == weight.max() else None


def _holders(model: nn.Module) -> dict[int, list[str]]:
    """Names of the modules that hold each parameter, by the parameter's id."""
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(name)
    return holders


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
    """A bank for the layers, and the layers drawing on it."""
    weights = {name: _weight(layer) for name, layer in layers.items()}
    dtype, device = _one_kind(layers)
    generated = sum(weight.numel() for weight in weights.values())
    std = math.sqrt(sum(weight.numel() * deviation(weight) ** 2 for weight in weights.values()) / generated)
    bank = Bank(size, std=std, seed=seed, number=number, block=block, gradient=gradient, device=device, dtype=dtype)
    if size >= generated:
        bank.add_exactly(list(weights.values()))
    else:
        for weight in weights.values():
            bank.add(weight.shape, deviation(weight))
        if init == "project":
            bank.project(list(weights.values()))
    for segment, layer in enumerate(layers.values()):
        layer.__class__ = GENERATED[type(layer)]
        assert isinstance(layer, GeneratedLayer)
        layer.draw_from(bank, segment)
    bank.prepare()
    return bank


def _one_kind(layers: dict[str, nn.Module]) -> tuple[torch.dtype, torch.device]:
    """The type and device of all the layers' weights."""
    kinds = {(_weight(layer).dtype, _weight(layer).device) for layer in layers.values()}
    if len(kinds) > 1:
        raise ValueError(f"layers of one bank differ in type or device ({kinds}): convert before you move parts of a model")
    return kinds.pop()


def _weight(layer: nn.Module) -> nn.Parameter:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def _unused_name(model: nn.Module, name: str) -> str:
    candidates = [name, *(f"{name}_{i}" for i in range(2, 1000))]
    return next(candidate for candidate in candidates if not hasattr(model, candidate))
