"""The benchmarks of `tools/benchmark.py`: one module each, and what they share."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence

from rpgmt.errors import UserError


def check_rounds(rounds: int) -> None:
    """Refuses a number of rounds that gives no figures."""
    if rounds < 1:
        raise UserError(f"`--rounds` is {rounds}: give at least 1")


def read_seeds(text: str) -> list[int]:
    """The seeds that `--seeds` names.

    Raises:
        UserError: they are no different whole numbers.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise UserError(f"`--seeds` is {text!r}: give different whole numbers, e.g. 0,1,2")
    return [int(part) for part in parts]


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile."""
    ordered = sorted(values)
    return ordered[len(ordered) // 4], statistics.median(ordered), ordered[(3 * len(ordered)) // 4]


def ratios(own: Sequence[float], other: Sequence[float]) -> dict[str, float | list[float]]:
    """Median and quartiles of `own` / `other`, each of neighbouring turns."""
    low, median, high = quartiles([a / b for a, b in zip(own, other, strict=True)])
    return {"ratio": median, "ratio_quartiles": [low, high]}


def shuffled(names: Sequence[str], turn: int) -> list[str]:
    """The names in an order of this turn's own, so that none always follows the same other one."""
    return random.Random(turn).sample(list(names), len(names))


class Stopwatch:
    """Seconds of this thread on its core, by the name of a step: what other programs take does not count."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = 0.0

    def mark(self, step: str | None = None) -> None:
        """The time since the last mark was `step`'s; without a name it counts for nothing."""
        now = time.thread_time()
        if step:
            self.seconds[step] = self.seconds.get(step, 0.0) + now - self._started
        self._started = now
