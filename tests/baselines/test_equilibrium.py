"""The equilibrium network: what it solves, its gradient, its size."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rpgmt.baselines.equilibrium import MultiscaleEquilibrium, matching_equilibrium
from rpgmt.errors import UserError
from rpgmt.models.counting import count, count_macs

pytest.importorskip("torchdeq")


def network(channels: tuple[int, ...] = (8, 8), **settings: Any) -> MultiscaleEquilibrium:
    torch.manual_seed(0)
    return MultiscaleEquilibrium(5, channels, **settings)


def exact(channels: tuple[int, ...], x: Tensor) -> MultiscaleEquilibrium:
    """In float64, for evaluation with the statistics of these images, and solved far below the tolerance of training."""
    settings = {"expansion": 2, "iterations": 100, "backward_iterations": 100, "tolerance": 1e-10}
    return with_statistics(network(channels, **settings).double(), x)


def with_statistics(model: MultiscaleEquilibrium, x: Tensor) -> MultiscaleEquilibrium:
    """For evaluation, with the batch norms' statistics of these images, as training leaves them."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def images(batch: int = 4, side: int = 32) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def step(model: MultiscaleEquilibrium, states: list[Tensor], x: Tensor) -> list[Tensor]:
    """f without dropout, by the model's own parts."""
    return model.transform(states, [torch.ones_like(z) for z in states], model.injection(x))


def unrolled(model: MultiscaleEquilibrium, x: Tensor, steps: int) -> list[Tensor]:
    """The twin: half a step towards f again and again from zero, with autograd through all of them.

    Whole steps have the same limit where they have one; in narrow networks they end in a cycle.
    """
    states = [torch.zeros(len(x), c, x.shape[2] >> i, x.shape[3] >> i, dtype=x.dtype) for i, c in enumerate(model.channels)]
    for _ in range(steps):
        states = [(z + after) / 2 for z, after in zip(states, step(model, states, x), strict=True)]
    return states


@pytest.mark.parametrize("channels", [(8, 8), (16, 16), (16, 16, 16)])
def test_solution_is_a_fixed_point(channels: tuple[int, ...]) -> None:
    x = images(2, 8).double()
    model = exact(channels, x)
    with torch.no_grad():
        solution = model.equilibrium(x)
        after = step(model, solution, x)
        assert model.residual < 1e-10
        for z, z_after in zip(solution, after, strict=True):
            assert z.abs().mean() > 0.1  # not the trivial one
            torch.testing.assert_close(z_after, z, rtol=0, atol=1e-8)
        for z, expected in zip(solution, unrolled(model, x, 250), strict=True):
            torch.testing.assert_close(z, expected, rtol=0, atol=1e-7)


def test_default_solver_reaches_its_tolerance_at_the_start() -> None:
    for channels in ((24, 24), (32, 64, 128, 256)):
        model = network(channels)
        model(images(2))
        assert model.residual < 3 * model.tolerance  # all scales of norms at 1 leave 0.2 and 0.4


def test_implicit_gradient_is_that_of_the_unrolled_iteration() -> None:
    x = images(2, 8).double()
    model = exact((16, 16), x)

    def loss(states: list[Tensor]) -> Tensor:
        return sum(((z - 0.5) ** 2 * torch.linspace(0, 1, z.shape[-1])).sum() for z in states)  # type: ignore[return-value]

    parameters = [p for part in (model.injection, model.blocks, model.fusion) for p in part.parameters()]
    implicit = torch.autograd.grad(loss(model.equilibrium(x)), parameters)
    explicit = torch.autograd.grad(loss(unrolled(model, x, 250)), parameters)
    for ours, expected in zip(implicit, explicit, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()) + 1e-12)


def test_evaluation_mode_has_gradients_too() -> None:
    model = network().eval()
    model(images()).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    gradient = model.injection[0].weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("parameters", [60_000, 160_000, 500_000, 600_000, 2_400_000, 11_000_000])
def test_parameters_match_within_two_percent(parameters: int, classes: int) -> None:
    assert abs(size(matching_equilibrium(parameters, classes)) - parameters) <= 0.02 * parameters


def test_matching_is_the_plain_network_of_that_shape() -> None:
    torch.manual_seed(0)
    matched = matching_equilibrium(160_000, 10, dropout=0.1, iterations=5)
    assert (matched.dropout, matched.iterations) == (0.1, 5)
    torch.manual_seed(0)
    again = matching_equilibrium(160_000, 10)
    assert all(torch.equal(a, b) for a, b in zip(matched.parameters(), again.parameters(), strict=True))


