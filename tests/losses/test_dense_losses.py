"""Losses of dense predictions against loops over pixels, numbers made by hand, and their properties."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rpgmt.losses.dense import classes_cross_entropy, depth_l1, depth_silog, normals_cosine

Loss = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
LOSSES: list[Loss] = [classes_cross_entropy, depth_l1, depth_silog, normals_cosine]
B, H, W, CLASSES = 3, 4, 5, 6


def _batch(loss: Loss, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and labels of three samples: some pixels of the first and all of the second are unknown."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    if loss is classes_cross_entropy:
        target = torch.randint(0, CLASSES, (B, H, W), generator=generator, dtype=torch.int16)
        target[0, 1:3, 2], target[1] = -1, -1
        return normal(B, CLASSES, H, W), target
    if loss is normals_cosine:
        normals, target = F.normalize(normal(B, 3, H, W), dim=1), F.normalize(normal(B, H, W, 3), dim=-1)
        target[2, 0, 0] = torch.tensor([1.0, -1, 0], dtype=dtype) / math.sqrt(2)  # known, though its components add up to 0
        target[0, 1:3, 2], target[1] = 0, 0
        return normals, target
    depth, target = normal(B, H, W).exp(), normal(B, H, W).exp()
    target[0, 1:3, 2], target[1] = 0, 0
    return depth, target


def _known(loss: Loss, target: torch.Tensor) -> list[tuple[int, int, int]]:
    def known(label: Any) -> bool:
        if loss is classes_cross_entropy:
            return label >= 0
        return label != [0, 0, 0] if loss is normals_cosine else label > 0

    labels = target.tolist()
    return [(b, y, x) for b in range(B) for y in range(H) for x in range(W) if known(labels[b][y][x])]


def _pixel(loss: Loss, found: torch.Tensor, target: torch.Tensor, b: int, y: int, x: int) -> float:
    """The error of one pixel; for silog the difference of logarithms."""
    if loss is classes_cross_entropy:
        logits = found[b, :, y, x].tolist()
        return math.log(sum(map(math.exp, logits))) - logits[int(target[b, y, x])]
    if loss is normals_cosine:
        return 1 - sum(p * t for p, t in zip(found[b, :, y, x].tolist(), target[b, y, x].tolist(), strict=True))
    a, t = float(found[b, y, x]), float(target[b, y, x])
    return abs(a - t) if loss is depth_l1 else math.log(a) - math.log(t)


@pytest.mark.parametrize("loss", [classes_cross_entropy, depth_l1, normals_cosine])
def test_a_loop_over_known_pixels_agrees(loss: Loss) -> None:
    found, target = _batch(loss)
    total, count = loss(found, target)
    known = _known(loss, target)
    assert len(known) == B * H * W - H * W - 2
    assert count.item() == len(known)
    assert total.item() == pytest.approx(sum(_pixel(loss, found, target, *place) for place in known), rel=1e-12)


def test_silog_is_a_loop_over_images_with_a_known_pixel() -> None:
    found, target = _batch(depth_silog)
    total, count = depth_silog(found, target)
    expected, images = 0.0, 0
    for b in range(B):
        d = [_pixel(depth_silog, found, target, *place) for place in _known(depth_silog, target) if place[0] == b]
        if d:
            expected += sum(value * value for value in d) / len(d) - 0.5 * (sum(d) / len(d)) ** 2
            images += 1
    assert count.item() == images == 2
    assert total.item() == pytest.approx(expected, rel=1e-12)


def test_silog_by_hand() -> None:
    """Half of the error of a common factor is forgiven, none of other errors.

    d = log 2 everywhere: (log 2)² - (log 2)² / 2. d = log 2 and -log 2: mean square (log 2)², mean 0.
    """
    target = torch.tensor([[[1.0, 5.0]]], dtype=torch.float64)
    log2 = math.log(2)
    assert depth_silog(2 * target, target)[0].item() == pytest.approx(log2**2 / 2)
    apart = target * torch.tensor([2.0, 0.5], dtype=torch.float64)
    assert depth_silog(apart, target)[0].item() == pytest.approx(log2**2)
    # A factor a more on both: ((log 2 + a)² + (a - log 2)²) / 2 - a² / 2 = (log 2)² + a² / 2.
    assert depth_silog(3 * apart, target)[0].item() == pytest.approx(log2**2 + math.log(3) ** 2 / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_truth_costs_nothing(loss: Loss) -> None:
    _, target = _batch(loss)
    if loss is classes_cross_entropy:
        found = 50 * F.one_hot(target.long().clamp(min=0), CLASSES).movedim(-1, 1).double()
    else:
        found = target.movedim(-1, 1) if loss is normals_cosine else torch.where(target > 0, target, 7)
    total, count = loss(found, target)
    assert total.item() == pytest.approx(0, abs=1e-12)
    assert count > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_right_and_zero_where_there_is_no_label(loss: Loss) -> None:
    found, target = _batch(loss)
    found.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target)[0], (found,))
    (gradient,) = torch.autograd.grad(loss(found, target)[0], found)
    moved = gradient != 0 if gradient.dim() == 3 else (gradient != 0).any(1)
    assert [tuple(place) for place in moved.nonzero().tolist()] == _known(loss, target)


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e30])
@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_predicted_without_a_label_is_of_no_consequence(loss: Loss, value: float) -> None:
    """0 included, the soft-plus of -104 or less in float32, whose logarithm has neither value nor gradient."""
    found, target = _batch(loss, torch.float32)
    expected, count = loss(found, target)
    unknown = torch.ones(B, H, W, dtype=torch.bool)
    for place in _known(loss, target):
        unknown[place] = False
    other = torch.where(unknown if found.dim() == 3 else unknown[:, None], value, found).requires_grad_()
    total, again = loss(other, target)
    assert (total.item(), again.item()) == (expected.item(), count.item())
    (gradient,) = torch.autograd.grad(total, other)
    assert gradient.isfinite().all()
    assert (gradient.movedim(1, -1)[unknown] if gradient.dim() == 4 else gradient[unknown]).abs().sum() == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_known_is_zero_over_zero(loss: Loss) -> None:
    found, target = _batch(loss)
    nothing = torch.full_like(target, -1 if loss is classes_cross_entropy else 0)
    total, count = loss(found.requires_grad_(), nothing)
    assert (total.item(), count.item()) == (0, 0)
    total.backward()
    assert (found.grad == 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_is_the_sum_of_its_parts(loss: Loss) -> None:
    found, target = _batch(loss)
    whole = loss(found, target)
    for cut in range(1, B):
        parts = [loss(found[part], target[part]) for part in (slice(cut), slice(cut, B))]
        assert whole[0].item() == pytest.approx(sum(total.item() for total, _ in parts), rel=1e-12)
        assert whole[1].item() == sum(count.item() for _, count in parts)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_summed_in_single(loss: Loss) -> None:
    found, target = _batch(loss, torch.float32)
    half = found.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, count = loss(half, target)
    assert total.dtype == torch.float32
    expected, number = loss(half.float(), target)
    torch.testing.assert_close(total, expected, rtol=0, atol=0)
    assert count.item() == number.item()


def test_classes_of_whole_images_and_another_mark_of_what_is_unknown() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [5.0, 5.0], [1.0, 1.0]], dtype=torch.float64)
    total, count = classes_cross_entropy(logits, torch.tensor([1, -1, 0]))
    assert total.item() == pytest.approx(math.log(4 / 3) + math.log(2))
    assert count.item() == 2
    again = classes_cross_entropy(logits, torch.tensor([1, 255, 0]), ignore=255)
    assert (again[0].item(), again[1].item()) == (total.item(), 2)


def test_opposite_normals_cost_two_and_square_ones_one() -> None:
    target = torch.tensor([[1.0, -1, 0], [0, 0.6, -0.6]]).double()
    target = F.normalize(target, dim=-1)[None, None]  # components that add up to 0 are labels as any other
    assert [v.item() for v in normals_cosine(-target.movedim(-1, 1), target)] == pytest.approx([4, 2])
    square = torch.tensor([[0.0, 0, 1], [1, 0, 0]]).double()[None, None].movedim(-1, 1)
    assert [v.item() for v in normals_cosine(square, target)] == pytest.approx([2, 2])


def test_silog_of_a_depth_of_0_is_finite() -> None:
    depth = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    total, count = depth_silog(depth, torch.ones(1, 1, 2))
    (gradient,) = torch.autograd.grad(total, depth)
    assert count == 1
    assert total.isfinite()
    assert gradient.isfinite().all()
