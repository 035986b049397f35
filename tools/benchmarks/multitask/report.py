"""What the multi-task benchmark says: tables, CSV, JSON, Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpgmt.metrics.delta_m import delta_m
from rpgmt.tables import print_table
from tools.benchmarks.common import files
from tools.benchmarks.common.figures import Figures, seeds_label
from tools.benchmarks.common.grid import Grid
from tools.benchmarks.multitask.networks import CONSTANT, PREFIX

if TYPE_CHECKING:
    from rpgmt.heads import Head

Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""`metrics.json` by row and seed; `constant` has `val` alone."""
ALL = "single-task, all"
BASELINE = "the single-task networks of the same seed"
NOTE = "Sharing saves stored and trained parameters, not MACs."
DELTAS = {
    "delta_metrics": "Δm over metrics, %, lower is better",
    "delta_tasks": "Δm over tasks, %, higher is better",
    "delta_main": "Δm of main metrics, %, higher is better",
}
COSTS = {
    "parameters.bank": "bank N",
    "parameters.generated": "generated M",
    "parameters.fixed": "fixed",
    "parameters.trainable": "trainable",
    "bytes": "bytes of the model file",
    "macs": "MACs",
    "seconds": "seconds of training",
}


class Report:
    """The comparison of all networks.

    Args:
        label: what is measured on what, after what training.
        seeds: those that were asked for.
        heads: the tasks.
        runs: results; networks of one task are called `single-HEAD`.
    """

    def __init__(self, label: str, seeds: Sequence[int], heads: Mapping[str, Head], runs: Runs) -> None:
        self.label, self.seeds, self.heads, self.runs = label, seeds, heads, runs
        self.rows: list[Figures] = []
        self.left_out: list[dict[str, Any]] = []
        singles = self._all_singles()
        self.deltas = DELTAS if singles else {}
        for name, of_seeds in runs.items():
            self.rows.append(Figures(name, {seed: self._figures(name, seed, run, singles) for seed, run in of_seeds.items()}))
            if singles and name == f"{PREFIX}{list(heads)[-1]}":
                self.rows.append(Figures(ALL, {seed: _flat(run) for seed, run in singles.items()}))

    def _all_singles(self) -> dict[int, dict[str, Any]]:
        """The networks of one task as if they were one, for the seeds that have all of them."""
        of_heads = [self.runs.get(f"{PREFIX}{name}", {}) for name in self.heads]
        return {
            seed: _joined([runs[seed] for runs in of_heads], self.heads)
            for seed in self.seeds
            if all(seed in runs for runs in of_heads)
        }

    def _figures(self, name: str, seed: int, run: Mapping[str, Any], singles: Mapping[int, Any]) -> dict[str, float | None]:
        figures = _flat(run)
        if seed in singles and not name.startswith(PREFIX):
            found = delta_m(run["val"], singles[seed]["val"], self.heads, name=BASELINE)
            figures |= {delta: getattr(found, delta) for delta in self.deltas}
            self.left_out += [{"row": name, "seed": seed, "metric": metric} for metric in found.left_out]
        return figures

    def grids(self) -> list[Grid]:
        """Accuracy of the last stage, costs, accuracy by stage; without single-task networks no Δm."""
        main = {f"{name}.{head.main}": head.higher[head.main] for name, head in self.heads.items()}
        shown = {metric: f"{metric} {'↑' if higher else '↓'}" for metric, higher in main.items()} | {"score": "score ↑"}
        seeds = seeds_label(self.seeds)
        trained = [row for row in self.rows if row.name != CONSTANT]
        stages = max((_stage(figure)[0] or 0 for row in trained for of in row.figures.values() for figure in of), default=0)
        accuracy = []
        for row in self.rows:  # the score of one task is no mean over tasks
            cells = ["" if metric == "score" and _of_one_task(row) else row.cell(metric, ".3f") for metric in shown]
            accuracy.append([row.label(self.seeds), *cells, *(row.cell(delta, "+.2f") for delta in self.deltas)])
        grids = [
            Grid(
                f"accuracy, {self.label}, {seeds}" + (f"; Δm against {BASELINE}" if self.deltas else ""),
                ["network", *shown.values(), *self.deltas.values()],
                accuracy,
            ),
            Grid(
                f"cost; {NOTE}",
                ["network", *COSTS.values()],
                [[row.label(self.seeds), *(row.cell(cost, ",.0f", spread=False) for cost in COSTS)] for row in trained],
            ),
            Grid(
                f"accuracy by stage, {seeds}",
                ["metric", "network", *(f"stage {k}" for k in range(1, stages + 1))],
                [
                    [column, row.label(self.seeds), *(row.cell(f"stage_{k}/{metric}", ".3f") for k in range(1, stages + 1))]
                    for metric, column in shown.items()
                    for row in trained
                    if not _of_one_task(row)
                ],
                labels=2,
            ),
        ]
        return [grid for grid in grids if grid.rows]

    def notes(self) -> list[str]:
        """What is to be said beside the tables."""
        rows: dict[tuple[str, int], list[str]] = {}
        for entry in self.left_out:
            rows.setdefault((entry["metric"], entry["seed"]), []).append(entry["row"])
        left_out: dict[str, list[str]] = {}
        for (metric, seed), names in rows.items():
            left_out.setdefault(", ".join(names), []).append(f"{metric} (seed {seed})")
        lines = [f"Left out of Δm of {of}, not known or 0 in the baseline: {', '.join(what)}." for of, what in left_out.items()]
        return [NOTE, *lines]

    def print(self) -> None:
        """Prints the tables."""
        for grid in self.grids():
            print_table(grid.rich())
        print("\n".join(self.notes()))

    def write(self, out: Path, about: Mapping[str, Any], also: Path | None = None) -> None:
        """Writes benchmark.csv, benchmark.json, table.md and benchmark.png.

        Args:
            out: the folder.
            about: what else the JSON holds.
            also: another path for the JSON.
        """
        from tools.benchmarks.multitask.figure import draw

        lines = (
            (row.name, seed, *_stage(figure), value)
            for row in self.rows
            for seed, figures in row.figures.items()
            for figure, value in figures.items()
        )
        paragraphs = [*(grid.markdown() for grid in self.grids()), *self.notes()]
        record = {
            "label": self.label,
            "seeds": list(self.seeds),
            "baseline": BASELINE if self.deltas else None,
            "deltas": self.deltas,
            "notes": self.notes(),
            "left_out": self.left_out,
            **about,
            "rows": [dataclasses.asdict(row) | {"statistics": _all_statistics(row)} for row in self.rows],
        }
        networks = [row for row in self.rows if not row.name.startswith(PREFIX) and row.statistics("parameters.trainable")]
        baseline = next((row for row in self.rows if row.name == ALL), None)

        def picture(path: Path) -> None:
            draw(networks, baseline, self.heads, self.label, path)

        files.write(out, ("row", "seed", "stage", "metric", "value"), lines, paragraphs, record, picture, also)


