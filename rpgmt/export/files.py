"""A file that is kept under its name only when it is whole and right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def kept_if_right(path: Path) -> Iterator[Path]:
    """Gives a name beside `path`, with its suffix: what is written there replaces `path`, unless an error is raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
