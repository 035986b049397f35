"""The folder that a prediction writes to, and names of files in it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from rpgmt.errors import UserError
from rpgmt.whole_files import writing

DEFAULT = Path("predictions")
_LONGEST = 120
"""Bytes of a file's name without what is added: file systems take 255."""


@contextmanager
def new_folder(out: Path | None) -> Iterator[Path]:
    """Makes an empty folder; one that stays empty is removed.

    Args:
        out: the folder; None: the next number in `DEFAULT`.

    Raises:
        UserError: it holds something, or is a file.
    """
    if out is None:
        number = 1
        while True:
            folder = DEFAULT / str(number)
            try:
                folder.mkdir(parents=True)  # of two processes that start at once one makes it
                break
            except FileExistsError:
                number += 1
    else:
        check_new(out)
        folder = out
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def check_new(out: Path) -> None:
    """Raise UserError where a folder holds something, or is a file."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"`--out` is {out}: not an empty folder; give another, or leave it out")


class Names:
    """Names for what is written about each source: of letters, digits and `_.-`, each one of its own.

    Args:
        parts: what may follow a name: no `NAME` and no `NAME_PART` of one source is that of another.
    """

    def __init__(self, parts: Sequence[str] = ()) -> None:
        self._endings = ["", *(f"_{part.lower()}" for part in parts)]
        self._taken: set[str] = set()

    def of(self, source: str) -> str:
        """A name for a source: its own without folders and ending, as far as that makes a harmless file name."""
        stem = Path(source.rstrip("/")).stem.removeprefix(".")
        plain = re.sub(r"[^\w.-]+", "_", stem).lstrip("-.") or "source"
        plain = plain.encode()[:_LONGEST].decode(errors="ignore")
        name, number = plain, 1
        while not self._taken.isdisjoint(files := self._files(name)):
            number += 1
            name = f"{plain}-{number}"
        self._taken |= files
        return name

    def _files(self, name: str) -> set[str]:
        return {name.lower() + ending for ending in self._endings}  # some file systems take a and A for one


class RowsFile:
    """A JSON list that is written as it grows, and has its own name when it is whole: until then, `NAME.part`.

    Args:
        path: of the file.

    Raises:
        UserError: it cannot be written; so say `add` and the context's end.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")
        with writing(self._path, self._part):
            self._file = self._part.open("w", encoding="utf-8")
        self._count = 0

    def add(self, rows: list[dict[str, Any]], name: str) -> None:
        """Adds rows.

        Args:
            rows: plain values.
            name: of the image that they are about.

        Raises:
            UserError: a number is not finite.
        """
        try:
            texts = [json.dumps(row, allow_nan=False) for row in rows]
        except ValueError:
            raise UserError(f"{name}: the network gives numbers that are not finite: its training has failed") from None
        with writing(self._path):
            for text in texts:
                self._file.write((",\n" if self._count else "[\n") + text)
                self._count += 1

    def __enter__(self) -> RowsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with writing(self._path, self._part):
            with self._file:
                self._file.write("\n]\n" if self._count else "[]\n")
            os.replace(self._part, self._path)
