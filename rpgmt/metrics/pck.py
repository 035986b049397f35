"""PCK, PCKh, AUC and end-point error: how far found key points are from annotated ones, person by person."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from rpgmt.data.coco.people import CocoPeople

AUC_THRESHOLDS = np.arange(1, 51) / 100
"""Of a person's size: 0.01, 0.02 … 0.50 (Insafutdinov et al., DeeperCut, arXiv 1605.03170, section 5)."""


LEFT_OUT_OF_HEAD_PCK = ("pelvis", "thorax")
"""Key points that the means of PCKh leave out, as usual on MPII."""


class PckCount(NamedTuple):
    """Whom a PCK is over: people of a known size, and their annotated key points.

    Args:
        people: who count.
        of_people: annotated ones.
        keypoints: which count.
        of_keypoints: annotated ones of all annotated people.
    """

    people: int
    of_people: int
    keypoints: int
    of_keypoints: int

    def __str__(self) -> str:
        return f"{self.people:,} of {self.of_people:,} people, {self.keypoints:,} of {self.of_keypoints:,} key points"


def torso_pck(people: CocoPeople, indices: Sequence[int], found: np.ndarray) -> dict[str, float | None]:
    """PCK@0.2 of the torso, left shoulder to right hip (Sapp and Taskar, MODEC, CVPR 2013; usual on LSP): see `pck_metrics`.

    Args:
        people: who is annotated.
        indices: P places in `people.people`.
        found: (P, K, 2 or more), x and y in image pixels.

    Raises:
        ValueError: the data set lacks one of the two key points.
    """
    truth, valid = _annotated(people, indices)
    sizes = _torso_sizes(people, truth, valid)
    return pck_metrics(found[..., :2], truth, valid, sizes, people.keypoints.names)


def torso_count(people: CocoPeople) -> PckCount:
    """Whom `torso_pck` is over: those with both ends of the torso annotated."""
    truth, valid = _annotated(people, range(len(people.people)))
    return _count(valid, _torso_sizes(people, truth, valid))


def _torso_sizes(people: CocoPeople, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """From left shoulder to right hip in image pixels, (P,); NaN where one is not annotated.

    Args:
        people: of the data set.
        truth, valid: as of `pck_metrics`.

    Raises:
        ValueError: the data set lacks one of the two key points.
    """
    names = people.keypoints.names
    if missing := {"left_shoulder", "right_hip"} - set(names):
        raise ValueError(
            f"PCK of the torso needs key points left_shoulder and right_hip: {people.name} lacks {', '.join(missing)}"
        )
    a, b = names.index("left_shoulder"), names.index("right_hip")
    torsos = np.linalg.norm(truth[:, a] - truth[:, b], axis=-1)
    return np.where((valid[:, a] != 0) & (valid[:, b] != 0), torsos, np.nan)


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
    truth, valid = _annotated(people, indices)
    heads, names = _head_sizes(people, indices), people.keypoints.names
    return pck_metrics(
        found[..., :2], truth, valid, heads, names, thresholds=(0.5, 0.1), label="PCKh", left_out=LEFT_OUT_OF_HEAD_PCK
    )


def head_count(people: CocoPeople) -> PckCount:
    """Whom `head_pck` is over: those with a head size, without the key points that its means leave out."""
    everybody = range(len(people.people))
    usual = np.array([name not in LEFT_OUT_OF_HEAD_PCK for name in people.keypoints.names])
    return _count(_annotated(people, everybody)[1] * usual, _head_sizes(people, everybody))


def _head_sizes(people: CocoPeople, indices: Sequence[int]) -> np.ndarray:
    sizes = {a["id"]: a["head_size"] for a in people.annotations["annotations"] if a.get("head_size") is not None}
    if not sizes:
        raise ValueError(f"PCKh needs the head's size of a person: no annotation of {people.name} has a `head_size`")
    return np.array([sizes.get(people.people[index].annotation_id, np.nan) for index in indices])


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
    counts = (np.asarray(valid) != 0) & _known(sizes)
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


def _known(sizes: np.ndarray) -> np.ndarray:
    return (sizes > 0) & np.isfinite(sizes)


def _count(valid: np.ndarray, sizes: np.ndarray) -> PckCount:
    """Of flags (P, K) and sizes (P,)."""
    annotated, known = valid != 0, _known(sizes)
    return PckCount(int(known.sum()), len(known), int(annotated[known].sum()), int(annotated.sum()))


def _annotated(people: CocoPeople, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    chosen = [people.people[index] for index in indices]
    return np.stack([person.keypoints for person in chosen]), np.stack([person.visibility for person in chosen])


def _part_within(errors: np.ndarray, threshold: float) -> float | None:
    """Part of the errors that are at most the threshold; NaN does not count."""
    known = errors[np.isfinite(errors)]
    # Errors that equal the threshold but for rounding count: half of a whole number of pixels is a common distance.
    return float((known <= threshold * (1 + 1e-12)).mean()) if known.size else None
