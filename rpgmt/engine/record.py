"""What is written down while a model trains: rows of metrics.csv, TensorBoard's events, and what a terminal shows."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from rpgmt.engine.run_folder import RunFolder

SECONDS_BETWEEN_LINES = 30.0


class Record:
    """The log of a run: `row` for files, `progress` and `validated` for people. Processes other than the first keep none.

    A terminal shows a bar; a file gets a line every 30 seconds, without control characters.

    Args:
        folder: of the run.
        done: steps that are done before this start; rows after them are dropped.
        total: steps of the whole run.
        silent: in processes other than the first.
    """

    def __init__(self, folder: RunFolder, done: int, total: int, *, silent: bool) -> None:
        self._first, self._total, self._silent = done, total, silent
        self._start = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if silent:
            return
        self._table = Table(folder.table, done)
        self._events = SummaryWriter(str(folder.path), purge_step=done + 1)
        console = Console()
        if console.is_terminal:
            # The text changes twice a second: drawing must not take time from short steps.
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"),
                console=console, refresh_per_second=2, transient=True,
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
        for name, value in values.items():
            if value is not None:
                self._events.add_scalar(name, value, int(place["step"]))

    def progress(self, step: int, epoch: str, loss: float) -> None:
        """Show that ``step`` steps are done."""
        text = f"step {step}/{self._total}  loss {loss:.4g}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=epoch, text=f"{text}  {self._rate(step)}")
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._line(f"{epoch}  {text}  {self._rate(step)}")

    def validated(self, step: int, epoch: str, values: Mapping[str, float | None], *, best: bool) -> None:
        """Print what a validation found."""
        text = "  ".join(f"{name} {'n/a' if v is None else format(v, '.4g')}" for name, v in values.items())
        self._line(f"{epoch}  step {step}  {text}{' (best)' if best else ''}  {self._rate(step)}")

    def _line(self, text: str) -> None:
        """Print a line that stays."""
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        elif not self._silent:
            print(text, flush=True)

    def _rate(self, step: int) -> str:
        """Return steps a second since this start, validation included, and the time left."""
        rate = (step - self._first) / max(1e-9, time.monotonic() - self._start)
        left = timedelta(seconds=round((self._total - step) / rate)) if rate else "?"
        return f"{rate:.3g} it/s  {left} left"

    def close(self) -> None:
        """End the bar, and write what is left of the events."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if not self._silent:
            self._events.close()


class Table:
    """metrics.csv: one row each time, columns as they come up, empty where there is nothing (or None).

    Args:
        path: the file.
        step: rows after this step are dropped: a run that was killed goes on from before them.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns: list[str] = []
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                # A row that a kill cut off has no step, or not all columns.
                whole = [row for row in csv.DictReader(file) if None not in row.values() and (row["step"] or "").isdigit()]
                rows = [row for row in whole if int(row["step"]) <= step]
            self.columns = list(rows[0]) if rows else []
        self._write(rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; it has a ``step``. A new column rewrites the file."""
        if new := [name for name in row if name not in self.columns]:
            with self.path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.columns += new
            self._write(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n").writerow(dict(row))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
