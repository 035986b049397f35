"""What is said while a prediction runs: notes on standard error, the progress on a terminal, and the last line."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any


def printable(name: str) -> str:
    """A name that may hold anything, on one line."""
    whole = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in whole)


class Notes:
    """Counts what is done, and says what goes wrong, one line each.

    Attributes:
        skipped: how many sources were left out, or not finished.
    """

    def __init__(self, prog: str) -> None:
        self._prog = prog
        self._counts = {"image": 0, "frame": 0}
        self.people = self.skipped = 0
        self._seconds = self._started = 0.0
        self._done = 0
        self._progress: Any = None
        self._task: Any = None

    def say(self, line: str) -> None:
        """A line on standard error, above the progress."""
        if self._progress is not None:
            self._progress.stop()
        print(f"{self._prog}: {printable(' '.join(line.split()))}", file=sys.stderr, flush=True)
        if self._progress is not None:
            self._progress.start()

    def skip(self, line: str, count: int = 1) -> None:
        """A line about so many sources that are left out."""
        self.skipped += count
        self.say(line)

    def passed_over(self, files: Sequence[str]) -> None:
        """A line about files that are no images, if there are any; they are not counted as left out."""
        if files:
            more = f" and {len(files) - 1} more" if files[1:] else ""
            self.say(f"passed over, as not an image that is read: {files[0]}{more}")

    def begin(self, what: str, total: int | None) -> None:
        """A new part of the work.

        Args:
            what: it is about, in a word or two.
            total: of its images or frames; None where nobody knows.
        """
        self._started, self._done = time.perf_counter(), 0
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            self._progress = Progress(*columns, TimeRemainingColumn(), TextColumn("left"), transient=True)
            self._task = self._progress.add_task(_shortened(printable(what)), total=total, rate="")
            self._progress.start()

    def done(self, kind: str, people: int) -> None:
        """One image or frame is finished.

        Args:
            kind: "image" or "frame".
            people: found in it.
        """
        self._counts[kind] += 1
        self.people += people
        self._done += 1
        if self._progress is not None:
            rate = self._done / (time.perf_counter() - self._started)
            self._progress.update(self._task, advance=1, rate=f"{rate:.1f}/s")

    def end(self) -> None:
        """The part is finished, or broken off."""
        self._seconds += time.perf_counter() - self._started
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def summary(self) -> str:
        """How much was done and how fast, in a line."""
        if not any(self._counts.values()):
            return f"nothing was predicted{f', {self.skipped} skipped' if self.skipped else ''}"
        counted = [_counted(count, kind) for kind, count in self._counts.items() if count]
        rate = sum(self._counts.values()) / self._seconds if self._seconds else 0.0
        found = "1 person" if self.people == 1 else f"{self.people:,} people"
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{', '.join(counted)}, {found}, {rate:.1f} images/s{skipped}"


def _counted(count: int, kind: str) -> str:
    return f"1 {kind}" if count == 1 else f"{count:,} {kind}s"


def _shortened(text: str, length: int = 16) -> str:
    return text if len(text) <= length else f"…{text[1 - length :]}"
