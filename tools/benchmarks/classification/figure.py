"""The classification benchmark's figure: accuracy against parameters and bank size, and the time of inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.benchmarks.classification.claims import Fit
from tools.benchmarks.classification.rows import (
    BLOCK,
    EQUILIBRIUM,
    GLOBAL,
    GLOBAL_34,
    HALF_34,
    NARROW,
    PLAIN,
    PLAIN_34,
    PROJECTED,
    PRUNED_BAKED,
    PRUNED_BANK,
    TIED,
    Row,
)
from tools.benchmarks.common.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION, save
from tools.benchmarks.common.figures import Figures

STYLES = {
    PLAIN: (BLACK, "X"),
    PLAIN_34: (BLACK, "P"),
    NARROW: (ORANGE, "v"),
    TIED: (ORANGE, "^"),
    GLOBAL: (BLUE, "o"),
    BLOCK: (BLUE, "s"),
    GLOBAL_34: (GREEN, "D"),
    HALF_34: (GREEN, "d"),
    PROJECTED: (BLUE, "*"),
    EQUILIBRIUM: (VERMILION, "h"),
    "pruned-weights": (PURPLE, "o"),
    "pruned-l1": (PURPLE, "<"),
    "pruned-fpgm": (PURPLE, ">"),
    PRUNED_BAKED: (PURPLE, "s"),
    PRUNED_BANK: (PURPLE, "D"),
    "quantized-8": (GREEN, "1"),
    "quantized-4": (GREEN, "2"),
}
"""Colour and marker."""


def draw(rows: Sequence[Row], figures: Mapping[str, Figures], fit: Fit | None, label: str, path: Path) -> None:
    """Draws three plots: accuracy against trainable parameters, accuracy against N, milliseconds an image.

    Args:
        rows: what was planned.
        figures: what was measured, by row.
        fit: of accuracy against log N.
        label: what is measured.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.name in figures]
    figure = Figure(figsize=(15, 5.4), dpi=100, layout="constrained")
    against_all, against_bank, time = figure.subplots(1, 3)
    _scatter(against_all, shown, figures, "remaining")
    against_all.set_xlabel("trainable parameters, N + fixed")
    banks = [row for row in shown if row.size and figures[row.name].mean("bank")]
    _scatter(against_bank, banks, figures, "bank")
    lined = []
    for row in shown:
        if row.family in (PLAIN, PLAIN_34):
            line = "--" if row.family == PLAIN else ":"
            lined.append(row.name)
            against_bank.axhline(100 * figures[row.name].mean("top1"), color="0.35", lw=1.1, linestyle=line, label=row.name)
    if fit is not None:
        sizes = [row.size for row in banks if row.family == GLOBAL and row.size]
        ends = np.array([min(sizes), max(sizes)])
        course = 100 * (fit.offset + fit.slope * np.log10(ends))
        lined.append(f"line through {GLOBAL}, R² {fit.r2:.2f}")
        against_bank.plot(ends, course, color=BLUE, lw=1, alpha=0.5, label=lined[-1])
    against_bank.set_xlabel("bank N")
    lines = [line for line in against_bank.get_lines() if line.get_label() in lined]  # markers are in the legend of all
    if lines:
        against_bank.legend(handles=lines, fontsize=8)
    for plot in (against_all, against_bank):
        plot.set_ylabel("top-1 %")
    _bars(time, shown, figures)
    handles, labels = against_all.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    figure.suptitle(label, fontsize=11)
    save(figure, path)


def _scatter(plot: Any, rows: Sequence[Row], figures: Mapping[str, Figures], across: str) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    for family, (colour, marker) in STYLES.items():
        own = [figures[row.name] for row in rows if row.family == family]
        if not own:
            continue
        points = sorted((of.mean(across), *_percent(of)) for of in own)
        x, y, deviations = zip(*points, strict=True)
        joined = "-" if len(points) > 1 else "none"
        style = {"color": colour, "marker": marker, "markersize": 8, "capsize": 3, "lw": 1.2, "alpha": 0.85}
        plot.errorbar(x, y, yerr=deviations if any(deviations) else None, linestyle=joined, label=family, **style)
    plot.set_xscale("log")
    plot.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plot.xaxis.set_major_formatter(EngFormatter(sep=""))
    plot.xaxis.set_minor_formatter(NullFormatter())
    plot.margins(0.08)
    plot.grid(alpha=0.3)
    plot.tick_params(labelsize=8)


def _bars(plot: Any, rows: Sequence[Row], figures: Mapping[str, Figures]) -> None:
    times = [figures[row.name].mean("ms") for row in rows]
    colours = [STYLES[row.family][0] for row in rows]
    bars = plot.barh([row.name for row in rows], times, color=colours, alpha=0.8)
    plot.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
    plot.invert_yaxis()
    plot.set_xscale("log")
    plot.set_xlim(min(times) / 2, max(times) * 2)
    plot.set_xlabel("ms an image, batch 32, one thread")
    plot.tick_params(axis="y", labelsize=8)


def _percent(own: Figures) -> tuple[float, float]:
    found = own.statistics("top1")
    assert found is not None
    return 100 * found[0], 100 * (found[1] or 0.0)
