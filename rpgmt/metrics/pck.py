"""PCK, PCKh, AUC and end-point error: how far found key points are from annotated ones, person by person."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

AUC_THRESHOLDS = np.arange(1, 51) / 100
"""Of a person's size: 0.01, 0.02 … 0.50 (Insafutdinov et al., DeeperCut, arXiv 1605.03170, section 5)."""


def pck_metrics(
    found: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray,
    sizes: np.ndarray,
    names: Sequence[str],
    *,
    thresholds: Sequence[float] = (0.2,),
    label: str = "PCK",
    left_out: Collection[str] = (),
) -> dict[str, float | None]:
    """Part of the key points that are found within a part of their person's size, and related numbers.

    A key point counts if it is annotated and its person has a size. There are two means of a PCK in use, which differ by
    up to a point: over all key points that count, so that joints weigh as often as they are annotated (`PCK@0.2`, the usual one
    of MPII), and over the joints' own figures (`PCK@0.2_joint_mean`).

    Args:
        found: (P, K, 2), (x, y) in image pixels.
        truth: (P, K, 2), the same.
        valid: (P, K), not 0 where annotated.
        sizes: (P,), what a distance is measured by, in image pixels, e.g. `torso_sizes`; NaN where unknown.
        names: K names of the key points.
        thresholds: distances count up to these parts of the size, inclusive.
        label: `PCK`, or `PCKh` where sizes are of heads.
        left_out: names of key points that the means leave out.

    Returns:
        For every threshold t, from 0 to 1: `PCK@t`, `PCK@t_joint_mean`, and `PCK@t:NAME` of each key point; `AUC`, the mean of PCK
        over `AUC_THRESHOLDS`; and `EPE`, the mean distance in image pixels. None where nothing counts.
    """
    distances = np.linalg.norm(np.asarray(found, np.float64) - np.asarray(truth, np.float64), axis=-1)
    sizes = np.asarray(sizes, np.float64)[:, None]
    counts = (np.asarray(valid) != 0) & (sizes > 0) & np.isfinite(sizes)
    errors = np.where(counts, distances, np.nan) / np.where(sizes > 0, sizes, np.nan)
    usual = np.array([name not in left_out for name in names])
    metrics: dict[str, float | None] = {}
    for threshold in thresholds:
        each = [_part_within(errors[:, k], threshold) for k in range(len(names))]
        known = [value for value, counted in zip(each, usual, strict=True) if counted and value is not None]
        name = f"{label}@{threshold:g}"
        metrics[name] = _part_within(errors[:, usual], threshold)
        metrics[f"{name}_joint_mean"] = float(np.mean(known)) if known else None
        metrics |= {f"{name}:{joint}": value for joint, value in zip(names, each, strict=True)}
    kept = counts & usual
    curve = [_part_within(errors[:, usual], threshold) for threshold in AUC_THRESHOLDS]
    metrics["AUC"] = float(np.mean([value for value in curve if value is not None])) if kept.any() else None
    metrics["EPE"] = float(distances[kept].mean()) if kept.any() else None
    return metrics


def torso_sizes(truth: np.ndarray, valid: np.ndarray, names: Sequence[str]) -> np.ndarray | None:
    """(P,) distances from left shoulder to right hip, NaN where one is not annotated; None where a name is missing.

    Args:
        truth: (P, K, 2), (x, y).
        valid: (P, K), not 0 where annotated.
        names: K names of the key points.
    """
    if not {"left_shoulder", "right_hip"} <= set(names):
        return None
    a, b = names.index("left_shoulder"), names.index("right_hip")
    sizes = np.linalg.norm(truth[:, a] - truth[:, b], axis=-1)
    return np.where((valid[:, a] != 0) & (valid[:, b] != 0), sizes, np.nan)


def _part_within(errors: np.ndarray, threshold: float) -> float | None:
    """Part of the errors that are at most the threshold; NaN does not count."""
    known = errors[np.isfinite(errors)]
    # Errors that equal the threshold but for rounding count: half of a whole number of pixels is a common distance.
    return float((known <= threshold * (1 + 1e-12)).mean()) if known.size else None