def _of_one_task(row: Figures) -> bool:
    return row.name.startswith(PREFIX) and row.name != ALL


def _flat(run: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of a `metrics.json`."""
    figures = dict(run["val"])
    if "parameters" in run:
        figures |= {f"parameters.{name}": value for name, value in run["parameters"].items()}
        figures |= {"bytes": run["bytes"]["model_file"], "macs": run["macs"], "seconds": run["seconds"]}
    return figures


def _joined(runs: Sequence[Mapping[str, Any]], heads: Mapping[str, Head]) -> dict[str, Any]:
    """Several networks of one task each, in the form of one's `metrics.json`: their metrics, and their costs added."""
    val = {name: value for run in runs for name, value in run["val"].items()}
    for name in [name for name in val if _stage(name)[1] == "score"]:
        stage = name.removesuffix("score")
        known = [value for task, head in heads.items() if (value := val[f"{stage}{task}.{head.score}"]) is not None]
        val[name] = sum(known) / len(known) if known else None
    return {
        "val": val,
        "parameters": {name: sum(run["parameters"][name] for run in runs) for name in runs[0]["parameters"]},
        "bytes": {"model_file": sum(run["bytes"]["model_file"] for run in runs)},
        "macs": sum(run["macs"] for run in runs),
        "seconds": sum(run["seconds"] for run in runs),
    }


def _stage(figure: str) -> tuple[int | None, str]:
    """ "stage_2/depth.abs" -> (2, "depth.abs"); (None, …) for what is of the whole network or of its last stage."""
    stage, slash, name = figure.rpartition("/")
    return (int(stage.removeprefix("stage_")), name) if slash else (None, figure)


def _all_statistics(row: Figures) -> dict[str, Any]:
    names = dict.fromkeys(name for figures in row.figures.values() for name in figures)
    found = {name: row.statistics(name) for name in names}
    return {name: None if value is None else {"mean": value[0], "std": value[1]} for name, value in found.items()}
