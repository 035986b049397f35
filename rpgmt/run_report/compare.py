"""Several runs side by side: a table, where their configs differ, and their curves in one drawing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rpgmt.run_report.curves import chart, legend, run_colours
from rpgmt.run_report.facts import COUNTS, count, facts, figure
from rpgmt.run_report.html import Html, details, table, tag
from rpgmt.run_report.runs import Run


def comparison(runs: Sequence[Run]) -> Iterator[Html]:
    """The sections that compare runs."""
    runs, names = _lined_up(runs), [run.name for run in runs]
    yield tag(
        "section",
        tag("h2", "Figures"),
        table("Each run's last validation, and what it cost", ["", *names], _figures(runs), class_="runs"),
    )
    yield tag("section", tag("h2", "What differs"), _differences(runs))
    panels = list(dict.fromkeys(panel for run in runs for panel in run.curves))
    if panels:
        colours = run_colours(names)
        drawn = {panel: _overlaid(panel, runs, colours) for panel in panels}
        first = {"train/loss", "val/loss", *(f"val/{run.main[0]}" for run in runs if run.main)} & drawn.keys()
        rest = [drawing for panel, drawing in drawn.items() if panel not in first]
        yield tag(
            "section",
            tag("h2", "Curves, of the last stage"),
            legend(colours),
            tag("div", *(drawing for panel, drawing in drawn.items() if panel in first), class_="charts"),
            details(f"{len(rest)} more curves", tag("div", *rest, class_="charts")) if rest else None,
        )


def _lined_up(runs: Sequence[Run]) -> Sequence[Run]:
    """Runs whose metrics of key points have the same names, where some learn key points alone and others more tasks.

    `AP` of the first becomes `keypoints.AP`, as it is called in the others; its curve, too.
    """
    of_key_points = [any(name.startswith("keypoints.") for name in _validated(run)) for run in runs]
    if not any(of_key_points):
        return runs
    alone = [list(run.config.get("model", {}).get("heads", {})) == ["keypoints"] for run in runs]
    return [
        _with_prefix(run, "keypoints.") if only and not named else run
        for run, only, named in zip(runs, alone, of_key_points, strict=True)
    ]


def _validated(run: Run) -> set[str]:
    """The metrics of a run; of one that is not finished, those of its curves."""
    drawn = {panel.removeprefix("val/") for panel in run.curves if panel.startswith("val/")}
    return {*run.main, *(name for name in drawn if "/" not in name and name != "loss")}


def _with_prefix(run: Run, prefix: str) -> Run:
    """The run with another name for each of its metrics of the last stage and for their curves."""
    metrics = _validated(run)
    val = {prefix + name if name in metrics else name: value for name, value in run.val.items()}
    panels = {f"val/{name}": f"val/{prefix}{name}" for name in metrics}
    curves = {panels.get(panel, panel): lines for panel, lines in run.curves.items()}
    return dataclasses.replace(run, record=run.record | ({"val": val} if val else {}), curves=curves)


def _figures(runs: Sequence[Run]) -> Iterator[list[str]]:
    parameters = [run.record.get("parameters", {}) for run in runs]
    known = [found if found.keys() >= COUNTS else None for found in parameters]
    yield ["task", *(run.task for run in runs)]
    for metric in dict.fromkeys(name for run in runs for name in run.main):
        yield [metric, *(figure(run.val[metric]) if metric in run.val else "–" for run in runs)]
    yield [
        "best of the first metric",
        *(f"{figure(run.best[1])} at step {run.best[0]:,.0f}" if run.best else "–" for run in runs),
    ]
    for key, what in (
        ("trainable", "trainable parameters"),
        ("bank", "bank N"),
        ("generated", "generated M"),
        ("fixed", "fixed"),
    ):
        yield [what, *(f"{found[key]:,}" if found else "–" for found in known)]
    yield ["trainable, of the parameters without sharing", *(_part(found) for found in known)]
    yield [
        "bytes of the model file",
        *(f"{run.record['bytes']['model_file']:,}" if "bytes" in run.record else "–" for run in runs),
    ]
    yield [
        "multiply-accumulates, which sharing leaves as they are",
        *(count(run.record["macs"]) if "macs" in run.record else "–" for run in runs),
    ]
    told = [facts(run) for run in runs]
    for name in dict.fromkeys(name for found in told for name in found):
        yield [name, *(found.get(name, "–") for found in told)]


def _part(parameters: Mapping[str, int] | None) -> str:
    if not parameters or not parameters["bank"]:
        return "–"
    return f"{parameters['trainable'] / (parameters['generated'] + parameters['fixed']):.1%}"


def _differences(runs: Sequence[Run]) -> Html:
    flat = [dict(_flat(run.config)) for run in runs]
    keys = [
        key for key in dict.fromkeys(key for one in flat for key in one) if len({str(one.get(key, "–")) for one in flat}) > 1
    ]
    if not keys:
        return tag("p", "Their configs are the same.")
    rows = [[tag("code", key), *(str(one.get(key, "–")) for one in flat)] for key in keys]
    return table("Keys of config.yaml that differ", ["", *(run.name for run in runs)], rows, class_="runs")


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _overlaid(panel: str, runs: Sequence[Run], colours: Mapping[str, str]) -> Html:
    lines = {run.name: points for run in runs if (points := run.last_stage(panel))}
    return chart(panel, runs[0].axis, lines, colours)
