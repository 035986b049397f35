"""What is written down while a model trains: rows of metrics.csv, TensorBoard's events, and what a terminal shows."""

from __future__ import annotations

import csv
import math
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rpgmt.engine.events import Events
from rpgmt.engine.run_folder import RunFolder
from rpgmt.whole_files import whole_file, write_bytes, writing

_STEP = re.compile("[0-9]{1,15}")

SECONDS_BETWEEN_LINES = 30.0
SHORTEST_BAR = 6
"""Cells of a terminal, with the spaces beside it."""


class Record:
    """The log of a run: `row` for files, `progress` and `validated` for people. Processes other than the first keep none.

    A terminal shows a bar; a file gets a line every 30 seconds, without control characters.

    Args:
        folder: of the run.
        done: steps that are done before this start.
        kept: the last step whose row stays, if there is one; those after it are dropped, they come again.
        total: steps of the whole run.
        silent: in processes other than the first.

    Raises:
        UserError: a file cannot be written; so says `row`.
    """

    def __init__(self, folder: RunFolder, done: int, kept: int, total: int, *, silent: bool) -> None:
        self._first, self._total, self._silent = done, total, silent
        self._start = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        self._measured = ""
        if silent:
            return
        self._table = Table(folder.table, kept)
        self._events = Events(folder.path, kept + 1)
        console = Console()
        if console.is_terminal:
            # The text changes twice a second: drawing must not take time from short steps.
            # The bar has what room is left: all is one line.
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[text]}"),
                console=console, refresh_per_second=2, transient=True, expand=True,
            )  # fmt: skip
            self._task = self._bar.add_task("train", total=total, completed=done, text="")
            self._bar.start()

    def row(self, place: Mapping[str, float], values: Mapping[str, float | None]) -> None:
        """Add a row to metrics.csv, and the same to TensorBoard's events.

        Figures of single key points or classes, `PCK@0.2:left_ankle`, are in metrics.json alone: no hundreds of curves.

        Args:
            place: epoch, step and seconds.
            values: None where there is none.
        """
        if self._silent:
            return
        values = {name: value for name, value in values.items() if ":" not in name}
        self._table.add({**place, **values})
        self._events.add({name: value for name, value in values.items() if value is not None}, int(place["step"]))

    def progress(self, step: int, epoch: str, loss: float) -> None:
        """Show that ``step`` steps are done."""
        count, rate, left = f"{step}/{self._total}", *self._speed(step)
        if self._bar is not None:
            text = _join(count, f"loss {loss:.3g}", self._measured, rate, left, width=80 - len(epoch) - SHORTEST_BAR)
            self._bar.update(self._task, completed=step, description=epoch, text=text)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._line(epoch, f"step {count}", f"loss {loss:.3g}", self._measured, rate, left)

    def measured(self, metric: str, score: float | None) -> None:
        """Tell the main metric of the last validation, for the lines of progress to show."""
        self._measured = f"{metric} {_figure(score, '.3f')}"

    def validated(
        self, step: int, epoch: str, losses: Sequence[float | None], metric: str, score: float | None, *, best: bool
    ) -> None:
        """Print what a validation found.

        Args:
            step, epoch: where it was.
            losses: of training since the row before, and of validation.
            metric: the main one, by name.
            score: its value.
            best: whether it is the best so far.
        """
        self.measured(metric, score)
        loss, val = (_figure(value, ".3g") for value in losses)
        word = "best" if best else ""
        self._line(epoch, f"step {step}", f"loss {loss}", f"val {val}", self._measured, word, self._speed(step)[1])

    def _line(self, *parts: str) -> None:
        """Print a line that stays."""
        text = _join(*parts)
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        elif not self._silent:
            print(text, flush=True)

    def _speed(self, step: int) -> tuple[str, str]:
        """Return steps a second since this start, validation included, and the time left."""
        rate = (step - self._first) / max(1e-9, time.monotonic() - self._start)
        left = timedelta(seconds=round((self._total - step) / rate)) if rate else "?"
        return f"{rate:.3g} it/s", f"{left} left"

    def close(self) -> None:
        """End the bar, and the file of events."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if not self._silent:
            self._events.close()


def _join(*parts: str, width: int = 80) -> str:
    """The parts that there are on one line, closer together where they would not have room."""
    parts = tuple(part for part in parts if part)
    wide = "  ".join(parts)
    return wide if len(wide) <= width else " ".join(parts)


def _figure(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


class Table:
    """metrics.csv: one row each time, columns as they come up, empty where there is nothing (or None).

    Args:
        path: the file.
        step: rows after this step are dropped: a run that was killed goes on from before them.

    Raises:
        UserError: it cannot be written; so says `add`.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns: list[str] = []
        rows = _rows_until(path, step) if path.exists() else []
        self.columns = list(rows[0]) if rows else []
        self._write(rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; it has a ``step``. A new column rewrites the file."""
        if new := [name for name in row if name not in self.columns]:
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.columns += new
            self._write(rows)
        with writing(self.path), self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(dict(row))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with whole_file(self.path, durable=False) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _rows_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The rows up to a step. Of a table with lines that are no rows of numbers a copy is kept, which a warning says."""
    data = path.read_bytes()
    lines = data.decode(errors="replace").splitlines(keepends=True)
    whole = lines if not lines or lines[-1].endswith("\n") else lines[:-1]  # the last one may have been cut off
    rows, damaged = [], False
    try:
        for row in csv.DictReader(whole):
            known = _STEP.fullmatch(row.get("step") or "")
            if known and int(known[0]) > step:  # comes again
                continue
            if known and None not in row and all(map(_is_number, row.values())):
                rows.append(row)
            else:
                damaged = True
    except csv.Error:
        damaged = True
    if damaged:
        kept = path.with_name(f"{path.name}.damaged")
        write_bytes(kept, data)
        text = f"{path} has lines that are no rows of numbers: it is kept as {kept.name}, and goes on without them"
        warnings.warn(text, stacklevel=3)
    return rows


def _is_number(cell: str | None) -> bool:
    try:
        return cell is not None and (cell == "" or (len(cell) < 100 and math.isfinite(float(cell))))
    except ValueError:
        return False
