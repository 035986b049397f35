"""Curves as SVG within the page: text stays text, colours are the page's, light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rpgmt.report.html import Html, joined, tag

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 28
"""Margins round the curves, in the drawing's own pixels."""
MOST_POINTS = 300
"""Of a curve: more do not show at this size."""
LOG_FROM = 20.0
"""A loss that falls by this factor or more has a logarithmic axis."""

Points = Sequence[tuple[float, float]]


def stage_colours(lines: Sequence[str]) -> dict[str, str]:
    """A colour for each line: from the page's early to its late one; what belongs to no stage has that of text."""
    stages = [line for line in lines if line]
    last = max(len(stages) - 1, 1)
    shades = {line: (place / last if len(stages) > 1 else 1.0) for place, line in enumerate(stages)}
    mixed = {line: f"color-mix(in oklch, var(--late) {shade:.0%}, var(--early))" for line, shade in shades.items()}
    return mixed | {"": "var(--ink)"}


def run_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour of the page's eight for each run."""
    return {name: f"var(--run-{place % 8})" for place, name in enumerate(names)}


def legend(colours: Mapping[str, str]) -> Html:
    """What the colours mean."""
    keys = [
        tag("li", tag("span", "", class_="key", style=f"--line: {colour}", aria_hidden="true"), name)
        for name, colour in colours.items()
        if name
    ]
    return tag("ul", *keys, class_="legend")


def chart(title: str, axis: str, lines: Mapping[str, Points], colours: Mapping[str, str]) -> Html:
    """One small plot.

    Args:
        title: of the plot, e.g. ``val/AP``.
        axis: what the curves run over.
        lines: points (x, y) by the name of the curve, at least one; x rises.
        colours: CSS colours by the same names.
    """
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points if math.isfinite(y)] or [0.0]
    logarithmic = "loss" in title and min(ys) > 0 and max(ys) / min(ys) >= LOG_FROM
    low, high = _padded(*((math.log10(min(ys)), math.log10(max(ys))) if logarithmic else (min(ys), max(ys))))
    first, last = (min(xs), max(xs)) if min(xs) < max(xs) else (min(xs) - 0.5, max(xs) + 0.5)

    def across(x: float) -> float:
        return LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        unit = ((math.log10(y) if logarithmic else y) - low) / (high - low)
        return HEIGHT - BOTTOM - unit * (HEIGHT - TOP - BOTTOM)

    marks = []
    for y in _log_ticks(low, high) if logarithmic else ticks(low, high):
        marks.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{down(y):.1f}", y2=f"{down(y):.1f}", class_="grid"))
        marks.append(tag("text", short(y), x=LEFT - 6, y=f"{down(y) + 4:.1f}", text_anchor="end"))
    for x in ticks(first, last, 7):
        marks.append(tag("text", short(x), x=f"{across(x):.1f}", y=HEIGHT - 8, text_anchor="middle"))
    for name, points in lines.items():
        places = [(across(x), down(y)) for x, y in thinned(points) if math.isfinite(y)]
        style = f"--line: {colours[name]}"
        marks.append(tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_="curve", style=style))
        if len(places) < 15:
            marks += [tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=2.4, style=style) for x, y in places]
    says = "; ".join(f"{name or title} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in lines.items())
    scale = ", logarithmic" if logarithmic else ""
    drawing = tag(
        "svg", joined(marks), viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title} over {axis}{scale}: {says}"
    )
    return tag("figure", tag("figcaption", tag("b", title), f" over {axis}{scale}"), drawing, class_="chart")


def thinned(points: Points) -> list[tuple[float, float]]:
    """At most about `MOST_POINTS` points, evenly spaced, with the first and the last."""
    step = math.ceil(len(points) / MOST_POINTS)
    kept = list(points[::step])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` round numbers from `low` to `high`, evenly spaced."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) < most)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number of an axis: 12k, 0.25."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:g}{letter}"
    return f"{value:.6g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.1e}"


def _padded(low: float, high: float) -> tuple[float, float]:
    space = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return low - space, high + space


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(low), math.ceil(high) + 1)
    factors = (1, 2, 5) if high - low < 2 else (1,)
    return [factor * 10.0**power for power in powers for factor in factors if low <= math.log10(factor * 10.0**power) <= high]
