"""A disk that takes no more: for real, without the rights to make one."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = Path("/dev/full")


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Meanwhile the system lets this process write no further than ``size`` bytes into any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(path: Path) -> None:
    """Where ``path`` is to be written, there is no room: under its name, and under that which it has until it is whole."""
    (path if path.name == "metrics.csv" else path.with_name(f".{path.stem}.part{path.suffix}")).symlink_to(FULL)
