"""What several trainings of one network gave: its figures by seed, their means and deviations."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """A network's figures.

    Args:
        name: of its row in the tables.
        figures: seed → figure → value, None where it is not known.
    """

    name: str
    figures: dict[int, dict[str, float | None]]

    def statistics(self, figure: str) -> tuple[float, float | None] | None:
        """Mean and standard deviation (n - 1) over the seeds; None for the deviation of one, None where nothing is known."""
        known = [value for of in self.figures.values() if (value := of.get(figure)) is not None]
        if not known:
            return None
        return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None

    def mean(self, figure: str) -> float:
        """The mean of a figure that is known."""
        found = self.statistics(figure)
        assert found is not None
        return found[0]

    def cell(self, figure: str, form: str, factor: float = 1, *, spread: bool = True) -> str:
        """`0.70 ± 0.14` for a table; empty where nothing is known.

        Args:
            figure: which.
            form: of the numbers, as `format` takes it.
            factor: that they are multiplied by, 100 for per cent.
            spread: whether to show the deviation.
        """
        found = self.statistics(figure)
        if found is None:
            return ""
        mean, deviation = found
        return f"{factor * mean:{form}}" + (f" ± {factor * deviation:{form.lstrip('+')}}" if deviation and spread else "")

    def label(self, seeds: Sequence[int]) -> str:
        """The name, and how many of the seeds it has where it lacks some."""
        missing = len(self.figures) < len(seeds)
        return f"{self.name} ({len(self.figures)} of {len(seeds)} seeds)" if missing else self.name


def seeds_label(seeds: Sequence[int]) -> str:
    """What a table says of the seeds whose means it shows."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"seeds {', '.join(map(str, seeds))}, mean ± standard deviation"
