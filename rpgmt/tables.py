"""The tables that the tools print, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rpgmt.whole_files import write_text

if TYPE_CHECKING:
    from rpgmt.rpg.report import Report


def print_table(table: Table) -> None:
    """Prints a table, under its title: inside a narrow table that would wrap.

    It has its full width where the output is a file, so that nothing is cut off in a log.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    title, table.title = table.title, None
    if title:
        console.print(title, style="italic", markup=False)
    console.print(table)
    table.title = title


def write_json(path: Path, record: Any) -> None:
    """Writes what a table shows as JSON; numbers without samples are null."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n", folders=True)
    print(f"written: {path}")


def metrics_table(metrics: Mapping[str, float | None], label: str) -> Table:
    """One row a metric, one column a stage, or one of values for a network without stages; "n/a" where there are no samples.

    Args:
        metrics: `AP`, … of the last stage and `stage_1/AP`, … of every stage. Figures of single key points or classes,
            `PCK@0.2:left_ankle`, are left to `details_table`.
        label: What they are measured on, with the source of the boxes.
    """
    return _by_stage(metrics, {name: name for name in metrics if "/" not in name and ":" not in name}, label, "metric")


def details_table(metrics: Mapping[str, float | None], metric: str, label: str) -> Table:
    """One metric of every key point or class, one column a stage.

    Args:
        metrics: Holds `stage_1/PCK@0.2:left_ankle`, …
        metric: e.g. `PCK@0.2`.
        label: What is measured.
    """
    names = [name for name in metrics if name.startswith(f"{metric}:")]
    rows = {name: name.partition(":")[2] for name in names} | {metric: "all"}
    return _by_stage(metrics, rows, f"{metric}, {label}", "name")


def _by_stage(metrics: Mapping[str, float | None], rows: Mapping[str, str], title: str, first: str) -> Table:
    """Rows of metrics, named as `rows` says under the heading `first`; stages are columns, for they are fewer."""
    stages = list(dict.fromkeys(name.split("/")[0] for name in metrics if "/" in name))
    numbers = [stage.removeprefix("stage_") for stage in stages]
    wide = len(stages) > 5  # for 80 columns
    table = Table(title=title, title_justify="left")
    table.add_column("stage" if wide else first, no_wrap=True)
    for column in [number if wide else f"stage {number}" for number in numbers] or ["value"]:
        table.add_column(column, justify="right", no_wrap=True)
    for name, shown in rows.items():
        values = [metrics[f"{stage}/{name}"] for stage in stages] if stages else [metrics[name]]
        table.add_row(shown, *("n/a" if value is None else f"{value:.3f}" for value in values))
    return table


def anytime_table(
    metrics: Mapping[str, float | None], costs: Sequence[Mapping[str, Any]], names: Sequence[str], label: str
) -> Table:
    """Accuracy and cost of stopping after each stage: one row a stage.

    Args:
        metrics: Holds `stage_1/AP`, …
        costs: `stage`, `macs` and `ms` of each number of stages, as `rpgmt.engine.anytime.stage_costs` gives them.
        names: The metrics that are shown, without their stage.
        label: What is measured, on what.
    """
    table = Table(title=label, title_justify="left")
    for column in ("stop after", *names, "MACs (G)", "of all", "ms", "of all"):
        table.add_column(column, justify="right")
    for cost in costs:
        values = [metrics.get(f"stage_{cost['stage']}/{name}") for name in names]
        cells = ["n/a" if value is None else f"{value:.3f}" for value in values]
        for key, scale, form in (("macs", 1e9, ".3f"), ("ms", 1, ".1f")):
            cells += [format(cost[key] / scale, form), f"{cost[key] / costs[-1][key]:.0%}"]
        table.add_row(str(cost["stage"]), *cells)
    return table


def counts_table(counts: Mapping[str, Any], name: str, bytes_on_disk: int | None = None) -> Table:
    """The counting table: bank, generated, fixed and trainable parameters, buffers, bytes, multiply-accumulates."""
    table = Table(title=name, title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    table.add_column("remark")
    for row in counts_rows(counts, bytes_on_disk):
        table.add_row(*row)
    return table


def counts_rows(counts: Mapping[str, Any], bytes_on_disk: int | None = None) -> list[tuple[str, str, str]]:
    """The rows of the counting table: what, how many, and a remark; without what is not known.

    Args:
        counts: `parameters`, and where known `buffers` and `macs`.
        bytes_on_disk: of the model file.
    """
    parameters = counts["parameters"]
    plain = parameters["generated"] + parameters["fixed"]
    signed = "signed" in parameters
    banks = "stored: magnitudes, and a number for 32 learned signs" if signed else "trained, in all banks together"
    rows = [("bank N", f"{parameters['bank']:,}", banks)]
    uses = f"{parameters['generated'] / parameters['bank']:.2f} an entry" if parameters["bank"] else "none"
    rows.append(
        ("generated M", f"{parameters['generated']:,}", f"weights made from {'them' if signed else 'the banks'}, {uses}")
    )
    fixed = "trained, which remains however small N is" if parameters["bank"] else "trained, not in a bank"
    rows.append(("fixed", f"{parameters['fixed']:,}", fixed))
    part = f"{parameters['trainable'] / plain:.1%} of the unshared {plain:,}" if parameters["bank"] else ""
    rows.append(("trainable", f"{parameters['trainable']:,}", f"{'stored: ' * signed}N + fixed{', ' + part if part else ''}"))
    if "buffers" in counts:
        rows.append(("buffers", f"{counts['buffers']:,}", "statistics of the norms"))
    if bytes_on_disk is not None:
        rows.append(("bytes", f"{bytes_on_disk:,}", "of the model file"))
    if "macs" in counts:
        remark = "for one image, the same as without sharing" if parameters["bank"] else "for one image"
        rows.append(("MACs", f"{counts['macs']:,}", remark))
    return rows


def modules_table(report: Report) -> Table:
    """Every module with parameters: what is generated, from which bank; what is not, and why."""
    table = Table(title="modules", title_justify="left")
    table.add_column("module")
    table.add_column("kind")
    for column in ("generated", "fixed", "shared"):
        table.add_column(column, justify="right")
    table.add_column("source")
    for row in report.rows:
        numbers = [f"{n:,}" if n else "" for n in (row.generated, row.fixed, row.shared)]
        table.add_row(row.name, row.kind, *numbers, row.source)
    return table
