"""Things that are timed take turns: the order of a turn, and the statistics of many."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence


def shuffled(names: Sequence[str], turn: int) -> list[str]:
    """The names in an order of this turn's own, so that none always follows the same other one."""
    return random.Random(turn).sample(list(names), len(names))


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    ordered = sorted(values)
    return ordered[len(ordered) // 4], statistics.median(ordered), ordered[(3 * len(ordered)) // 4]


def ratios(own: Sequence[float], other: Sequence[float]) -> dict[str, float | list[float]]:
    """Median and quartiles of `own` / `other`, each of neighbouring turns."""
    low, median, high = quartiles([a / b for a, b in zip(own, other, strict=True)])
    return {"ratio": median, "ratio_quartiles": [low, high]}
