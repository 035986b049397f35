"""What the classification benchmark says: tables, claims, CSV, JSON, Markdown, figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rpgmt.tables import print_table
from tools.benchmarks.classification.claims import Claim, Claims
from tools.benchmarks.classification.inference_time import BATCH
from tools.benchmarks.classification.rows import EQUILIBRIUM, PRUNED, QUANTIZED, Row, Sizes
from tools.benchmarks.common import files
from tools.benchmarks.common.figures import Figures, seeds_label
from tools.benchmarks.common.grid import Grid

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""Figures by row and seed."""
NOTES = (
    "Sharing weights saves stored and trained parameters, not MACs. Zeros of pruned weights are counted as MACs and bytes: "
    "nothing here skips them; networks with fewer channels have fewer of both.",
    f"Time is of a batch of {BATCH} on one thread of a CPU, weights generated before, in the better of two memory formats.",
)
COLUMNS = {
    "top1": ("top-1 %", ".2f", 100),
    "top5": ("top-5 %", ".2f", 100),
    "bank": ("bank N", ",.0f", 1),
    "generated": ("generated M", ",.0f", 1),
    "fixed": ("fixed", ",.0f", 1),
    "remaining": ("trainable", ",.0f", 1),
    "bytes": ("bytes", ",.0f", 1),
    "macs": ("MACs", ",.0f", 1),
    "ms": ("ms/image", ".3f", 1),
}


class Report:
    """The comparison.

    Args:
        label: what accuracy is over.
        seeds: those that were asked for.
        rows: what was planned.
        results: what was measured.
        failed: (row, seed) → why.
        sizes: of the banks.
        images: of the validation set.
    """

    def __init__(
        self,
        label: str,
        seeds: Sequence[int],
        rows: Sequence[Row],
        results: Results,
        failed: Mapping[tuple[str, int], str],
        sizes: Sizes,
        images: int,
    ) -> None:
        self.label, self.seeds, self.rows, self.failed = label, seeds, rows, failed
        names = [row.name for row in rows if row.name in results]
        self.figures = {name: Figures(name, {seed: dict(of) for seed, of in results[name].items()}) for name in names}
        self.claims = Claims(rows, self.figures, sizes, len(seeds), images)

    def grid(self) -> Grid:
        """One line a network; trainable parameters are those that remain after pruning."""
        lines = []
        for own in self.figures.values():
            cells = [own.cell(figure, form, factor) for figure, (_, form, factor) in COLUMNS.items()]
            times = [_and_before(own, "seconds", ",.0f"), _and_before(own, "epochs", "g")]
            lines.append([own.label(self.seeds), *cells, *times])
        heads = [head for head, _, _ in COLUMNS.values()]
        return Grid(f"{self.label}, {seeds_label(self.seeds)}", ["network", *heads, "seconds", "epochs"], lines)

    def notes(self) -> list[str]:
        """What the tables do not say by themselves."""
        notes = list(NOTES)
        families = {row.family for row in self.rows if row.name in self.figures}
        equilibrium = next((row.name for row in self.rows if row.family == EQUILIBRIUM and row.name in self.figures), None)
        if equilibrium:
            evaluations, residual = (self.figures[equilibrium].statistics(f) for f in ("function_evaluations", "residual"))
            assert evaluations is not None
            assert residual is not None
            notes.append(
                f"The equilibrium network has a recipe and epochs of its own. For the {BATCH} images of the timing its solver "
                f"evaluated the block {evaluations[0]:g} times and left a relative error of {residual[0]:.2g}. MACs are those "
                "of the most evaluations that it may make."
            )
        if families & {*PRUNED}:
            notes.append("Pruned networks have as many parameters left as the generated one of the middle size, or just fewer.")
        if families & {*QUANTIZED}:
            notes.append(
                "Quantised networks are the generated one, its bank rounded, not trained; bytes are of the packed file."
            )
        if len(self.seeds) < 3:
            notes.append(f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}: differences may be chance.")
        return notes

    def print(self) -> None:
        print_table(self.grid().rich())
        for line in [*self.notes(), *map(str, self.claims.all()), *self._failures()]:
            print(line)

    def write(self, out: Path, about: Mapping[str, Any], also: Path | None = None) -> None:
        """Writes benchmark.csv, benchmark.json, table.md and benchmark.png.

        Args:
            out: the folder.
            about: what else the JSON holds.
            also: another path for the JSON.
        """
        from tools.benchmarks.classification.figure import draw

        columns = list(dict.fromkeys(key for own in self.figures.values() for of in own.figures.values() for key in of))
        lines = (
            (name, seed, *(of.get(key) for key in columns))
            for name, own in self.figures.items()
            for seed, of in own.figures.items()
        )
        claims = self.claims.all()
        parts = [self.grid().markdown(), *self.notes()]
        parts.append("\n".join(["| claim | answer | figures |", "| --- | --- | --- |", *map(_line, claims)]))
        parts += self._failures()
        record = {
            "label": self.label,
            "seeds": list(self.seeds),
            "notes": self.notes(),
            "claims": [dataclasses.asdict(claim) for claim in claims],
            **about,
            "failed": [{"row": name, "seed": seed, "reason": reason} for (name, seed), reason in self.failed.items()],
            "rows": [{"name": name, "figures": own.figures} for name, own in self.figures.items()],
        }

        def picture(path: Path) -> None:
            draw(self.rows, self.figures, self.claims.fit(), f"{self.label}, {self.claims.seeds}", path)

        files.write(out, ("row", "seed", *columns), lines, parts, record, picture if self.figures else None, also)

    def _failures(self) -> list[str]:
        return [f"failed: {name}, seed {seed}: {reason}" for (name, seed), reason in self.failed.items()]


def _and_before(own: Figures, figure: str, form: str) -> str:
    """`200 + 40`: of the network that it starts from, and its own."""
    found, before = (own.statistics(name) for name in (figure, f"{figure}_before"))
    assert found is not None
    return f"{before[0]:{form}} + {found[0]:{form}}" if before else format(found[0], form)


def _line(claim: Claim) -> str:
    return f"| {claim.text} | {claim.answer} | {claim.figures} |"
