"""A disk that takes no more: for real, without the rights to make one."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rpgmt.whole_files import part_of

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


def no_room_for(path: Path) -> None:
    """Where a file is to be written next, there is no room."""
    part_of(path).symlink_to(FULL)
