"""The multi-task benchmark's figure: accuracy against trainable parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools.benchmarks.common.drawing import STYLES, save
from tools.benchmarks.common.figures import Figures

if TYPE_CHECKING:
    from rpgmt.heads import Head

TRAINABLE = "parameters.trainable"
BESIDE = 0.03
"""Distance of markers with equal parameters, as a part of the axis."""


def draw(networks: Sequence[Figures], baseline: Figures | None, heads: Mapping[str, Head], label: str, path: Path) -> None:
    """Draws the score and each task's main metric, one small plot for each, one marker a network, the baseline as a line.

    Args:
        networks: those of all tasks, with parameters; at most as many as `STYLES`.
        baseline: the single-task networks together.
        heads: the tasks.
        label: what is measured.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panels = {"score": True, **{f"{name}.{head.main}": head.higher[head.main] for name, head in heads.items()}}
    across = min(3, len(panels) + 1)
    down = math.ceil((len(panels) + 1) / across)  # one more for the legend
    figure = Figure(figsize=(4.2 * across, 3.1 * down), dpi=100, layout="constrained")
    plots = list(figure.subplots(down, across, squeeze=False).flat)
    places = _places([row.mean(TRAINABLE) for row in networks])
    for plot, (metric, higher) in zip(plots, panels.items(), strict=False):
        for row, place, (colour, marker) in zip(networks, places, STYLES, strict=False):
            mean, deviation = row.statistics(metric) or (math.nan, None)
            style = {"color": colour, "markersize": 7, "capsize": 4, "lw": 1.4}
            plot.errorbar(place, mean, yerr=deviation, fmt=marker, label=row.name, **style)
        if baseline is not None and (found := baseline.statistics(metric)) is not None:
            mean, deviation = found
            text = f"{baseline.name}:\n{EngFormatter(places=2, sep='')(baseline.mean(TRAINABLE))} together"
            plot.axhline(mean, color="0.35", linestyle="--", lw=1.2, label=text)
            if deviation:
                plot.axhspan(mean - deviation, mean + deviation, color="0.35", alpha=0.12, lw=0)
        plot.set_title(f"{metric} ({'higher' if higher else 'lower'} is better)", fontsize=11)
        plot.xaxis.set_major_formatter(EngFormatter(sep=""))
        plot.xaxis.set_major_locator(MaxNLocator(5))
        plot.margins(x=0.12)
        plot.grid(alpha=0.3)
        plot.tick_params(labelsize=9)
    for plot in plots[len(panels) :]:
        plot.set_axis_off()
    handles, labels = plots[0].get_legend_handles_labels()
    plots[len(panels)].legend(handles, labels, loc="center", frameon=False, fontsize=10)
    figure.supxlabel("trainable parameters (markers of equal numbers stand side by side)", fontsize=10)
    figure.suptitle(label, fontsize=10)
    save(figure, path)


def _places(values: list[float]) -> list[float]:
    """Places on the axis: the values, those that are equal side by side."""
    step = BESIDE * ((max(values) - min(values)) or max(values)) if values else 0.0
    return [value + step * (values[:i].count(value) - (values.count(value) - 1) / 2) for i, value in enumerate(values)]
