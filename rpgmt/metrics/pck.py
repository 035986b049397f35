"""PCK, PCKh, AUC and end-point error: how far found key points are from annotated ones, person by person."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rpgmt.data.coco.people import CocoPeople

AUC_THRESHOLDS = np.arange(1, 51) / 100
"""Of a person's size: 0.01, 0.02 … 0.50 (Insafutdinov et al., DeeperCut, arXiv 1605.03170, section 5)."""


def torso_pck(people: CocoPeople, indices: Sequence[int], found: np.ndarray) -> dict[str, float | None]:
    """PCK@0.2 of the torso, left shoulder to right hip (Sapp and Taskar, MODEC, CVPR 2013; usual on LSP): see `pck_metrics`.

    Args:
        people: who is annotated.
        indices: P places in `people.people`.
        found: (P, K, 2 or more), x and y in image pixels.

    Raises:
        ValueError: the data set lacks one of the two key points.
    """
    names = people.keypoints.names
    if missing := {"left_shoulder", "right_hip"} - set(names):
        raise ValueError(
            f"PCK of the torso needs key points left_shoulder and right_hip: {people.name} lacks {', '.join(missing)}"
        )
    truth, valid = _annotated(people, indices)
    a, b = names.index("left_shoulder"), names.index("right_hip")
    torsos = np.linalg.norm(truth[:, a] - truth[:, b], axis=-1)
    sizes = np.where((valid[:, a] != 0) & (valid[:, b] != 0), torsos, np.nan)
    return pck_metrics(found[..., :2], truth, valid, sizes, names)


def head_pck(people: CocoPeople, indices: Sequence[int], found: np.ndarray) -> dict[str, float | None]:
    """PCKh@0.5 and @0.1: by the head's size (Andriluka et al., 2D Human Pose Estimation, CVPR 2014): see `pck_metrics`.

    Pelvis and thorax are left out of the means, as usual on MPII. Thresholds are what they say: some tools call 0.11 of the
    head 0.1, which is several points easier.

    Args:
        people: who is annotated; the annotations in its document hold `head_size` in image pixels.
        indices: P places in `people.people`.
        found: (P, K, 2 or more), x and y in image pixels.

    Raises:
        ValueError: no annotation has a head size.
    """
    sizes = {a["id"]: a["head_size"] for a in people.annotations["annotations"] if a.get("head_size") is not None}
    if not sizes:
        raise ValueError(f"PCKh needs the head's size of a person: no annotation of {people.name} has a `head_size`")
    truth, valid = _annotated(people, indices)
    heads = np.array([sizes.get(people.people[index].annotation_id, np.nan) for index in indices])
    names = people.keypoints.names
    return pck_metrics(
        found[..., :2], truth, valid, heads, names, thresholds=(0.5, 0.1), label="PCKh", left_out=("pelvis", "thorax")
    )


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
        sizes: (P,), what a distance is measured by, e.g. the torso, in image pixels; NaN where unknown.
        names: K names of the key points.
        thresholds: distances count up to these parts of the size, inclusive.
        label: `PCK`, or `PCKh` where sizes are of heads.
        left_out: names of key points that the means leave out.

    Returns:
        For every threshold t, from 0 to 1: `PCK@t`, `PCK@t_joint_mean`, and `PCK@t:NAME` of each key point; `AUC`, the mean
        of PCK over `AUC_THRESHOLDS`; and `EPE`, the mean distance in image pixels. None where nothing counts.
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


def _annotated(people: CocoPeople, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    chosen = [people.people[index] for index in indices]
    return np.stack([person.keypoints for person in chosen]), np.stack([person.visibility for person in chosen])


def _part_within(errors: np.ndarray, threshold: float) -> float | None:
    """Part of the errors that are at most the threshold; NaN does not count."""
    known = errors[np.isfinite(errors)]
    # Errors that equal the threshold but for rounding count: half of a whole number of pixels is a common distance.
    return float((known <= threshold * (1 + 1e-12)).mean()) if known.size else None
