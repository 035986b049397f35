"""Metrics of dense predictions against sets, NumPy over all pixels at once and tables made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rpgmt.metrics.dense import (
    WITHIN,
    angle_counts,
    confusion,
    depth_counts,
    depth_metrics,
    normals_metrics,
    segmentation_metrics,
)

NAMES = ("road", "car", "tree", "ship")


def _classes(images: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Found and true classes of images, the last of which has no label; nobody finds or is a ship."""
    generator = torch.Generator().manual_seed(0)
    found = torch.randint(0, 3, (images, 6, 7), generator=generator)
    truth = torch.randint(-1, 3, (images, 6, 7), generator=generator, dtype=torch.int16)
    truth[-1] = -1
    return found, truth


def _segmentation(found: torch.Tensor, truth: torch.Tensor) -> dict[str, float | None]:
    return segmentation_metrics(confusion(found, truth, len(NAMES)), NAMES)


def test_confusion_counts_pairs() -> None:
    found, truth = torch.tensor([[0, 1, 1, 3]]), torch.tensor([[0, 0, 1, -1]])
    counts = confusion(found, truth, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_intersection_over_union_is_that_of_sets() -> None:
    found, truth = _classes()
    metrics = _segmentation(found, truth)
    pairs = list(enumerate((f, t) for f, t in zip(found.flatten().tolist(), truth.flatten().tolist(), strict=True) if t >= 0))
    each = []
    for number, name in enumerate(NAMES[:3]):
        predicted, actual = {i for i, (f, _) in pairs if f == number}, {i for i, (_, t) in pairs if t == number}
        each.append(len(predicted & actual) / len(predicted | actual))
        assert metrics[f"mIoU:{name}"] == pytest.approx(each[-1], rel=1e-12)
    assert metrics["mIoU:ship"] is None
    assert metrics["mIoU"] == pytest.approx(sum(each) / 3, rel=1e-12)
    assert metrics["accuracy"] == pytest.approx(sum(f == t for _, (f, t) in pairs) / len(pairs), rel=1e-12)


def test_a_class_that_is_only_found_counts_as_0() -> None:
    metrics = _segmentation(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]))
    assert metrics == {"mIoU": 0.5, "accuracy": 0.75, "mIoU:road": 1, "mIoU:car": 0.5, "mIoU:tree": 0, "mIoU:ship": None}


def test_what_is_found_without_a_label_does_not_count() -> None:
    metrics = _segmentation(torch.tensor([0, 3]), torch.tensor([0, -1]))
    assert (metrics["mIoU"], metrics["mIoU:ship"]) == (1, None)


def _depths() -> tuple[torch.Tensor, torch.Tensor]:
    """Found and true depth of images that differ in the error and in the number of known pixels; the last has none."""
    generator = torch.Generator().manual_seed(1)
    truth = 3 * torch.rand(4, 6, 7, generator=generator) + 0.5
    noise = torch.randn(4, 6, 7, generator=generator) * torch.tensor([0.02, 0.2, 0.5, 0.1])[:, None, None]
    found = truth * noise.exp()
    truth[0, 1:] = 0
    truth[1, :2] = 0
    truth[3] = 0
    return found, truth


def test_depth_is_numpy_over_all_pixels() -> None:
    found, truth = _depths()
    metrics = depth_metrics(depth_counts(found, truth))
    known = truth.numpy() > 0
    a, t = found.numpy()[known].astype(np.float64), truth.numpy()[known].astype(np.float64)
    assert metrics == pytest.approx(
        {
            "abs": np.mean(np.abs(a - t)),
            "rel": np.mean(np.abs(a - t) / t),
            "rmse": np.sqrt(np.mean((a - t) ** 2)),
            "delta1": np.mean(np.maximum(a / t, t / a) < 1.25),
        },
        rel=1e-12,
    )
    assert 0.3 < metrics["delta1"] < 0.95  # type: ignore[operator]


