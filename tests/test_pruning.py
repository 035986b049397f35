from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from rpgmt import bake, convert, parameter_groups, report
from rpgmt.config import ModelConfig
from rpgmt.models import build
from rpgmt.models.counting import count_macs
from rpgmt.pruning import Pruning, prune_banks, prune_channels, prune_weights, unmask
from rpgmt.rpg.bank import Bank


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        return self.head((x + F.relu(self.body(x))).mean((2, 3)))

    def bank_scope(self, scope: str, name: str) -> str:
        return name


X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))
WEIGHTS = ("stem", "body", "head")
FIXED = 8 + 2 * 8 + 5  # biases and the norm
TOTAL = FIXED + 3 * 8 * 9 + 8 * 8 * 9 + 8 * 5


def plain() -> Net:
    torch.manual_seed(0)
    return Net()


def generated(size: int = 200, **options: Any) -> Net:
    model = plain()
    convert(model, size, **options)
    return model


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
    assert report(model).remaining == remaining
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
    assert report(model).remaining == result.after


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
    held, count = zeros(model), report(model).remaining
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), AveragedModel(model).module]
    unmask(model)
    for twin in copies:
        assert report(twin).remaining == count
        train(twin, OPTIMIZERS["adamw"](twin))
        assert all(torch.equal(twin.get_parameter(name) == 0, mask) for name, mask in held.items())
    assert report(model).remaining == report(model).trainable


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
    assert result.after == report(model).remaining == 200
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
        kept = model.bank._kept
        model(X)
    assert model.bank._kept is kept is not None


def test_a_baked_network_is_pruned_as_a_plain_one() -> None:
    model = generated()
    prune_banks(model, 150)
    bake(model)
    assert report(model).remaining == TOTAL  # what is a weight now is its own
    result = prune_weights(model, 300)
    assert (result.before, result.after) == (TOTAL, 300)


# ---- channels


class Chain(nn.Module):
    """Without sums, so that channels are those of one layer; transposed and grouped layers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.b = nn.ConvTranspose2d(12, 10, 2, stride=2)
        self.c = nn.Conv2d(10, 10, 3, groups=10, padding=1)
        self.d = nn.Conv2d(10, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": self.head(self.d(self.c(self.b(F.relu(self.a(x))))).mean((2, 3)))}


@pytest.mark.parametrize("method", ["l1", "fpgm"])
@pytest.mark.parametrize("make", [Net, Chain])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_channels_are_taken_out_until_so_many_parameters_remain(make: Any, share: float, method: str) -> None:
    torch.manual_seed(0)
    model = make().train()
    total = report(model).trainable
    target = round(share * total)
    result = prune_channels(model, target, X[:1], method=method, keep=("head",))
    assert result.before == total
    assert result.after == report(model).trainable <= target
    widest = max(m.weight.numel() for m in make().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)) / 8 * 2.5
    assert result.after > target - widest  # a channel's parameters: what makes it and what reads it
    assert model.training
    train_output = model(X)
    (train_output if make is Net else train_output["y"]).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_l1_takes_small_channels_and_fpgm_those_near_the_others() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Conv2d(6, 2, 1, bias=False))
    nn.init.orthogonal_(model[0].weight, gain=2.0)
    nn.init.constant_(model[1].weight, 1.0)
    with torch.no_grad():
        model[0].weight[1] *= 0.2  # small; near to the others as well, but not as near as
        model[0].weight[4] = model[0].weight.mean(0) * 1.5  # their middle, which has as large a sum as it may
        model[0].weight[4] += 0.1
    smallest = int(model[0].weight.abs().sum((1, 2, 3)).argmin())
    flat = model[0].weight.detach().flatten(1)
    nearest = int(torch.stack([sum((row - other).norm() for other in flat) for row in flat]).argmin())
    assert (smallest, nearest) == (1, 4)
    for method, gone in (("l1", smallest), ("fpgm", nearest)):
        other = copy.deepcopy(model)
        prune_channels(other, report(model).trainable - 1, X[:1], method=method, keep=("1",))
        left = [row for i, row in enumerate(model[0].weight) if i != gone]
        assert torch.equal(other[0].weight, torch.stack(left))


@pytest.mark.parametrize("seed", range(4))
def test_fpgm_by_its_definition(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.Conv2d(5, 6, 2, bias=False), nn.Conv2d(6, 2, 1))
    filters = list(model[1].weight.detach())
    sums = [sum(float((a - b).square().sum().sqrt()) for b in filters) for a in filters]
    own = [model[0].weight.detach()[:, i] for i in range(5)]
    others = [sum(float((a - b).square().sum().sqrt()) for b in own) for a in own]
    # Both layers' sums over their mean, in one order; the least goes.
    ranks = [(s * 6 / sum(sums), 1, i) for i, s in enumerate(sums)]
    ranks += [(s * 5 / sum(others), 0, i) for i, s in enumerate(others)]
    _, layer, gone = min(ranks)
    expected = [row for i, row in enumerate(filters if layer else own) if i != gone]
    prune_channels(model, report(model).trainable - 1, X[:1], method="fpgm", keep=("2",))
    assert torch.equal(model[layer].weight.detach(), torch.stack(expected, dim=1 - layer))


def test_a_stacked_hourglass_keeps_its_predictions() -> None:
    torch.manual_seed(0)
    model = build(ModelConfig(stages=2, channels=16, depth=2, sharing="none", heads={"keypoints": 5, "depth": 1}))
    total, x = report(model).trainable, torch.zeros(1, 3, 64, 64)
    shapes = [{name: y.shape for name, y in stage.items()} for stage in model.eval()(x)]
    heads = [name for name, _ in model.named_modules() if ".heads." in f".{name}"]
    result = prune_channels(model, total // 2, x, keep=heads)
    assert total / 2 * 0.95 < result.after <= total / 2
    assert [{name: y.shape for name, y in stage.items()} for stage in model(x)] == shapes
    assert not model.training


@pytest.mark.parametrize("method", ["l1", "fpgm"])
def test_resnet18(method: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    total = report(model).trainable
    result = prune_channels(model, total // 5, torch.zeros(1, 3, 32, 32), method=method, keep=("fc",))
    assert total / 5 * 0.98 < result.after <= total / 5
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert all(0 < now <= all_ for now, all_ in result.layers.values())
    assert model.fc.out_features == 10
    assert report(prune_weights_of(model, 100_000)).remaining == 100_000  # single weights of what is left


def prune_weights_of(model: nn.Module, remaining: int) -> nn.Module:
    prune_weights(model, remaining)
    return model


# ---- errors


def test_errors() -> None:
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
    with pytest.raises(ValueError, match=r"call `rpgmt\.pruning\.unmask\(model\)` first"):
        prune_channels(model, 100, X[:1])


@pytest.mark.parametrize("parameters", [600.7, "30%", -1, True])
def test_what_remains_is_a_number(parameters: Any) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    for run in (prune_weights, prune_banks, lambda m, n: prune_channels(m, n, torch.ones(1, 8))):
        with pytest.raises(ValueError, match=r"`parameters` is .*: give the number of parameters that shall remain"):
            run(model, parameters)


@pytest.mark.parametrize(("keep", "words"), [("1", "give a list of patterns"), (["1", "x"], "'x', which matches no layer")])
def test_layers_to_keep_exist(keep: Any, words: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    with pytest.raises(ValueError, match=words):
        prune_channels(model, 50, torch.ones(1, 8), keep=keep)
