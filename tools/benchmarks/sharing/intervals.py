"""Differences between networks, and how many independent stages one is worth, with their uncertainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.random_numbers import generator
from tools.benchmarks.sharing.store import Result

Results = Mapping[int, Result]
"""Of a row, by seed."""

REPEATS = 2000
"""Of the bootstrap over seeds and images together."""

NORMAL = 1.96
"""97.5 % of a normal distribution lie below so many standard deviations."""


def t_quantile(freedom: int) -> float:
    """What 97.5 % of Student's distribution lie below."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


@dataclass(frozen=True)
class Difference:
    """A network's score less another one's, of the same seeds.

    Args:
        mean: over the seeds.
        seeds: which.
        half: half of the 95 % interval for other seeds, by Student's distribution of the differences; None of one seed.
        images: half of the 95 % interval for other validation images, with these networks: of the bootstrap over images.
    """

    mean: float
    seeds: tuple[int, ...]
    half: float | None
    images: float


def paired_seeds(*rows: Results) -> list[int]:
    """The seeds that all rows have, with the same samples in the same order, and as many draws."""
    common = [seed for seed in rows[0] if all(seed in row for row in rows)]
    return [seed for seed in common if len({(row[seed].record["order"], len(row[seed].draws)) for row in rows}) == 1]


def difference(own: Results, other: Results) -> Difference | None:
    """The paired difference of two rows; None where they have no seed in common."""
    seeds = paired_seeds(own, other)
    if not seeds:
        return None
    each = [own[seed].score - other[seed].score for seed in seeds]
    half = t_quantile(len(seeds) - 1) * statistics.stdev(each) / math.sqrt(len(seeds)) if len(seeds) > 1 else None
    drawn = np.mean([own[seed].draws - other[seed].draws for seed in seeds], axis=0)
    return Difference(statistics.fmean(each), tuple(seeds), half, NORMAL * float(np.std(drawn, ddof=1)))


@dataclass(frozen=True)
class Estimate:
    """A figure with the 95 % interval of a bootstrap over seeds and images together.

    Args:
        value: the figure.
        low, high: of the interval.
        seeds: how many it rests on; the interval of few is too narrow.
    """

    value: float
    low: float
    high: float
    seeds: int


def worth(own: Results, ruler: Mapping[int, Results]) -> Estimate | None:
    """How many independent stages a network is worth: where its score lies between theirs.

    Between whole numbers it is interpolated; no more and no fewer stages than the ruler has come out. A ruler that falls
    somewhere is evened out first (isotonic regression), as chance alone makes it fall. On one that does not rise at all no
    score has a place: None.

    Args:
        own: of the network.
        ruler: of independent stages, by their number.
    """
    stages = sorted(ruler)
    return _estimate([own, *(ruler[count] for count in stages)], lambda scores: _place(scores[0], stages, scores[1:]))


def exponent(found: Estimate, stages: int) -> Estimate:
    """log(worth) / log(T): 0 of one stage's worth, 1 of all (arXiv 2604.21106)."""
    value, low, high = (math.log(value) / math.log(stages) for value in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.seeds)


def closed(own: Results, tied: Results, independent: Results) -> Estimate | None:
    """Part of the distance from tied to independent stages that a network has come."""
    return _estimate([own, tied, independent], lambda s: (s[0] - s[1]) / (s[2] - s[1]) if s[2] > s[1] else math.nan)


def _estimate(rows: Sequence[Results], figure: Any) -> Estimate | None:
    """A figure of the rows' scores, and its interval; None without a seed in common, or where it is not known."""
    seeds = paired_seeds(*rows)
    if not seeds:
        return None
    value = figure([statistics.fmean(row[seed].score for seed in seeds) for row in rows])
    drawn: NDArray[np.float64] = np.stack([[row[seed].draws for seed in seeds] for row in rows])  # (rows, seeds, draws)
    random = generator(len(seeds), REPEATS)
    picked = random.integers(0, len(seeds), (REPEATS, len(seeds)))
    images = random.integers(0, drawn.shape[2], REPEATS)
    values = [figure(drawn[:, pick, image].mean(1).tolist()) for pick, image in zip(picked, images, strict=True)]
    if not math.isfinite(value) or np.isnan(values).mean() > 0.025:
        return None if not math.isfinite(value) else Estimate(value, -math.inf, math.inf, len(seeds))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Estimate(value, float(low), float(high), len(seeds))


def _place(score: float, stages: Sequence[int], ruler: Sequence[float]) -> float:
    """Where a score lies on the ruler; NaN on one that does not rise."""
    even = rising(ruler)
    if math.isclose(even[0], even[-1], rel_tol=1e-9, abs_tol=1e-12):  # means of equal numbers may differ by a rounding
        return math.nan
    if score <= even[0]:
        return float(stages[0])
    for (low, below), (high, above) in zip(
        zip(stages, even, strict=True), zip(stages[1:], even[1:], strict=True), strict=False
    ):
        if below < score <= above:
            return low + (high - low) * (score - below) / (above - below)
    return float(stages[-1])


def rising(values: Sequence[float]) -> list[float]:
    """The nearest values by least squares that never fall (pool adjacent violators)."""
    pools: list[list[float]] = []
    for value in values:
        pools.append([value])
        while len(pools) > 1 and statistics.fmean(pools[-2]) > statistics.fmean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    return [statistics.fmean(pool) for pool in pools for _ in pool]
