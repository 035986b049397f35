"""Pruning of single weights and of entries of banks: counts, which, and that zeros last."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from baselines.small_net import FIXED, TOTAL, WEIGHTS, X, generated, plain
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from rpgmt import bake, parameter_groups, report
from rpgmt.baselines.channels import prune_channels
from rpgmt.baselines.masks import count_remaining
from rpgmt.baselines.parameter_count import Pruning
from rpgmt.baselines.pruning import prune_banks, prune_weights, unmask
from rpgmt.models.counting import count_macs
from rpgmt.rpg.bank import Bank


def zeros(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter == 0 for name, parameter in model.named_parameters() if "weight" in name or "values" in name}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()


OPTIMIZERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01),
    "adamw": lambda model: torch.optim.AdamW(parameter_groups(model, "adamw", 0.01, 0.1)),
}


# ---- single weights


@pytest.mark.parametrize("remaining", [TOTAL - 1, 500, FIXED + 1, FIXED])
def test_counts_of_weights_are_exact_and_the_choice_is_torchs(remaining: int) -> None:
    model, twin = plain(), plain()
    result = prune_weights(model, remaining)
    assert (result.before, result.after) == (TOTAL, remaining)
    assert count_remaining(model) == remaining
    assert report(model).trainable == TOTAL
    assert sum(now for now, _ in result.layers.values()) == remaining - FIXED
    layers = [(twin.get_submodule(name), "weight") for name in WEIGHTS]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=TOTAL - remaining)
    for name in WEIGHTS:
        assert torch.equal(model.get_submodule(name).weight, twin.get_submodule(name).weight)
        assert result.layers[name] == (int(twin.get_submodule(name).weight_mask.sum()), twin.get_submodule(name).weight.numel())
    with torch.no_grad():
        assert torch.equal(model.eval()(X), twin.eval()(X))


@pytest.mark.parametrize("remaining", [TOTAL, TOTAL + 1])
@pytest.mark.parametrize("function", [prune_weights, lambda m, n: prune_channels(m, n, X[:1], keep=("head",))])
def test_nothing_changes_where_nothing_is_pruned(function: Any, remaining: int) -> None:
    model, twin = plain(), plain()
    result = function(model, remaining)
    assert (result.before, result.after) == (TOTAL, TOTAL)
    assert all(now == all_ for now, all_ in result.layers.values())
    assert not model._forward_pre_hooks
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def cases() -> dict[str, tuple[Any, Any]]:
    return {
        "weights": (plain, lambda model: prune_weights(model, 300)),
        "baked": (lambda: bake(generated()), lambda model: prune_weights(model, 300)),
        "bank": (generated, lambda model: prune_banks(model, 150)),
        "banks": (lambda: generated(scope="layer"), lambda model: prune_banks(model, 150)),
        "bank, made twice": (lambda: generated(regenerate=True), lambda model: prune_banks(model, 150)),
        "bank, balanced": (lambda: generated(gradient="balanced"), lambda model: prune_banks(model, 150)),
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", cases())
def test_zeros_last_and_the_rest_is_trained(case: str, optimizer: str) -> None:
    make, pruned = cases()[case]
    model = make()
    result = pruned(model)
    before, held = copy.deepcopy(model.state_dict()), zeros(model)
    assert sum(int(mask.sum()) for mask in held.values()) == result.before - result.after > 0
    train(model, OPTIMIZERS[optimizer](model))
    for name, mask in held.items():
        parameter = model.get_parameter(name)
        assert torch.equal(parameter == 0, mask)  # after the step, before any other forward
        assert (parameter[~mask] != before[name][~mask]).all()
    assert count_remaining(model) == result.after


@pytest.mark.parametrize("case", ["weights", "bank"])
def test_an_optimizer_that_remembers_is_set_right_by_the_next_forward(case: str) -> None:
    make, pruned = cases()[case]
    model = make()
    optimizer = OPTIMIZERS["adamw"](model)
    train(model, optimizer)
    pruned(model)
    held = zeros(model)
    train(model, optimizer)
    assert not all((model.get_parameter(name)[mask] == 0).all() for name, mask in held.items())
    with torch.no_grad():
        output = model.eval()(X)
    assert all((model.get_parameter(name)[mask] == 0).all() for name, mask in held.items())
    with torch.no_grad():
        assert torch.equal(output, bake(copy.deepcopy(model))(X))


@pytest.mark.parametrize("case", ["weights", "bank"])
def test_gradients_are_those_of_the_model_without_masks_but_for_zeros(case: str) -> None:
    make, pruned = cases()[case]
    model = make()
    pruned(model)
    twin = make()
    twin.load_state_dict(model.state_dict(), strict=True)  # the same names, and no masks
    for network in (model, twin):
        network(X).square().sum().backward()
    for name, parameter in twin.named_parameters():
        expected = parameter.grad.masked_fill(zeros(model).get(name, torch.zeros_like(parameter, dtype=torch.bool)), 0)
        assert torch.equal(model.get_parameter(name).grad, expected)


@pytest.mark.parametrize("case", ["weights", "bank"])
def test_copies_have_masks_of_their_own(case: str) -> None:
    make, pruned = cases()[case]
    model = make()
    pruned(model)
    held, count = zeros(model), count_remaining(model)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), AveragedModel(model).module]
    unmask(model)
    for twin in copies:
        assert count_remaining(twin) == count
        train(twin, OPTIMIZERS["adamw"](twin))
        assert all(torch.equal(twin.get_parameter(name) == 0, mask) for name, mask in held.items())
    assert count_remaining(model) == report(model).trainable


@pytest.mark.parametrize("case", ["weights", "bank"])
def test_masks_can_be_removed(case: str) -> None:
    make, pruned = cases()[case]
    model = make()
    pruned(model)
    held = zeros(model)
    hooks = len(model._forward_pre_hooks)
    unmask(model)
    unmask(model)
    assert len(model._forward_pre_hooks) == hooks - 1
    assert all(torch.equal(model.get_parameter(name) == 0, mask) for name, mask in held.items())
    train(model, OPTIMIZERS["adamw"](model))
    assert not any((model.get_parameter(name) == 0).any() for name in held)


def test_pruning_goes_on_from_what_remains() -> None:
    model, at_once = plain(), plain()
    first = prune_weights(model, 600)
    some = zeros(model)
    second = prune_weights(model, 400)
    assert (first.after, second.before, second.after) == (600, 600, 400)
    assert all((zeros(model)[name] | ~mask).all() for name, mask in some.items())
    prune_weights(at_once, 400)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), at_once.parameters(), strict=True))
    assert prune_weights(model, 500) == Pruning(400, 400, second.layers)  # not more than remains


def test_a_checkpoint_is_pruned_the_same_by_pruning_again() -> None:
    model, other = plain(), plain()
    prune_weights(model, 300)
    train(model, OPTIMIZERS["sgd"](model))
    other.load_state_dict(model.state_dict())
    prune_weights(other, 300)
    assert all(torch.equal(zeros(other)[name], mask) for name, mask in zeros(model).items())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_frozen_and_shared_weights() -> None:
    model = plain()
    model.body.weight.requires_grad_(False)
    model.twin = nn.Linear(8, 5)
    model.twin.weight = model.head.weight
    result = prune_weights(model, 200)
    assert result.after == count_remaining(model) == 200
    assert list(result.layers) == ["stem", "head"]
    assert (model.body.weight != 0).all()
    assert torch.equal(model.twin.weight, model.head.weight)


def test_compiled_models_keep_their_zeros() -> None:
    model = plain()
    prune_weights(model, 300)
    held = zeros(model)
    train(torch.compile(model, backend="aot_eager"), OPTIMIZERS["sgd"](model))
    assert all(torch.equal(model.get_parameter(name) == 0, mask) for name, mask in held.items())


# ---- entries of banks


def test_the_pruned_entries_change_the_weights_least() -> None:
    model = generated(scope="layer")
    before = bake(copy.deepcopy(model)).state_dict()

    def change(other: nn.Module) -> float:
        after = bake(copy.deepcopy(other)).state_dict()
        return sum(float((after[f"{name}.weight"] - before[f"{name}.weight"]).square().sum()) for name in WEIGHTS)

    harms = []
    for bank in [name for name, module in model.named_modules() if isinstance(module, Bank)]:
        for entry in range(model.get_submodule(bank).size):
            other = copy.deepcopy(model)
            with torch.no_grad():
                other.get_submodule(bank).values[entry] = 0
            harms.append(change(other))
    prune_banks(model, report(model).trainable - 50)
    assert change(model) == pytest.approx(sum(sorted(harms)[:50]), rel=1e-4)


def test_counts_of_banks_are_exact() -> None:
    model = generated(scope="layer")
    result = prune_banks(model, FIXED + 77)
    assert (result.before, result.after) == (FIXED + 200, FIXED + 77)
    assert sum(now for now, _ in result.layers.values()) == 77
    assert [all_ for _, all_ in result.layers.values()] == [bank.size for bank in model.modules() if isinstance(bank, Bank)]
    # Weights that pruned entries make are zero.
    pruned = sum(int((bake(copy.deepcopy(model)).get_submodule(name).weight == 0).sum()) for name in WEIGHTS)
    assert pruned >= 123 * (report(model).generated // 200)


def test_multiply_accumulates_of_pruned_weights_are_those_before() -> None:
    models = plain(), generated()
    before = [count_macs(model, (6, 6)) for model in models]
    prune_weights(models[0], 300)
    prune_banks(models[1], 150)
    assert [count_macs(model, (6, 6)) for model in models] == before


def test_evaluation_of_pruned_banks_generates_once() -> None:
    model = generated()
    prune_banks(model, 150)
    with torch.no_grad():
        model.eval()(X)
        kept = model.bank._weights.shared
        model(X)
    assert model.bank._weights.shared is kept is not None


def test_a_baked_network_is_pruned_as_a_plain_one() -> None:
    model = generated()
    prune_banks(model, 150)
    bake(model)
    assert count_remaining(model) == TOTAL  # what is a weight now is its own
    result = prune_weights(model, 300)
    assert (result.before, result.after) == (TOTAL, 300)


# ---- errors


def test_errors() -> None:
    pytest.importorskip("torch_pruning", reason="torch-pruning is not installed (the extra prune)")
    with pytest.raises(
        ValueError, match=f"`parameters` is 10: only {TOTAL - FIXED} of the {TOTAL} remaining parameters are wei"
    ):
        prune_weights(plain(), 10)
    with pytest.raises(ValueError, match=f"are entries of banks; give at least {TOTAL}"):
        prune_banks(plain(), 10)
    with pytest.raises(ValueError, match="`method` is 'l2': must be one of l1, fpgm"):
        prune_channels(plain(), 10, X[:1], method="l2")
    with pytest.raises(ValueError, match=r"call `rpgmt\.bake\(model\)` first"):
        prune_channels(generated(), 10, X[:1])
    with pytest.raises(ValueError, match="would lose channels: name the layers that make it in `keep`"):
        prune_channels(plain(), 300, X[:1])
    with pytest.raises(ValueError, match=r"`parameters` is 10: taking out channels leaves no fewer than \d+$"):
        prune_channels(plain(), 10, X[:1], keep=("head",))
    model = plain()
    prune_weights(model, 300)
    with pytest.raises(ValueError, match=r"call `rpgmt\.baselines\.pruning\.unmask\(model\)` first"):
        prune_channels(model, 100, X[:1])


@pytest.mark.parametrize("parameters", [600.7, "30%", -1, True])
def test_what_remains_is_a_number(parameters: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    for run in (prune_weights, prune_banks, lambda m, n: prune_channels(m, n, torch.ones(1, 8))):
        with pytest.raises(ValueError, match=r"`parameters` is .*: give the number of parameters that shall remain"):
            run(model, parameters)
