from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from rpgmt.losses.keypoints import heatmap_cross_entropy, heatmap_mse, heatmap_ohkm

# Where all key points are hard ones, the third has the properties of the second.
LOSSES = [heatmap_cross_entropy, heatmap_mse, partial(heatmap_ohkm, top=3)]


def _batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=generator, dtype=dtype)
    target = torch.rand(2, 3, 5, 4, generator=generator, dtype=dtype)
    weights = torch.tensor([[1, 0, 1], [1, 1, 0]], dtype=dtype)
    target[0, 1] = 0  # as the codec gives it for a point that does not count
    return logits, target, weights


def test_cross_entropy_is_the_mean_divergence_of_a_loop() -> None:
    logits, target, weights = _batch()
    total, count = heatmap_cross_entropy(logits, target, weights)
    expected = 0.0
    for b, k in [(0, 0), (0, 2), (1, 0), (1, 1)]:
        normaliser = math.log(sum(math.exp(value) for value in logits[b, k].flatten().tolist()))
        mass = target[b, k].sum().item()
        for value, t in zip(logits[b, k].flatten().tolist(), target[b, k].flatten().tolist(), strict=True):
            expected += t / mass * (math.log(t / mass) - (value - normaliser))
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count.item() == 4


def test_mse_is_the_mean_over_a_map() -> None:
    logits, target, weights = _batch()
    total, count = heatmap_mse(logits, target, weights)
    expected = sum(((logits[b, k] - target[b, k]) ** 2).sum().item() / 20 for b, k in [(0, 0), (0, 2), (1, 0), (1, 1)])
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count.item() == 4


def test_perfect_maps_cost_nothing() -> None:
    _, target, weights = _batch()
    assert heatmap_cross_entropy(target.log().clamp(min=-50), target, weights)[0].item() == pytest.approx(0, abs=1e-12)
    assert heatmap_mse(target, target, weights)[0].item() == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_right_and_zero_where_a_point_does_not_count(loss) -> None:
    logits, target, weights = _batch()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weights)[0], (logits,))
    (gradient,) = torch.autograd.grad(loss(logits, target, weights)[0], logits)
    assert gradient.isfinite().all()
    assert torch.equal(gradient.abs().sum((-2, -1)) > 0, weights > 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_summed_in_single(loss) -> None:
    logits, target, weights = _batch(torch.float32)
    half = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, count = loss(half, target, weights)
    assert total.dtype == count.dtype == torch.float32
    torch.testing.assert_close(total, loss(half.float(), target, weights)[0], rtol=0, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_valid_is_zero_over_zero_counts(loss) -> None:
    logits, target, weights = _batch()
    total, count = loss(logits.requires_grad_(), target, torch.zeros_like(weights))
    assert (total.item(), count.item()) == (0, 0)
    total.backward()
    assert (logits.grad == 0).all()


def _hard_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Persons with 6, 4, 1 and 0 of 6 key points that count; one of the last but one's others has the worst map."""
    generator = torch.Generator().manual_seed(0)
    maps, target = torch.randn(2, 4, 6, 5, 4, generator=generator, dtype=torch.float64)
    weights = torch.tensor(
        [[1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.float64
    )
    maps[2, 5] += 10
    return maps, target, weights


@pytest.mark.parametrize("top", [1, 2, 5, 6, 8])
def test_hard_key_points_are_those_of_a_loop(top: int) -> None:
    maps, target, weights = _hard_batch()
    total, count = heatmap_ohkm(maps, target, weights, top)
    expected, chosen = 0.0, 0
    for b in range(4):
        errors = [((maps[b, k] - target[b, k]) ** 2).mean().item() for k in range(6) if weights[b, k]]
        worst = sorted(errors, reverse=True)[:top]
        expected += sum(worst)
        chosen += len(worst)
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert count.item() == chosen
    if top >= 6:
        torch.testing.assert_close(total, heatmap_mse(maps, target, weights)[0])


def test_only_hard_key_points_have_a_gradient() -> None:
    maps, target, weights = _hard_batch()
    maps.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: heatmap_ohkm(x, target, weights, 2)[0], (maps,))
    (gradient,) = torch.autograd.grad(heatmap_ohkm(maps, target, weights, 2)[0], maps)
    moved = gradient.abs().sum((-2, -1)) > 0
    assert moved.sum(1).tolist() == [2, 2, 1, 0]
    errors = (maps - target).square().mean((-2, -1))
    assert errors[0][moved[0]].min() > errors[0][~moved[0]].max()


def test_a_perfect_key_point_counts_before_one_that_is_unknown() -> None:
    _, target, weights = _hard_batch()
    total, count = heatmap_ohkm(target, target, weights, 2)
    assert (total.item(), count.item()) == (0, 5)


def test_weights_scale_errors_and_count() -> None:
    maps, target, weights = _hard_batch()
    weights[0] = torch.tensor([0.5, 1, 1, 1, 1, 2])
    for loss in (heatmap_mse, partial(heatmap_ohkm, top=6)):
        total, count = loss(maps, target, weights)
        errors = (maps - target).square().mean((-2, -1))
        assert total.item() == pytest.approx(
            sum((w * e).item() for w, e in zip(weights.flatten(), errors.flatten(), strict=True))
        )
        assert count.item() == pytest.approx(11.5)


def test_no_hard_key_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="`top` is 0: give at least 1"):
        heatmap_ohkm(*_hard_batch(), top=0)
