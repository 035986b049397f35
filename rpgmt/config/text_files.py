"""Files of text from outside: whole, or an error in one line. Never a pipe that nobody writes to, never without end."""

from __future__ import annotations

import stat
from pathlib import Path

from rpgmt.errors import UserError

MOST_BYTES = 4 * 2**30
"""Of a file that is read whole; the largest annotation files in use have half a GB."""


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        UserError: it cannot be read, is no file but, say, a pipe or a device, or is larger.
    """
    try:
        found = path.stat()  # before it is opened: opening a pipe waits for somebody who writes
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path}: Is a {_kind(found.st_mode)}, not a file")
        if found.st_size > most:
            raise UserError(f"{path}: the file has {found.st_size:,} bytes: at most {most:,} are read")
        with path.open("rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, line ends as they are.

    Args:
        path, most: as of `read_bytes`.

    Raises:
        UserError: as `read_bytes`, or it is no such text.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 (byte {error.start})") from error


def _kind(mode: int) -> str:
    return "directory" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device or socket"
