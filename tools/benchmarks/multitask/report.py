"""What the multi-task benchmark says: tables, CSV, JSON, Markdown."""

from __future__ import annotations

import csv
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpgmt.metrics.delta_m import delta_m
from rpgmt.tables import print_table, write_json

if TYPE_CHECKING:
    from rich.table import Table

    from rpgmt.heads import Head

Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""`metrics.json` by row and seed; `constant` has `val` alone."""
SINGLE, ALL = "single-", "single-task, all"
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


@dataclass(frozen=True)
class Row:
    """A network's figures by seed: metrics as in `metrics.json`, and the keys of `COSTS` and `DELTAS`."""

    name: str
    figures: dict[int, dict[str, float | None]]

    @property
    def of_one_task(self) -> bool:
        return self.name.startswith(SINGLE) and self.name != ALL

    def statistics(self, figure: str) -> tuple[float, float | None] | None:
        """Mean and standard deviation (n - 1) over the seeds; None for the deviation of one, None where nothing is known."""
        known = [value for of in self.figures.values() if (value := of.get(figure)) is not None]
        if not known:
            return None
        return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None


@dataclass(frozen=True)
class Grid:
    """A table of texts, of which the first `labels` columns say what the others are of."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1

    def rich(self) -> Table:
        from rich.table import Table

        table = Table(title=self.title, title_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="left" if i < self.labels else "right", no_wrap=i < self.labels)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        rule = ["---" if i < self.labels else "---:" for i in range(len(self.columns))]
        lines = [self.columns, rule, *self.rows]
        return "\n".join([f"**{self.title}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


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
        self.rows: list[Row] = []
        self.left_out: list[dict[str, Any]] = []
        singles = self._all_singles()
        self.deltas = DELTAS if singles else {}
        for name, of_seeds in runs.items():
            self.rows.append(Row(name, {seed: self._figures(name, seed, run, singles) for seed, run in of_seeds.items()}))
            if singles and name == f"{SINGLE}{list(heads)[-1]}":
                self.rows.append(Row(ALL, {seed: _flat(run) for seed, run in singles.items()}))

    def _all_singles(self) -> dict[int, dict[str, Any]]:
        """The networks of one task as if they were one, for the seeds that have all of them."""
        of_heads = [self.runs.get(f"{SINGLE}{name}", {}) for name in self.heads]
        return {
            seed: _joined([runs[seed] for runs in of_heads], self.heads)
            for seed in self.seeds
            if all(seed in runs for runs in of_heads)
        }

    def _figures(self, name: str, seed: int, run: Mapping[str, Any], singles: Mapping[int, Any]) -> dict[str, float | None]:
        figures = _flat(run)
        if seed in singles and not name.startswith(SINGLE):
            found = delta_m(run["val"], singles[seed]["val"], self.heads, name=BASELINE)
            figures |= {delta: getattr(found, delta) for delta in self.deltas}
            self.left_out += [{"row": name, "seed": seed, "metric": metric} for metric in found.left_out]
        return figures

    def grids(self) -> list[Grid]:
        """Accuracy of the last stage, costs, accuracy by stage; without single-task networks no Δm."""
        main = {f"{name}.{head.main}": head.higher[head.main] for name, head in self.heads.items()}
        shown = {metric: f"{metric} {'↑' if higher else '↓'}" for metric, higher in main.items()} | {"score": "score ↑"}
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"
        if len(self.seeds) > 1:
            seeds += ", mean ± standard deviation"
        trained = [row for row in self.rows if row.name != "constant"]
        stages = max((_stage(figure)[0] or 0 for row in trained for of in row.figures.values() for figure in of), default=0)
        accuracy = []
        for row in self.rows:  # the score of one task is no mean over tasks
            cells = ["" if metric == "score" and row.of_one_task else _cell(row, metric, ".3f") for metric in shown]
            accuracy.append([self._name(row), *cells, *(_cell(row, delta, "+.2f") for delta in self.deltas)])
        grids = [
            Grid(
                f"accuracy, {self.label}, {seeds}" + (f"; Δm against {BASELINE}" if self.deltas else ""),
                ["network", *shown.values(), *self.deltas.values()],
                accuracy,
            ),
            Grid(
                f"cost; {NOTE}",
                ["network", *COSTS.values()],
                [[self._name(row), *(_cell(row, cost, ",.0f", spread=False) for cost in COSTS)] for row in trained],
            ),
            Grid(
                f"accuracy by stage, {seeds}",
                ["metric", "network", *(f"stage {k}" for k in range(1, stages + 1))],
                [
                    [column, self._name(row), *(_cell(row, f"stage_{k}/{metric}", ".3f") for k in range(1, stages + 1))]
                    for metric, column in shown.items()
                    for row in trained
                    if not row.of_one_task
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

        with (out / "benchmark.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("row", "seed", "stage", "metric", "value"))
            for row in self.rows:
                for seed, figures in row.figures.items():
                    writer.writerows((row.name, seed, *_stage(figure), value) for figure, value in figures.items())
        text = "\n\n".join([*(grid.markdown() for grid in self.grids()), *self.notes()])
        (out / "table.md").write_text(text + "\n", encoding="utf-8")
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
        networks = [row for row in self.rows if not row.name.startswith(SINGLE) and row.statistics("parameters.trainable")]
        baseline = next((row for row in self.rows if row.name == ALL), None)
        draw(networks, baseline, self.heads, self.label, out / "benchmark.png")
        print(f"written: {', '.join(str(out / name) for name in ('benchmark.csv', 'table.md', 'benchmark.png'))}")
        for path in (out / "benchmark.json", also):
            if path:
                write_json(path, record)

    def _name(self, row: Row) -> str:
        missing = len(row.figures) < len(self.seeds)
        return f"{row.name} ({len(row.figures)} of {len(self.seeds)} seeds)" if missing else row.name


def _cell(row: Row, figure: str, form: str, *, spread: bool = True) -> str:
    found = row.statistics(figure)
    if found is None:
        return ""
    mean, deviation = found
    return f"{mean:{form}} ± {deviation:{form.lstrip('+')}}" if deviation and spread else format(mean, form)


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


def _all_statistics(row: Row) -> dict[str, Any]:
    names = dict.fromkeys(name for figures in row.figures.values() for name in figures)
    found = {name: row.statistics(name) for name in names}
    return {name: None if value is None else {"mean": value[0], "std": value[1]} for name, value in found.items()}
