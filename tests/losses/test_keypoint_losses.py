from __future__ import annotations

import math

import pytest
import torch

from rpgmt.losses.keypoints import heatmap_cross_entropy, heatmap_mse

LOSSES = [heatmap_cross_entropy, heatmap_mse]


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
