"""A bank that starts at the least-squares fit of the weights that it replaces."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rpgmt import Bank, bake, convert


class Net(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, width, 3, padding=1)
        self.b = nn.ConvTranspose2d(width, width, 3, padding=1)
        self.c = nn.Conv2d(width, width, 1)
        self.d = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))).mean((2, 3)))

    def bank_scope(self, scope: str, name: str) -> str:
        return {"layer": name, "half": "first" if name in "ab" else "second"}[scope]


NAMES = "abcd"
M = sum(getattr(Net(), name).weight.numel() for name in NAMES)
X = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def plain(width: int = 6) -> Net:
    torch.manual_seed(0)
    return Net(width).double()


def projected(size: int, width: int = 6, **options: Any) -> Net:
    model = plain(width)
    convert(model, size, init="project", **options)
    return model


def banks(model: nn.Module) -> list[Bank]:
    return [module for module in model.modules() if isinstance(module, Bank)]


def drawn_from(model: nn.Module, bank: Bank) -> list[str]:
    return [name for name in NAMES if getattr(model, name).bank is bank]


def matrix_of(bank: Bank) -> np.ndarray:
    segments = [(segment.numel, segment.scale) for segment in bank.layout.segments]
    p = bank.placement
    return reference.generating_matrix(p.size, segments, p.seed, p.bank, p.block)


def weights_of(model: nn.Module) -> np.ndarray:
    return torch.cat([getattr(model, name).weight.detach().flatten() for name in NAMES]).numpy()


@pytest.mark.parametrize("block", [1, 3, 16])
@pytest.mark.parametrize("scope", ["global", "layer", "half"])
@pytest.mark.parametrize("size", [7, 61, 200, M - 1])
def test_the_fit_is_that_of_lstsq(size: int, scope: str, block: int) -> None:
    model, twin = projected(size, scope=scope, block=block), plain()
    for bank in banks(model):
        weights = np.concatenate([getattr(twin, n).weight.detach().flatten().numpy() for n in drawn_from(model, bank)])
        if bank.size >= len(weights):  # M - 1 leaves one bank of several short of an entry
            continue
        solution, *_ = np.linalg.lstsq(matrix_of(bank), weights, rcond=None)
        np.testing.assert_allclose(bank.values.detach().numpy(), solution, rtol=1e-9, atol=1e-12)
        assert bank.std == pytest.approx(math.sqrt(np.mean(solution**2)), rel=1e-12)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("size", [M, M + 5, 3 * M])
def test_with_as_many_entries_as_weights_the_fit_is_exact(size: int, scope: str) -> None:
    model, twin = projected(size, scope=scope), plain()
    assert np.array_equal(weights_of(model), weights_of(twin))
    fresh = plain()
    convert(fresh, size, scope=scope)
    assert all(torch.equal(a.values, b.values) for a, b in zip(banks(model), banks(fresh), strict=True))


def test_an_explicit_bank_with_more_entries_than_weights_fits_exactly_and_leaves_the_others_at_zero() -> None:
    bank, weight = Bank(20, std=0.1, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    segment = bank.add(weight.shape, 0.3)
    bank.project([weight])
    with torch.no_grad():
        torch.testing.assert_close(bank.weight(segment), weight, rtol=1e-15, atol=0)
    assert int((bank.values == 0).sum()) == 8


def test_scales_are_those_of_a_fresh_bank_and_gradients_those_of_the_matrix() -> None:
    fresh, model = plain(), projected(100)
    convert(fresh, 100)
    assert model.bank.layout == fresh.bank.layout
    with torch.no_grad():
        fresh.bank.values.copy_(model.bank.values)
    for network in (fresh, model):
        network(X).square().sum().backward()
    assert torch.equal(fresh.bank.values.grad, model.bank.values.grad)
    twin = bake(copy.deepcopy(model))
    twin(X).square().sum().backward()
    gradient = torch.cat([getattr(twin, name).weight.grad.flatten() for name in NAMES]).numpy()
    np.testing.assert_allclose(model.bank.values.grad.numpy(), matrix_of(model.bank).T @ gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("uses", [1.5, 2, 4, 9])
def test_the_error_is_that_of_theory_for_uncorrelated_weights(uses: float) -> None:
    model, twin = plain(width=64), plain(width=64)
    for network in (model, twin):  # one deviation for all
        for name in NAMES:
            nn.init.normal_(getattr(network, name).weight, std=0.05, generator=torch.Generator().manual_seed(ord(name)))
    total = sum(getattr(twin, name).weight.numel() for name in NAMES)
    convert(model, round(total / uses), init="project")
    fit, weights = weights_of(model), weights_of(twin)
    # An entry with j uses leaves (j - 1) / j of their energy; N entries have k uses on average, ⌊k⌋ or ⌈k⌉ each.
    error = np.sum((fit - weights) ** 2) / np.sum(weights**2)
    assert error == pytest.approx(1 - 1 / (total / model.bank.size), abs=0.015)
    # What is not error remains: by Pythagoras, the fit's energy. Weights are √k smaller than they were.
    assert np.sum(fit**2) / np.sum(weights**2) == pytest.approx(1 - error, rel=1e-9)
    few, more = math.floor(uses), math.ceil(uses)
    inverse = (1 - (uses - few)) / few + (uses - few) / more  # mean of 1 / j over the entries
    assert model.bank.std == pytest.approx(0.05 * math.sqrt(inverse), rel=0.03)


def test_the_error_is_that_of_theory_for_layers_of_unequal_scales() -> None:
    model, twin = plain(width=16), plain(width=16)
    for network in (model, twin):
        for name, std in zip(NAMES, (0.03, 0.02, 0.2, 0.1), strict=True):
            nn.init.normal_(getattr(network, name).weight, std=std, generator=torch.Generator().manual_seed(ord(name)))
    convert(model, 700, init="project")
    weights, squares = weights_of(twin), matrix_of(model.bank) ** 2
    error = np.sum((weights_of(model) - weights) ** 2) / np.sum(weights**2)
    # A fitted entry has variance std² · Σ scale⁴ / (Σ scale²)², and its weights have Σ scale² times that.
    kept = ((squares**2).sum(0) / squares.sum(0)).sum() / squares.sum()
    assert error == pytest.approx(1 - kept, abs=0.02)
    assert error < 1 - 1 / model.bank.uses - 0.1


def test_a_fit_is_nearer_than_a_fresh_bank_and_than_its_neighbours() -> None:
    model, twin = projected(100), weights_of(plain())
    error = np.sum((weights_of(model) - twin) ** 2)
    fresh = plain()
    convert(fresh, 100)
    assert np.sum((weights_of(fresh) - twin) ** 2) > 1.5 * error
    for factor in (0.99, 1.01):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.bank.values.mul_(factor)
        assert np.sum((weights_of(other) - twin) ** 2) > error


def test_single_precision_fits_as_well() -> None:
    torch.manual_seed(0)
    model = Net()
    convert(model, 100, init="project")
    torch.testing.assert_close(model.bank.values.detach().double(), projected(100).bank.values.detach(), rtol=1e-5, atol=1e-7)


def test_an_unknown_start_is_an_error() -> None:
    model = plain()
    with pytest.raises(ValueError, match="`init` is 'zeros': must be one of fresh, project"):
        convert(model, 100, init="zeros")
    assert not banks(model)
