"""Files that are whole under their name or not there, whatever ends the program, and one line where the disk is at fault."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rpgmt.errors import UserError

ADVICE = {
    errno.ENOSPC: "make room and try again",
    errno.EDQUOT: "make room and try again",
    errno.EFBIG: "the system allows no larger file here (`ulimit -f`)",
    errno.EROFS: "give another folder",
    errno.EACCES: "give another folder, or the right to write there",
    errno.EPERM: "give another folder, or the right to write there",
    errno.ENOENT: "its folder is not there",
    errno.ENOTDIR: "give the name of a file in a folder",
    errno.EISDIR: "give the name of a file in it",
}
"""What to do about a disk's errors."""


@contextmanager
def whole_file(path: Path, *, durable: bool = True, folders: bool = False) -> Iterator[Path]:
    """Gives a name beside ``path``, with its suffix: what is written there takes its place, unless an error is raised.

    Whoever kills the program finds the old file or the new one. A link stays, and what it points to is replaced. What is
    no file, such as `/dev/stdout`, is written to at once.

    Args:
        path: of the file.
        durable: the disk has it before it takes its place, so that this holds for who pulls the plug too. Takes some
            milliseconds.
        folders: make its folder, and those above it, where they are not there.

    Raises:
        UserError: it cannot be written; what was there before stays.
    """
    path = Path(path)
    if folders:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        with writing(path):
            yield path
        return
    part = part_of(path)
    try:
        with writing(path, part):
            yield part
            if durable:
                _sync(part)
            os.replace(part, path)
        if durable:
            with suppress(OSError):  # not every file system lets folders be synchronised
                _sync(path.parent)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """The name of a file until it is whole."""
    return path.with_name(f".{path.stem}.part{path.suffix}")


def is_part(path: Path) -> bool:
    """Whether it is such a name: what a killed program may leave."""
    return path.name.startswith(".") and ".part" in path.name


def write_text(path: Path, text: str, *, durable: bool = True, folders: bool = False) -> None:
    """Writes a whole file in UTF-8; see `whole_file`."""
    write_bytes(path, text.encode("utf-8"), durable=durable, folders=folders)


def write_bytes(path: Path, data: bytes, *, durable: bool = True, folders: bool = False) -> None:
    """Writes a whole file; see `whole_file`."""
    with whole_file(path, durable=durable, folders=folders) as part:
        part.write_bytes(data)


@contextmanager
def writing(path: Path, part: Path | None = None) -> Iterator[None]:
    """Makes what a disk says while ``path`` is written one line that names it.

    Args:
        path: a file, or a folder with all that is in it.
        part: another name under which it is written.

    Raises:
        UserError: the disk is full, the folder is read-only, gone, ….
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        named = error.filename
        if named is not None and not any(Path(os.fsdecode(named)).is_relative_to(place) for place in (path, part or path)):
            raise  # of something else, which the error names
        advice = ADVICE.get(error.errno or 0)
        reason = error.strerror or str(error)
        raise UserError(f"{path} cannot be written: {reason}{f': {advice}' if advice else ''}") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
