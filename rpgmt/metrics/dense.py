"""Metrics of dense predictions, pooled over all pixels of all images: counts of batches are added, then divided once.

Means of batches' means would weigh images by the company they keep, and a mean of medians is no median.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ANGLE_BINS = 18_000
"""Bins of the angular error: 0.01° each, which is how exactly a median is known."""

WITHIN = (11.25, 22.5, 30.0)
"""Degrees (Fouhey et al., Data-Driven 3D Primitives, ICCV 2013)."""


def confusion(found: Tensor, truth: Tensor, classes: int) -> NDArray[np.int64]:
    """Counts (C, C) of pixels by true class (rows) and found class (columns).

    Args:
        found: classes from 0 to C - 1, any shape.
        truth: the same shape; below 0 where not known, which does not count.
        classes: C.
    """
    known = truth >= 0
    pairs = truth[known].long() * classes + found[known].long()
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes).cpu().numpy()


def segmentation_metrics(counts: NDArray[np.int64], names: Sequence[str]) -> dict[str, float | None]:
    """Mean intersection over union, pixel accuracy, and the intersection over union of each class, all from 0 to 1.

    The mean is over the classes that occur, in the truth or in the prediction; the others are None.

    Args:
        counts: of `confusion`, added over all images.
        names: of the C classes.
    """
    right = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - right
    each = [float(r / u) if u else None for r, u in zip(right, union, strict=True)]
    known = [value for value in each if value is not None]
    total = int(counts.sum())
    return {
        "mIoU": sum(known) / len(known) if known else None,
        "accuracy": float(right.sum() / total) if total else None,
        **{f"mIoU:{name}": value for name, value in zip(names, each, strict=True)},
    }


def depth_counts(depth: Tensor, truth: Tensor) -> NDArray[np.float64]:
    """Pixels, and sums of absolute, relative and squared errors and of pixels within a factor of 1.25 (5,).

    Args:
        depth: (B, H, W), positive.
        truth: (B, H, W), 0 where not known.
    """
    known = truth > 0
    found, true = depth[known].double(), truth[known].double()
    error = (found - true).abs()
    near = torch.maximum(found / true, true / found) < 1.25
    sums = (error, error / true, error.square(), near.double())
    return np.array([float(known.sum()), *(float(values.sum()) for values in sums)])


def depth_metrics(counts: NDArray[np.float64]) -> dict[str, float | None]:
    """`abs` and `rmse` in the truth's unit, `rel` (of the true depth), `delta1`: part of the pixels within a factor of 1.25.

    (Eigen et al., arXiv 1406.2283, section 4.) The root is of the mean over all pixels, not a mean of images' roots.
    """
    pixels, absolute, relative, squared, near = counts.tolist()
    if not pixels:
        return dict.fromkeys(("abs", "rel", "rmse", "delta1"))
    return {
        "abs": absolute / pixels,
        "rel": relative / pixels,
        "rmse": (squared / pixels) ** 0.5,
        "delta1": near / pixels,
    }


def angle_counts(normals: Tensor, truth: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Angles between normals: (5,) pixels, sum in degrees and pixels within each of `WITHIN`; and their histogram.

    Args:
        normals: (B, 3, H, W), unit.
        truth: (B, H, W, 3), unit, (0, 0, 0) where not known.
    """
    known = (truth != 0).any(-1)
    # The cosine has lost the digits of small angles, the chord alone those of large ones (Kahan, How Futile are Mindless
    # Assessments of Roundoff).
    found, true = normals.movedim(1, -1)[known].double(), truth[known].double()
    angle = torch.rad2deg(2 * torch.atan2((found - true).norm(dim=-1), (found + true).norm(dim=-1)))
    angle = angle.nan_to_num(nan=180.0)  # of a network that has diverged
    bins = (angle * (ANGLE_BINS / 180)).long().clamp(max=ANGLE_BINS - 1)
    sums = [float(len(angle)), float(angle.sum()), *(float((angle < limit).sum()) for limit in WITHIN)]
    return np.array(sums), torch.bincount(bins, minlength=ANGLE_BINS).cpu().numpy()


def normals_metrics(counts: NDArray[np.float64], histogram: NDArray[np.int64]) -> dict[str, float | None]:
    """`mean` and `median` in degrees, and `within_11.25`, … from 0 to 1.

    The median is that of all pixels, to 0.005°.
    """
    pixels, total, *within = counts.tolist()
    names = [f"within_{limit:g}" for limit in WITHIN]
    if not pixels:
        return dict.fromkeys(("mean", "median", *names))
    middle = float(np.searchsorted(np.cumsum(histogram), [(pixels + 1) // 2, pixels // 2 + 1]).mean())  # of two, if even
    values = [total / pixels, (middle + 0.5) * 180 / ANGLE_BINS, *(count / pixels for count in within)]
    return dict(zip(("mean", "median", *names), values, strict=True))
