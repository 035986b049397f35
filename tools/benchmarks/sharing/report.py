"""What the comparison of sharing says: tables, CSV, JSON, Markdown, figure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rpgmt.tables import print_table
from tools.benchmarks.common import files
from tools.benchmarks.common.figures import Figures, seeds_label
from tools.benchmarks.common.grid import Grid
from tools.benchmarks.sharing.intervals import Difference, Estimate, closed, difference, exponent, paired_seeds, worth
from tools.benchmarks.sharing.rows import NARROW, NONE, TIED, size_label
from tools.benchmarks.sharing.store import Store, StoredRow

REFERENCES = (TIED, NARROW, NONE)
"""Kinds that the other rows of the same stages and size are compared with."""
NOTES = (
    "Stored numbers are trained ones: bank + fixed (norms, biases, trunk, heads, factors of a low rank); 32 learned signs "
    "count as one. A narrower or wider network has the width whose number is nearest to the generated network's. Bytes are "
    "of the model file, and of its tensors without their names; of rounded networks, of one whose bank, magnitudes "
    "or stages' convolutions have so many bits and all else 32. Sharing saves no MACs.",
    "Differences are paired by seed: same samples, same order. ± is half of the 95 % interval for other seeds (Student's t of "
    "the differences); in brackets that for other images of the set, with these networks (bootstrap over images, all people of "
    "an image together).",
    "Worth: independent stages with the same score, between whole numbers interpolated; at the ends of the ruler it is no less "
    "than 1 and no more than T. The exponent is log(worth) / log(T). Distance: part of the way from tied to independent. Their "
    "intervals are of a bootstrap over seeds and images together, too narrow for fewer than five seeds.",
)


class Report:
    """The comparison, as far as it is stored.

    Args:
        store: what is there.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.monitor = store, str(store.about["monitor"])
        self.rows = [row for row in store.rows.values() if row.results]
        self.figures = {row.name: Figures(row.name, {seed: _flat(row, seed) for seed in row.results}) for row in self.rows}
        self.differences = {row.name: self._differences(row) for row in self.rows}
        self.estimates = {row.name: self._estimates(row) for row in self.rows}

    def reference(self, kind: str, row: StoredRow) -> StoredRow | None:
        """The row of a kind that a row is compared with: at its size and its stages."""
        name = f"{NONE}-t{row.stages}" if kind == NONE else f"{kind}-{size_label(row.size)}-t{row.stages}" if row.size else ""
        found = self.store.rows.get(name)
        return found if found is not None and found.results and found is not row else None

    def _differences(self, row: StoredRow) -> dict[str, Difference]:
        others = {kind: self.reference(kind, row) for kind in REFERENCES}
        found = {kind: difference(row.results, other.results) for kind, other in others.items() if other}
        return {kind: value for kind, value in found.items() if value}

    def _estimates(self, row: StoredRow) -> dict[str, Estimate]:
        if row.kind == NONE and row.bits is None:
            return {}
        steps = [self.store.rows.get(f"{NONE}-t{count}") for count in range(1, row.stages + 1)]
        found: dict[str, Estimate | None] = {}
        if row.stages > 1 and all(step is not None and step.results for step in steps):
            found["worth"] = worth(row.results, {step.stages: step.results for step in steps if step})
            found["exponent"] = exponent(found["worth"], row.stages) if found["worth"] else None
        tied, none = self.reference(TIED, row), self.reference(NONE, row)
        if tied and none:
            found["closed"] = closed(row.results, tied.results, none.results)
        return {name: value for name, value in found.items() if value}

    @property
    def seeds(self) -> list[int]:
        """All that were asked for."""
        return list(dict.fromkeys(seed for row in self.store.rows.values() for seed in row.seeds))

    @property
    def missing(self) -> dict[str, list[int]]:
        """Rows that were asked for, with the seeds that are not there."""
        return {row.name: row.missing for row in self.store.rows.values() if row.missing}

    def label(self) -> str:
        about = self.store.about
        config = about["config"]
        taught = f", taught by {config['teacher']} ({config['teacher_weight']:g})" if config.get("teacher") else ""
        return f"{about['measured_on']}, {about['epochs']} epochs of {about['train_samples']:,} samples{taught}"

    def grids(self) -> list[Grid]:
        """Accuracy, cost, differences, worth, by stage, course of training, choice of the rates."""
        grids = [
            self._accuracy(),
            self._costs(),
            self._compared(),
            self._worth(),
            self._stages(),
            self._courses(),
            self._rates(),
        ]
        return [grid for grid in grids if grid.rows]

    def _label(self, row: StoredRow) -> str:
        return self.figures[row.name].label(row.seeds)

    def _accuracy(self) -> Grid:
        mains = self.rows[0].results[next(iter(self.rows[0].results))].record["mains"] if self.rows else {}
        shown = {self.monitor: True, **mains}
        names = [f"{metric}{'' if higher else ' ↓'}" for metric, higher in shown.items()]
        lines = []
        for row in self.rows:
            own = self.figures[row.name]  # errors in their own unit
            cells = [_percent(own, metric) if higher else own.cell(metric, ".3f") for metric, higher in shown.items()]
            lines.append([self._label(row), *cells, f"{_rate(row):g}"])
        return Grid(f"accuracy × 100, {self.label()}, {seeds_label(self.seeds)}", ["network", *names, "rate"], lines)

    def _costs(self) -> Grid:
        columns = {"stored numbers": "parameters.trainable", "bank N": "parameters.bank", "generated M": "parameters.generated"}
        columns |= {"bytes": "bytes", "of tensors": "tensor_bytes", "MACs": "macs", "seconds": "seconds"}
        lines = [
            [row.name, str(row.channels), *(self.figures[row.name].cell(of, ",.0f", spread=False) for of in columns.values())]
            for row in self.rows
        ]
        return Grid("cost", ["network", "channels", *columns], lines)

    def _compared(self) -> Grid:
        lines = []
        for row in self.rows:
            found = self.differences[row.name]
            if found:
                seeds = {len(value.seeds) for value in found.values()}
                cells = [_points(found[kind]) if kind in found else "" for kind in REFERENCES]
                lines.append([row.name, *cells, "/".join(map(str, sorted(seeds)))])
        title = f"differences of {self.monitor} × 100, last stage: ± other seeds (other images)"
        return Grid(title, ["network less", *REFERENCES, "seeds"], lines)

    def _worth(self) -> Grid:
        lines = [
            [
                row.name,
                *(
                    _interval(found.get(name), form)
                    for name, form in (("worth", ".2f"), ("exponent", ".2f"), ("closed", ".0%"))
                ),
            ]
            for row in self.rows
            if (found := self.estimates[row.name])
        ]
        return Grid("worth in independent stages", ["network", "worth", "exponent", "distance"], lines)

    def _bytes(self) -> Grid:
        """Where some are rounded, all by bytes: of neighbours the more accurate one is the better one."""
        rows = self.rows if any(row.bits for row in self.rows) else []
        in_order = sorted((self.figures[row.name] for row in rows), key=lambda own: own.mean("bytes"))
        lines = [[own.name, own.cell("bytes", ",.0f", spread=False), _percent(own, self.monitor)] for own in in_order]
        return Grid(f"{self.monitor} × 100 by bytes of the model file", ["network", "bytes", self.monitor], lines)

    def _stages(self) -> Grid:
        stages = range(1, 1 + max((row.stages for row in self.rows), default=0))
        lines = [
            [row.name, *(_percent(self.figures[row.name], f"stage_{k}/{self.monitor}") for k in stages)]
            for row in self.rows
            if row.bits is None
        ]
        return Grid(f"{self.monitor} × 100 by stage", ["network", *(f"stage {k}" for k in stages)], lines)

    def _courses(self) -> Grid:
        parts = (0.25, 0.5, 0.75, 1.0)
        lines = []
        for row in [row for row in self.rows if row.bits is None]:
            courses = [result.course for result in row.results.values()]
            means = [_mean([value for course in courses if (value := at(course, part)) is not None]) for part in parts]
            gain = "" if means[-2] is None or means[-1] is None else f"{100 * (means[-1] - means[-2]):+.1f}"
            lines.append([row.name, *("" if value is None else f"{100 * value:.1f}" for value in means), gain])
        heads = [f"{part:.0%}" for part in parts]
        return Grid(
            f"{self.monitor} × 100 on held-out images after so many of the epochs", ["network", *heads, "last quarter"], lines
        )

    def _rates(self) -> Grid:
        rates = sorted({rate for row in self.store.rows.values() for rate in row.tried})
        lines = []
        for row in self.store.rows.values():
            if row.tried and row.bits is None:
                cells = ["" if (score := row.tried.get(rate)) is None else f"{100 * score:.1f}" for rate in rates]
                lines.append([row.name, *cells, f"{_rate(row):g}" if row.results else "not yet"])
        return Grid(
            f"{self.monitor} × 100 on held-out images by learning rate",
            ["network", *(f"{rate:g}" for rate in rates), "chosen"],
            lines,
        )

    def notes(self) -> list[str]:
        """What is to be said beside the tables, that the grid was cut short first."""
        lines = []
        if self.missing:
            count, all_ = sum(map(len, self.missing.values())), sum(len(row.seeds) for row in self.store.rows.values())
            rows = "; ".join(
                f"{name}: seed{'s' * (len(of) > 1)} {', '.join(map(str, of))}" for name, of in self.missing.items()
            )
            lines.append(f"CUT SHORT: {count} of {all_} networks are not there yet ({rows}). {self._way_on()}")
        lines += NOTES
        at_end = [
            row.name for row in self.rows if row.bits is None and row.tried and _rate(row) in (min(row.tried), max(row.tried))
        ]
        if at_end:
            lines.append(f"The best rate is the lowest or the highest that was tried of {', '.join(at_end)}.")
        unpaired = [
            f"{row.name} and {other.name}"
            for row in self.rows
            for kind in REFERENCES
            if (other := self.reference(kind, row))
            and len(paired_seeds(row.results, other.results)) < len(row.results.keys() & other.results)
        ]
        if unpaired:
            lines.append(f"Not paired, as their samples, their order or their draws differ: {', '.join(unpaired)}.")
        return lines

    def _way_on(self) -> str:
        commands = self.store.commands_to_go_on()
        if len(self.store.commands) < 2 or not commands:
            return "The same command goes on."
        return f"This goes on: {'; '.join(f'`{command}`' for command in commands)}."

    def print(self) -> None:
        for grid in self.grids():
            print_table(grid.rich())
        print("\n".join(self.notes()))

    def write(self, also: Path | None = None) -> None:
        """Writes benchmark.csv, benchmark.json, table.md and benchmark.png into the folder, and the JSON also elsewhere."""
        from tools.benchmarks.sharing.figure import draw

        lines = (
            (row.name, seed, row.results[seed].rate, *_split(figure), value)
            for row in self.rows
            for seed, of in self.figures[row.name].figures.items()
            for figure, value in of.items()
        )
        paragraphs = [self.notes()[0]] if self.missing else []
        paragraphs += [*(grid.markdown() for grid in self.grids()), *self.notes()[len(paragraphs) :]]

        def picture(path: Path) -> None:
            draw(self, path)

        out, header = self.store.out, ("row", "seed", "rate", "stage", "metric", "value")
        files.write(out, header, lines, paragraphs, self.record(), picture if self.rows else None, also)

    def record(self) -> dict[str, Any]:
        """All of it, for the JSON."""
        return {
            **self.store.about,
            "complete": not self.missing,
            "missing": self.missing,
            "seeds": self.seeds,
            "notes": self.notes(),
            "rows": [
                {
                    **{key: getattr(row, key) for key in ("name", "kind", "stages", "size", "bits", "channels", "parameters")},
                    "rate": _rate(row),
                    "tried": {f"{rate:g}": score for rate, score in row.tried.items()},
                    "figures": self.figures[row.name].figures,
                    "differences": {kind: _finite(dataclasses.asdict(of)) for kind, of in self.differences[row.name].items()},
                    "estimates": {name: _finite(dataclasses.asdict(of)) for name, of in self.estimates[row.name].items()},
                    "course": {seed: result.course for seed, result in row.results.items()},
                }
                for row in self.rows
            ],
        }


