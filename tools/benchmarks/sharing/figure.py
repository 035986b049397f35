"""The comparison's figure: accuracy against stored numbers, bytes and MACs, by stage and by epochs."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.benchmarks.common.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILION, save
from tools.benchmarks.sharing.rows import NONE

if TYPE_CHECKING:
    from tools.benchmarks.sharing.report import Report
    from tools.benchmarks.sharing.store import StoredRow

STYLES = {
    "tied": (BLUE, "o"), "tied-norms": (BLUE, "v"), "signs": (BLUE, "x"), "low-rank": (SKY_BLUE, "P"),
    "rpg-stage": (VERMILION, "s"), "rpg-layer": (VERMILION, "D"), "rpg-global": (ORANGE, "^"), "rpg-block": (ORANGE, "<"),
    "signed": (PURPLE, "p"),
    "narrow": (GREEN, "d"), "wide": (GREEN, "*"), NONE: (BLACK, "X"),
}  # fmt: skip
OTHER = (PURPLE, "h")
"""Of kinds that are not in this table."""
COSTS = {"stored numbers": "parameters.trainable", "bytes of the model file": "bytes", "MACs": "macs"}


def draw(report: Report, path: Path) -> None:
    """Draws a figure of five small plots and a legend.

    Bars are standard deviations over seeds. Hollow markers are of rounded networks, whose bytes alone differ.

    Args:
        report: with at least one network.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure = Figure(figsize=(13.5, 7.6), dpi=100, layout="constrained")
    plots = list(figure.subplots(2, 3).flat)
    for plot, (label, cost) in zip(plots, COSTS.items(), strict=False):
        for row in report.rows:
            if row.bits is None or cost == "bytes":
                _marker(report, row, cost, plot)
        ruler = [row for row in report.rows if row.kind == NONE and row.bits is None]
        of = [report.figures[row.name] for row in sorted(ruler, key=lambda row: row.stages)]
        plot.plot(
            [one.mean(cost) for one in of], [100 * one.mean(report.monitor) for one in of], color=BLACK, lw=0.8, alpha=0.5
        )
        plot.set_xlabel(label)
        plot.xaxis.set_major_formatter(EngFormatter(sep=""))
        plot.xaxis.set_major_locator(MaxNLocator(5))
    for row in [row for row in report.rows if row.bits is None]:
        _by_stage(report, row, plots[3])
        _by_epoch(row, plots[4])
    plots[3].set_xlabel("stage")
    plots[3].xaxis.set_major_locator(MaxNLocator(integer=True))
    plots[4].set_xlabel("epoch, held-out images")
    for plot in plots[:5]:
        plot.set_ylabel(f"{report.monitor} × 100")
        plot.grid(alpha=0.3)
        plot.tick_params(labelsize=9)
    handles, labels = plots[1].get_legend_handles_labels()
    plots[5].set_axis_off()
    plots[5].legend(handles, labels, loc="center", frameon=False, fontsize=7.5, ncols=2 if len(labels) > 18 else 1)
    cut = " (CUT SHORT)" if report.missing else ""
    figure.suptitle(f"{report.label()}{cut}", fontsize=10)
    save(figure, path)


def _style(row: StoredRow) -> dict[str, Any]:
    colour, marker = STYLES.get(row.kind, OTHER)
    larger = row.size is not None and row.size != "25%"
    return {"color": colour, "marker": marker, "markersize": (9 if larger else 6) - (2 if row.bits == 4 else 0)}


def _marker(report: Report, row: StoredRow, cost: str, plot: Any) -> None:
    own = report.figures[row.name]
    mean, deviation = own.statistics(report.monitor) or (float("nan"), None)
    face = {"markerfacecolor": "none"} if row.bits else {}
    spread = None if deviation is None else 100 * deviation
    plot.errorbar(own.mean(cost), 100 * mean, spread, ls="", capsize=3, lw=1, label=row.name, **_style(row), **face)


def _by_stage(report: Report, row: StoredRow, plot: Any) -> None:
    own = report.figures[row.name]
    found = {k: own.statistics(f"stage_{k}/{report.monitor}") for k in range(1, row.stages + 1)}
    known = {k: 100 * value[0] for k, value in found.items() if value}
    plot.plot(list(known), list(known.values()), lw=1.2, **_style(row))


def _by_epoch(row: StoredRow, plot: Any) -> None:
    epochs = sorted({epoch for result in row.results.values() for epoch in result.course})
    means = [100 * statistics.fmean(r.course[e] for r in row.results.values() if e in r.course) for e in epochs]
    plot.plot(epochs, means, lw=1.2, color=_style(row)["color"])
