"""What the paper claims of generated networks (arXiv 2107.07110), answered by the rows that were trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tools.benchmarks.classification.rows import (
    BLOCK,
    EQUILIBRIUM,
    GLOBAL,
    GLOBAL_34,
    HALF_34,
    NARROW,
    PLAIN_34,
    PRUNED,
    Row,
    Sizes,
)
from tools.benchmarks.common.figures import Figures

EQUAL = 0.005
"""Accuracies that differ by no more are called equal: half a point."""
LINEAR = 0.9
"""R² from which a course is called linear."""
FASTER = (15, 25)
"""The paper's times; more counts as yes, and is said."""


@dataclass(frozen=True)
class Claim:
    """A statement, "yes", "no" or "not measured", and the figures that say so."""

    text: str
    answer: str
    figures: str

    def __str__(self) -> str:
        return f"{self.text}: {self.answer}" + (f" ({self.figures})" if self.figures else "")


@dataclass(frozen=True)
class Fit:
    """top1 = offset + slope · log10 N, by least squares, over `count` sizes."""

    offset: float
    slope: float
    r2: float
    count: int


class Claims:
    """Answers from the figures of rows.

    Args:
        rows: what was planned.
        figures: of those that were trained, by name.
        sizes: of the banks.
        seeds: how many.
        images: of the validation set, to which sampling errors belong.
    """

    def __init__(self, rows: Sequence[Row], figures: Mapping[str, Figures], sizes: Sizes, seeds: int, images: int) -> None:
        self.rows, self.figures, self.sizes, self.images = rows, figures, sizes, images
        self.seeds = _seeds(seeds)

    def all(self) -> list[Claim]:
        """The claims, in the paper's order."""
        middle, block = self.sizes.middle, self.sizes.block
        bank = self._row(GLOBAL, middle)
        half = self._compare(
            "ResNet-34 with a bank of half its weights equals ResNet-34", self._row(HALF_34), self._row(PLAIN_34), EQUAL
        )
        same = "at equal parameters"
        return [
            half,
            self._compare(f"One bank beats banks by block, {same}", self._row(GLOBAL, block), self._row(BLOCK, block)),
            self._compare(f"Banks by block beat a narrow network, {same}", self._row(BLOCK, block), self._row(NARROW, block)),
            self._compare(
                "Generated, ResNet-34 beats ResNet-18 at equal N", self._row(GLOBAL_34, block), self._row(GLOBAL, block)
            ),
            self._log_linear(),
            self._compare(f"A generated network beats the equilibrium network, {same}", bank, self._row(EQUILIBRIUM, middle)),
            self._faster(bank, self._row(EQUILIBRIUM, middle)),
            *(
                self._compare(f"A generated network matches or beats {family}, {same}", bank, self._row(family, middle), 0.0)
                for family in PRUNED
            ),
        ]

    def fit(self) -> Fit | None:
        """The course of accuracy over the sizes of ResNet-18's bank; None for fewer than three."""
        points = [
            (math.log10(row.size), found[0])
            for row in self.rows
            if row.family == GLOBAL and row.size and (found := self._value(row.name, "top1"))
        ]
        if len(points) < 3:
            return None
        mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
        offset = mean_y - slope * mean_x
        total = sum((y - mean_y) ** 2 for _, y in points)
        missed = sum((y - offset - slope * x) ** 2 for x, y in points)
        return Fit(offset, slope, 1 - missed / total if total else 0.0, len(points))

    def _row(self, family: str, size: int | None = None) -> str | None:
        """The name of a row that was trained."""
        names = (row.name for row in self.rows if row.family == family and size in (None, row.size))
        return next((name for name in names if name in self.figures), None)

    def _value(self, name: str, figure: str) -> tuple[float, float | None] | None:
        return self.figures[name].statistics(figure) if name in self.figures else None

    def _compare(self, text: str, own: str | None, other: str | None, slack: float | None = None) -> Claim:
        """Whether the first is more accurate, or by no more than `slack` less."""
        values = [self._value(name, "top1") if name else None for name in (own, other)]
        if values[0] is None or values[1] is None:
            return Claim(text, "not measured", "")
        difference = values[0][0] - values[1][0]
        right = difference > 0 if slack is None else difference >= -slack
        error = math.sqrt(sum(value[0] * (1 - value[0]) for value in values if value) / max(1, self.images))
        shown = " against ".join(f"{name} {_percent(value)}" for name, value in zip((own, other), values, strict=True) if value)
        words = [shown, f"{100 * difference:+.2f} points", *self._epochs(own, other), self._least_seeds(own, other)]
        if slack == EQUAL:
            words.insert(2, f"equal: at most {100 * EQUAL:g} less")
        if abs(difference) <= 2 * error:
            words.append(f"within two sampling errors, {200 * error:.2f}, of {self.images:,} images")
        return Claim(text, "yes" if right else "no", "; ".join(words))

    def _epochs(self, *names: str | None) -> list[str]:
        """What must be said where networks were not trained equally long."""
        longest = []
        for name in names:
            own, before = (self._value(name or "", figure) for figure in ("epochs", "epochs_before"))
            longest.append((own[0] if own else 0.0) + (before[0] if before else 0.0))
        return [f"{' against '.join(f'{value:g}' for value in longest)} epochs"] if len(set(longest)) > 1 else []

    def _least_seeds(self, *names: str | None) -> str:
        """How many seeds a comparison rests on, where some rows have failed too."""
        return _seeds(min(len(self.figures[name].figures) for name in names if name))

    def _log_linear(self) -> Claim:
        text, fit = "Accuracy is linear in log N", self.fit()
        if fit is None:
            return Claim(text, "not measured", "")
        figures = f"R² {fit.r2:.3f} over {fit.count} sizes, {100 * fit.slope:+.2f} points a tenfold N; {self.seeds}"
        return Claim(text, "yes" if fit.r2 >= LINEAR and fit.slope > 0 else "no", figures)

    def _faster(self, own: str | None, other: str | None) -> Claim:
        text = "Inference takes 15 to 25 times less than the equilibrium network's"
        values = [self._value(name, "ms") if name else None for name in (own, other)]
        if values[0] is None or values[1] is None:
            return Claim(text, "not measured", "")
        ratio = values[1][0] / values[0][0]
        shown = f"{values[0][0]:.3f} ms against {values[1][0]:.3f} ms an image: {ratio:.1f} times"
        shown += f"{', more than claimed' if ratio > FASTER[1] else ''}; {self._least_seeds(own, other)}"
        return Claim(text, "yes" if ratio >= FASTER[0] else "no", shown)


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _percent(value: tuple[float, float | None]) -> str:
    mean, deviation = value
    return f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "") + " %"
