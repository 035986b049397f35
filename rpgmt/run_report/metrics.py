"""Metrics by stage and task, and those of single key points and classes."""

from __future__ import annotations

from collections.abc import Sequence

from rpgmt.run_report.facts import figure
from rpgmt.run_report.html import Html, details, joined, table, tag
from rpgmt.run_report.runs import Run

MOST_ROWS = 24
"""Of a table of parts that is not folded away: the key points of most sets."""
LOWER_IS_BETTER = {"abs", "rel", "rmse", "mean", "median"}
"""Metrics of depth and normals that are errors; all others are better where they are higher."""
_BY_STAGE = ", by stage; the best ones bold"


def metrics_section(run: Run) -> Html | None:
    """A table for each task, one of best and last step, and folded away those of key points or classes."""
    if not run.main:
        return None
    parts: list[Html | None] = [best_and_last(run)]
    for task, names in run.by_task.items():
        rows = [[name.removeprefix(f"{task}."), *_by_stage(run, name)] for name in names]
        caption = f"{task or 'Last validation'}{_BY_STAGE if run.stage_names else ''}"
        of_task = table(caption, ["", *columns(run)], rows, class_="figures")
        parts.append(tag("div", of_task, *_of_parts(run, task), class_="pair"))
    return joined(parts)


def best_and_last(run: Run) -> Html | None:
    """The first metric at its best step and at the last one: the model file holds the last, best.ckpt the best."""
    points = run.last_stage(f"val/{run.main[0]}")
    if not run.best or not points:
        return None
    (best, best_value), (last, last_value) = run.best, points[-1]
    if best == last:
        text = f"{run.main[0]} is best at the last step, {last:,.0f}: {figure(last_value)}."
    else:
        text = (
            f"{run.main[0]} is best at step {best:,.0f}, {figure(best_value)}; at the last step, {last:,.0f}, it is "
            f"{figure(last_value)}. model.safetensors holds the last step, checkpoints/best.ckpt the best one."
        )
    return tag("p", text)


def columns(run: Run) -> list[str]:
    """The names of a table's columns of figures."""
    return [name.replace("_", " ") for name in run.stage_names] or ["value"]


def _by_stage(run: Run, name: str) -> list[Html | str]:
    lower = name.removeprefix(f"{run.task_of(name)}.") in LOWER_IS_BETTER
    return best_bold(_values(run, name), higher=not lower)


def best_bold(values: Sequence[float | None], *, higher: bool) -> list[Html | str]:
    """Figures of stages; the best of them is bold, and whatever reads the same, unless all do."""
    texts = [figure(value) for value in values]
    known = [value for value in values if value is not None]
    if len({figure(value) for value in known}) < 2:
        return list(texts)
    best = figure(max(known) if higher else min(known))
    return [tag("b", text) if text == best else text for text in texts]


def _values(run: Run, name: str) -> list[float | None]:
    return [run.val.get(key) for key in ([f"{stage}/{name}" for stage in run.stage_names] or [name])]


def _of_parts(run: Run, task: str) -> list[Html]:
    """A task's metrics of each key point or class; where there are none, the gallery's figure of each."""
    found: dict[str, list[list[object]]] = {}
    for name in run.val:
        metric, _, part = name.partition(":")
        if part and "/" not in metric and run.task_of(metric) == task:
            found.setdefault(metric, []).append(_row(part, _values(run, name), higher=True))
    groups = {group["name"]: group for group in run.gallery}
    group = groups.get(task) if task else next(iter(groups.values()), None)
    if not found and group and group["parts"] and (task or len(groups) == 1):
        found[f"Mean {group['figure']}"] = [
            _row(part, values, higher=group["higher"]) for part, values in group["parts"].items()
        ]
    return [_parts_table(f"{metric} of each part", rows, run) for metric, rows in found.items()]


def _row(name: str, values: Sequence[float | None], *, higher: bool) -> list[object]:
    last = values[-1]
    bar = (
        tag("span", tag("span", style=f"--part: {100 * min(max(last, 0.0), 1.0):.1f}%"), class_="bar", aria_hidden="true")
        if last is not None
        else ""
    )
    return [name, *best_bold(values, higher=higher), bar]


def _parts_table(caption: str, rows: Sequence[Sequence[object]], run: Run) -> Html:
    """Folded away where it is long; the bars are of the last column of figures, from 0 to 1."""
    found = table(caption, ["", *columns(run), ""], rows, class_="figures parts")
    return found if len(rows) <= MOST_ROWS else details(f"{caption} ({len(rows)})", found)
