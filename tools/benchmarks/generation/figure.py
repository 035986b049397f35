"""The figure of `benchmark.py generation --sweep`: cost against generated weights and against the bank's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.benchmarks.common.drawing import STYLES, save

PANELS = {"generated": "generated weights M, at M/N = {uses:.3g}", "size": "entries of the bank N, at M = {generated:,}"}


def draw(series: Mapping[str, Sequence[Mapping[str, Any]]], label: str, path: Path) -> None:
    """Draws milliseconds of forward and backward of each kind, medians and quartiles, both axes logarithmic.

    Args:
        series: for `generated` and `size` the points of a sweep; a kind may be missing in some.
        label: what is measured, where.
        path: the PNG to write, of at most 300 KB.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(11, 4.6), dpi=100, layout="constrained")
    plots = figure.subplots(1, len(PANELS), sharey=True)
    kinds = list(dict.fromkeys(row["kind"] for points in series.values() for point in points for row in point["rows"]))
    for plot, (panel, title) in zip(plots, PANELS.items(), strict=True):
        for i, kind in enumerate(kinds):
            found = [(point[panel], row) for point in series[panel] for row in point["rows"] if row["kind"] == kind]
            if not found:
                continue
            colour, marker = STYLES[i % len(STYLES)]
            x = [value for value, _ in found]
            plot.plot(x, [row["total_ms"] for _, row in found], color=colour, marker=marker, markersize=6, lw=1.4, label=kind)
            low, high = ([row["total_ms_quartiles"][end] for _, row in found] for end in (0, 1))
            plot.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        plot.set_xscale("log")
        plot.set_yscale("log")
        plot.xaxis.set_major_locator(LogLocator(numticks=6))
        plot.xaxis.set_major_formatter(EngFormatter(sep=""))
        plot.xaxis.set_minor_formatter(NullFormatter())
        last = series[panel][-1]
        plot.set_xlabel(title.format(uses=last["generated"] / last["size"], **last), fontsize=10)
        plot.grid(alpha=0.3)
        plot.tick_params(labelsize=9)
    plots[0].set_ylabel("forward + backward, ms", fontsize=10)
    handles = {label: handle for plot in plots for handle, label in zip(*plot.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False, fontsize=10)
    figure.suptitle(label, fontsize=10)
    save(figure, path)
