"""How far training is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

SECONDS_BETWEEN_LINES = 30.0


class ProgressDisplay:
    """Shows steps, loss, rate and time left.

    A terminal shows a bar; a file gets a line every 30 seconds, without control characters.

    Args:
        total: steps of the whole run.
        done: steps that are done before this start.
        silent: show nothing (processes other than the first).
    """

    def __init__(self, total: int, done: int, *, silent: bool = False) -> None:
        self.total, self.first, self.silent = total, done, silent
        self._start = self._last_line = time.monotonic()
        console = Console()
        self._bar: Progress | None = None
        if console.is_terminal and not silent:
            # The text changes twice a second: drawing must not take time from short steps.
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"),
                console=console, refresh_per_second=2, transient=True,
            )  # fmt: skip
            self._row = self._bar.add_task("train", total=total, completed=done, text="")
            self._bar.start()

    def update(self, step: int, epoch: str, loss: float) -> None:
        """Show that ``step`` steps are done."""
        if self.silent:
            return
        if self._bar is not None:
            self._bar.update(self._row, completed=step, description=epoch, text=self._text(step, loss))
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self.line(f"{epoch}  {self._text(step, loss)}")

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._last_line = time.monotonic()
        if not self.silent:
            if self._bar is not None:
                self._bar.console.print(text, highlight=False, markup=False)
            else:
                print(text, flush=True)

    def rate(self, step: int) -> str:
        """Return steps a second since this start, validation included, and the time left."""
        rate = (step - self.first) / max(1e-9, time.monotonic() - self._start)
        left = timedelta(seconds=round((self.total - step) / rate)) if rate else "?"
        return f"{rate:.3g} it/s  {left} left"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _text(self, step: int, loss: float) -> str:
        return f"step {step}/{self.total}  loss {loss:.4g}  {self.rate(step)}"