def test_unreachable_sizes_are_told() -> None:
    with pytest.raises(UserError, match=r"`parameters` is 1000: .* the nearest has"):
        matching_equilibrium(1000, 10)


@pytest.mark.parametrize("channels", [(8, 8), (8, 12, 16), (8, 16, 32, 64)])
@pytest.mark.parametrize("height_width", [(32, 32), (16, 24)])
def test_shapes(channels: tuple[int, ...], height_width: tuple[int, int]) -> None:
    model = network(channels, iterations=2)
    height, width = height_width
    x = torch.zeros(3, 3, height, width)
    assert model(x).shape == (3, 5)
    assert [z.shape for z in model.equilibrium(x)] == [(3, c, height >> i, width >> i) for i, c in enumerate(channels)]


@pytest.mark.parametrize("channels", [(8,), (8,) * 5, (8, 7), (2, 8)])
def test_illegal_channels_are_told(channels: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"`channels` is .*: give 2 to 4 even numbers"):
        network(channels)


def test_illegal_sizes_are_told() -> None:
    with pytest.raises(UserError, match="30×32 pixels: give sides divisible by 4"):
        network((8, 8, 8))(torch.zeros(1, 3, 32, 30))


def test_a_training_step_lowers_the_loss() -> None:
    model, x = network(dropout=0.0), images(8, 16)
    labels = torch.arange(8) % 5
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(x), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)


def test_function_evaluations_are_counted() -> None:
    model = network(iterations=7, tolerance=0.0)
    calls = []
    model.fusion.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(images())
    assert model.function_evaluations == len(calls) == 1 + 7  # Broyden's first residual, then one for each step
    calls.clear()
    model(images())
    assert model.function_evaluations == len(calls) == 1 + 7 + 1  # and one that carries the gradient
    model.tolerance = 0.5
    model(images())
    assert model.function_evaluations < 1 + 7


def test_multiply_accumulates_are_those_of_all_evaluations() -> None:
    def macs(**settings: int) -> int:
        return count_macs(network(**settings), (32, 32))

    # Two 3×3 convolutions 8 ↔ 40 and the 1×1 mixing at 32² and 16², one 3×3 down to 16², one 1×1 up from 16².
    once = (2 * 9 * 8 * 40 + 64) * (32**2 + 16**2) + (9 + 1) * 64 * 16**2
    assert count(network(), (32, 32))["parameters"]["trainable"] == size(network())
    assert macs(iterations=9) - macs(iterations=4) == 5 * once
    model = network(tolerance=0.0).eval()
    with torch.no_grad():
        model(images(1))
    assert model.function_evaluations == 1 + model.iterations


def test_a_seed_decides_everything() -> None:
    def run() -> Tensor:
        model = network()
        out: Tensor = model(images())
        out.sum().backward()
        return torch.cat([out.flatten(), *(p.grad.flatten() for p in model.parameters() if p.grad is not None)])

    assert torch.equal(run(), run())


def test_dropout_has_one_mask_a_forward_pass_and_none_in_evaluation() -> None:
    model = network((16, 16), dropout=0.5, iterations=40)
    model(images())
    assert model.residual < model.tolerance  # a new mask at each evaluation would leave no equilibrium
    assert not torch.equal(model(images()), model(images()))
    model.eval()
    assert torch.equal(model(images()), model(images()))


def test_autocast_leaves_the_solver_in_float32() -> None:
    model = network((16, 16), iterations=40)
    with torch.autocast("cpu", torch.bfloat16):
        assert [z.dtype for z in model.equilibrium(images())] == [torch.float32] * 2
        out = model(images())
    assert model.residual < model.tolerance
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_state_copies_and_pickles() -> None:
    model, x = network().eval(), images()
    other = MultiscaleEquilibrium(5, (8, 8)).eval()
    assert not torch.equal(other(x), model(x))
    other.load_state_dict(model.state_dict())
    model.train()(x)  # a solved network, with statistics of its last pass
    other.load_state_dict(model.state_dict())
    model.eval()
    for twin in (other, copy.deepcopy(model)):
        assert torch.equal(twin(x), model(x))


def test_without_torchdeq_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdeq", None)
    with pytest.raises(UserError, match=r"needs torchdeq, which is missing: pip install 'rpgmt\[equilibrium\]'$"):
        MultiscaleEquilibrium(5)
