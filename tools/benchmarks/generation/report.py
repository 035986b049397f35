"""What the benchmark of generation says: rows of figures, their table, its title."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from rich.table import Table

from tools.benchmarks.common.turns import quartiles, ratios
from tools.benchmarks.generation.authors import NAME as AUTHORS
from tools.benchmarks.generation.floors import COPY, GATHER
from tools.benchmarks.generation.problem import Kind
from tools.benchmarks.generation.setting import Setting

PARTS = ("forward", "backward", "total")


def row_of(kind: Kind, seconds: dict[str, dict[str, list[float]]], generated: int) -> dict[str, Any]:
    """What was found of one kind.

    Args:
        kind: which.
        seconds: of all kinds' parts in each turn.
        generated: weights that were made.
    """
    own = seconds[kind.name]
    found: dict[str, Any] = {"kind": kind.name}
    for part in PARTS:
        low, median, high = (1000 * value for value in quartiles(own[part]))
        found[f"{part}_ms"], found[f"{part}_ms_quartiles"] = median, [low, high]
    formula = seconds.get(AUTHORS)
    found["times_as_fast_as_authors"] = {part: ratios(formula[part], own[part]) for part in PARTS} if formula else None
    for name, other in (("gather", seconds.get(GATHER)), ("copy", seconds[COPY])):
        found[f"ratio_to_{name}"] = {part: ratios(own[part], other[part]) for part in PARTS} if other else None
    found["bytes_per_weight"] = kind.table_bytes / generated
    found["build_seconds"] = kind.build_seconds
    return found


def table(title: str, rows: Iterable[dict[str, Any]]) -> Table:
    """Rows that `row_of` made."""
    rows = list(rows)
    compared = [name for name in ("gather", "copy") if rows[0][f"ratio_to_{name}"]]
    result = Table(title=title, title_justify="left")
    result.add_column("")
    columns = ["forward\nms", "and back-\nward, ms", "\nquartiles", "authors'\n/ own", "\nquartiles"]
    for name in compared:
        columns += [f"own / {name}\nforward", "\nbackward"]
    for column in (*columns, "table bytes\na weight", "made\nin s"):
        result.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [row["kind"], f"{row['forward_ms']:.3g}", f"{row['total_ms']:.3g}", _span(row["total_ms_quartiles"])]
        faster = row["times_as_fast_as_authors"]
        cells += [f"{faster['total']['ratio']:.2f}", _span(faster["total"]["ratio_quartiles"])] if faster else ["n/a", ""]
        for name in compared:
            cells += [f"{row[f'ratio_to_{name}'][part]['ratio']:.2f}" for part in ("forward", "backward")]
        seconds = row["build_seconds"]
        result.add_row(*cells, f"{row['bytes_per_weight']:.2f}", "" if seconds is None else f"{seconds:.2f}")
    return result


def _span(pair: Sequence[float]) -> str:
    return f"{pair[0]:.3g} … {pair[1]:.3g}"


def title_of(setting: Setting, point: dict[str, Any]) -> str:
    """What one problem was."""
    counts = f"M = {point['generated']:,} weights of {point['layers']:,} layers from N = {point['size']:,}"
    return f"generation, {counts}, {machine(setting)}"


def machine(setting: Setting) -> str:
    """What all figures depend on beside the problem."""
    threads = torch.get_num_threads()
    where = f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    if setting.device.type == "cuda":
        where = torch.cuda.get_device_name(setting.device)
    queued = ", the device's time alone" if setting.queued else ""
    return f"{str(setting.dtype).removeprefix('torch.')}, {where}{queued}, torch {torch.__version__}"


def facts(setting: Setting) -> dict[str, Any]:
    """The same for the JSON."""
    return {
        "device": setting.device.type,
        "threads": torch.get_num_threads(),
        "dtype": str(setting.dtype).removeprefix("torch."),
        "queued": setting.queued,
    }