def test_depth_by_hand_is_not_the_mean_of_images() -> None:
    """One image with three right pixels, one with a pixel that is 4 off."""
    truth = torch.tensor([[[2.0, 2, 2]], [[4, 0, 0]]])
    found = torch.tensor([[[2.0, 2, 2]], [[8, 9, 9]]])
    pooled = depth_metrics(depth_counts(found, truth))
    assert pooled == {"abs": 1, "rel": 0.25, "rmse": 2, "delta1": 0.75}
    each = [depth_metrics(depth_counts(found[i : i + 1], truth[i : i + 1])) for i in range(2)]
    assert [np.mean([one[name] for one in each]) for name in ("abs", "rel", "rmse", "delta1")] == [2, 0.5, 2, 0.5]


@pytest.mark.parametrize(("ratio", "near"), [(1.249, 1), (1.251, 0), (1 / 1.249, 1), (1 / 1.251, 0), (0.0, 0)])
def test_near_is_within_a_factor_either_way(ratio: float, near: float) -> None:
    truth = torch.full((1, 2, 2), 3.0)
    assert depth_metrics(depth_counts(ratio * truth, truth))["delta1"] == near


def _turned(degrees: list[float], axis: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Normals (1, 3, 1, N) that many degrees from true ones (1, 1, N, 3)."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    a, b = axis, (axis + 1) % 3
    found, truth = torch.zeros(2, 1, 1, len(degrees), 3, dtype=torch.float64)
    truth[..., a] = 1
    found[..., a], found[..., b] = angle.cos(), angle.sin()
    return found.movedim(-1, 1), truth


def _angles(found: torch.Tensor, truth: torch.Tensor) -> dict[str, float | None]:
    return normals_metrics(*angle_counts(found, truth))


def test_angles_by_hand() -> None:
    metrics = _angles(*_turned([0, 5, 11.3, 20, 29.9, 90, 170]))
    assert metrics["mean"] == pytest.approx((5 + 11.3 + 20 + 29.9 + 90 + 170) / 7, rel=1e-9)
    assert metrics["median"] == pytest.approx(20, abs=0.01)
    assert [metrics[f"within_{limit:g}"] for limit in WITHIN] == pytest.approx([2 / 7, 4 / 7, 5 / 7])


@pytest.mark.parametrize("degrees", [[10.0, 20.0], [10, 20, 20.5, 170], [7, 8, 9], [0], [3, 3, 100, 100]])
def test_the_median_of_few_angles_is_numpys(degrees: list[float]) -> None:
    assert _angles(*_turned(degrees, axis=2))["median"] == pytest.approx(np.median(degrees), abs=0.01)


@pytest.mark.parametrize("degrees", [1e-6, 1e-4, 0.01, 1, 89, 179, 179.99, 179.9999, 180])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_angles_near_both_ends_keep_their_digits(degrees: float, axis: int) -> None:
    assert _angles(*_turned([degrees], axis))["mean"] == pytest.approx(degrees, rel=1e-6)


@pytest.mark.parametrize("length", [1 - 1e-6, 1, 1 + 1e-6])
def test_lengths_that_are_1_but_for_rounding_are_no_part_of_the_angle(length: float) -> None:
    truth = F.normalize(torch.randn(2, 9, 8, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    away, same = (_angles(sign * length * truth.movedim(-1, 1), truth) for sign in (-1, 1))
    assert away["mean"] == pytest.approx(180, abs=1e-3)
    assert same["mean"] == pytest.approx(0, abs=1e-3)
    assert (same["within_11.25"], away["within_30"]) == (1, 0)


def test_nothing_found_is_a_right_angle_off() -> None:
    """A prediction of length 0 has no direction: it is neither near nor opposite."""
    _, truth = _turned([0.0, 0.0])
    assert _angles(torch.zeros(1, 3, 1, 2), truth)["mean"] == pytest.approx(90)


def _normals() -> tuple[torch.Tensor, torch.Tensor]:
    """Found and true normals of images, some pixels and the whole of the last one without a label."""
    generator = torch.Generator().manual_seed(2)
    truth = F.normalize(torch.randn(4, 6, 7, 3, generator=generator), dim=-1)
    noise = torch.randn(4, 6, 7, 3, generator=generator) * torch.tensor([0.05, 0.3, 1, 1])[:, None, None, None]
    found = F.normalize(truth + noise, dim=-1)
    truth[:, 2], truth[3] = 0, 0
    return found.movedim(-1, 1), truth


def test_angles_are_numpys_over_all_pixels() -> None:
    found, truth = _normals()
    metrics = _angles(found, truth)
    a, t = found.movedim(1, -1).double().numpy(), truth.double().numpy()
    known = np.abs(t).sum(-1) > 0
    cosine = (a * t).sum(-1)[known] / np.linalg.norm(a, axis=-1)[known] / np.linalg.norm(t, axis=-1)[known]
    angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    assert len(angles) == 3 * 5 * 7
    assert metrics["mean"] == pytest.approx(angles.mean(), rel=1e-6)
    assert metrics["median"] == pytest.approx(np.median(angles), abs=0.01)
    for limit in WITHIN:
        assert metrics[f"within_{limit:g}"] == pytest.approx((angles < limit).mean(), rel=1e-12)
    assert 0.1 < metrics["within_11.25"] < 0.9  # type: ignore[operator]


def test_a_label_whose_components_add_up_to_0_counts() -> None:
    truth = torch.tensor([1.0, -1, 0]) / math.sqrt(2)
    metrics = _angles(torch.tensor([1.0, 0, 0])[None, :, None, None], truth[None, None, None])
    assert metrics["mean"] == pytest.approx(45, rel=1e-6)


def test_nothing_known_is_none() -> None:
    found, truth = _classes()
    assert set(_segmentation(found, 0 * truth - 1).values()) == {None}
    found, truth = _depths()
    assert depth_metrics(depth_counts(found, 0 * truth)) == dict.fromkeys(("abs", "rel", "rmse", "delta1"))
    found, truth = _normals()
    names = ("mean", "median", "within_11.25", "within_22.5", "within_30")
    assert _angles(found, 0 * truth) == dict.fromkeys(names)


def _sum_of_angles(parts: list[Any]) -> dict[str, float | None]:
    return normals_metrics(*(np.sum(each, axis=0) for each in zip(*parts, strict=True)))


@pytest.mark.parametrize("batches", [[4], [1, 3], [3, 1], [1, 1, 1, 1]])
@pytest.mark.parametrize(
    ("make", "count", "pool"),
    [
        (lambda: _classes(4), lambda f, t: confusion(f, t, 4), lambda parts: segmentation_metrics(sum(parts), NAMES)),
        (_depths, depth_counts, lambda parts: depth_metrics(sum(parts))),
        (_normals, angle_counts, _sum_of_angles),
    ],
    ids=["classes", "depth", "normals"],
)
def test_batches_of_any_size_give_the_same(
    make: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    count: Callable[..., Any],
    pool: Callable[[list[Any]], dict[str, float | None]],
    batches: list[int],
) -> None:
    found, truth = make()
    parts = [count(f, t) for f, t in zip(found.split(batches), truth.split(batches), strict=True)]
    whole, pooled = pool([count(found.flip(0), truth.flip(0))]), pool(parts)
    assert pooled.keys() == whole.keys()
    for name, value in whole.items():
        assert pooled[name] == (None if value is None else pytest.approx(value, rel=1e-12)), name


def test_normals_of_a_network_that_has_diverged_are_wrong_by_180_degrees() -> None:
    truth = torch.zeros(1, 1, 2, 3)
    truth[..., 2] = 1
    found = normals_metrics(*angle_counts(torch.full((1, 3, 1, 2), torch.nan), truth))
    assert found["mean"] == 180
    assert found["within_30"] == 0