def _flat(row: StoredRow, seed: int) -> dict[str, float | None]:
    """The figures of a result by name."""
    result = row.results[seed]
    figures = dict(result.record["val"])
    figures |= {f"parameters.{name}": value for name, value in result.record["parameters"].items()}
    costs = {name: result.record[name] for name in ("bytes", "tensor_bytes", "macs")}
    return figures | costs | {"seconds": result.seconds}


def _rate(row: StoredRow) -> float:
    return next(iter(row.results.values())).rate


def _percent(figures: Figures, figure: str) -> str:
    return figures.cell(figure, ".2f", 100)


def _points(found: Difference) -> str:
    """`+0.53 ± 0.80 (0.90)`."""
    seeds = "" if found.half is None else f" ± {100 * found.half:.2f}"
    return f"{100 * found.mean:+.2f}{seeds} ({100 * found.images:.2f})"


def _interval(found: Estimate | None, form: str) -> str:
    """`1.93 [1.20, 2.60]`."""
    if found is None:
        return ""
    low, high = (format(value, form) if math.isfinite(value) else "?" for value in (found.low, found.high))
    return f"{found.value:{form}} [{low}, {high}]"


def at(course: Mapping[float, float], part: float) -> float | None:
    """The score after a part of the epochs, at the last validation until then; None if that is over a tenth of them earlier."""
    end = max(course, default=0.0)
    until = [epoch for epoch in course if epoch <= part * end + 1e-6]
    return course[max(until)] if until and max(until) >= (part - 0.1) * end - 1e-6 else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _split(figure: str) -> tuple[int | None, str]:
    """`stage_2/AP` → (2, "AP")."""
    stage, slash, name = figure.rpartition("/")
    return (int(stage.removeprefix("stage_")), name) if slash else (None, figure)


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON can hold: None for numbers that are not known."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}
