"""The time of a training step by kind: against independent stages, by phase, and the part of generation in it."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from rich.progress import track
from rich.table import Table

from tools.benchmarks.common.turns import quartiles, ratios, shuffled
from tools.benchmarks.step.generation_alone import Copy, GenerationAlone
from tools.benchmarks.step.networks import KINDS, NONE, RPG
from tools.benchmarks.step.training_step import PHASES, TimedStep

WARM_UP = 2
"""Steps that do not count: tables, memory and kernels are made in the first one."""
GENERATION, COPY = "generation", "copy"


def measure(config: Any, kinds: list[str], device: torch.device, rounds: int) -> dict[str, Any]:
    """Takes turns of a step of each kind in changing order, so that whatever else the machine does meets all of them.

    Args:
        config: With `model: ModelConfig` and `train: TrainConfig`.
        kinds: Of `KINDS`, `none` among them.
        device: Where they run.
        rounds: Turns of each kind.

    Returns:
        `rows`, one a kind, and `generation`, None without the kind rpg. Times are medians in milliseconds; ratios and what is
        beyond the plain network are within a turn.
    """
    steps: dict[str, TimedStep | GenerationAlone | Copy] = {kind: TimedStep(config, kind, device) for kind in kinds}
    if RPG in kinds:
        alone = steps[GENERATION] = GenerationAlone(config, device)
        steps[COPY] = Copy(alone.generated, device)
    warm_up = {name: sum(step.run()["step"] for _ in range(WARM_UP)) for name, step in steps.items()}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    for turn in track(range(rounds), "training steps", transient=True):
        for name in shuffled(list(steps), turn):
            seconds[name].append(steps[name].run())
    record: dict[str, Any] = {"rows": [_row(kind, seconds) for kind in kinds], "generation": None}
    if config.train.compile:
        for row in record["rows"]:
            row["compile_seconds"] = max(0.0, warm_up[row["kind"]] - WARM_UP * row["median_ms"] / 1000)
    if RPG in kinds:
        record["generation"] = {"N": alone.bank, "M": alone.generated, **_generation(seconds)}
    return record


def _row(kind: str, seconds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    own, plain = _all(seconds[kind]), _all(seconds[NONE])
    low, median, high = quartiles(own)
    return {
        "kind": kind,
        "sharing": KINDS[kind].model["sharing"],
        "median_ms": 1000 * median,
        "quartiles_ms": [1000 * low, 1000 * high],
        **ratios(own, plain),
        "beyond_none_ms": 1000 * statistics.median(a - b for a, b in zip(own, plain, strict=True)),
        "phases_ms": {
            phase: 1000 * statistics.median(_all(seconds[kind], phase)) for phase in PHASES if phase in seconds[kind][0]
        },
    }


def _generation(seconds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    own, copies, steps = _all(seconds[GENERATION]), _all(seconds[COPY]), _all(seconds[RPG])
    parts = {part: 1000 * statistics.median(_all(seconds[GENERATION], part)) for part in ("generate", "fold")}
    to_copy, to_step = ratios(own, copies), ratios(own, steps)
    return {
        **{f"{part}_ms": value for part, value in parts.items()},
        "median_ms": 1000 * statistics.median(own),
        "of_step": to_step["ratio"],
        "of_step_quartiles": to_step["ratio_quartiles"],
        "copy_ms": 1000 * statistics.median(copies),
        "copies": to_copy["ratio"],
        "copies_quartiles": to_copy["ratio_quartiles"],
    }


def _all(turns: list[dict[str, float]], part: str = "step") -> list[float]:
    return [turn[part] for turn in turns]


def tables(title: str, record: dict[str, Any]) -> list[Table]:
    """What `measure` found, as tables."""
    rows = record["rows"]
    phases = list(rows[0]["phases_ms"])
    compiled = "compile_seconds" in rows[0]
    table = Table(title=title, title_justify="left")
    columns = ["kind", "ms, median", "ratio to none, median", "quartiles", "ms beyond none", *phases]
    for column in [*columns, *(["compilation, s"] if compiled else [])]:
        table.add_column(column, justify="left" if column == "kind" else "right")
    for row in rows:
        low, high = row["ratio_quartiles"]
        cells = [row["kind"], f"{row['median_ms']:.1f}", f"{row['ratio']:.3f}", f"{low:.3f} … {high:.3f}"]
        cells += [f"{row['beyond_none_ms']:.1f}", *(f"{row['phases_ms'][phase]:.1f}" for phase in phases)]
        table.add_row(*cells, *([f"{row['compile_seconds']:.0f}"] if compiled else []))
    return [table, *([_generation_table(record["generation"])] if record["generation"] else [])]


def _generation_table(record: dict[str, Any]) -> Table:
    title = f"generation once, alone: {record['M']:,} weights from {record['N']:,} parameters, and back"
    table = Table(title=title, title_justify="left")
    for column in ("generate, ms", "fold, ms", "both, ms", "of the step", "quartiles"):
        table.add_column(column, justify="right")
    for column in ("a copy of the weights, ms", "copies", "quartiles"):
        table.add_column(column, justify="right")
    (low, high), (fewer, more) = record["of_step_quartiles"], record["copies_quartiles"]
    cells = [f"{record[key]:.2f}" for key in ("generate_ms", "fold_ms", "median_ms")]
    cells += [f"{record['of_step']:.1%}", f"{low:.1%} … {high:.1%}"]
    table.add_row(*cells, f"{record['copy_ms']:.2f}", f"{record['copies']:.1f}", f"{fewer:.1f} … {more:.1f}")
    return table
