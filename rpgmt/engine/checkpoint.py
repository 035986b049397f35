"""Checkpoints: all that training needs to go on, in one file that is whole or not there.

The file is torch's, with a line at its end: `MARK`, and the SHA-256 of all before it. A file that was altered, or cut off, is
refused before any of it is taken for something. Older files have no such line; they are read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rpgmt.errors import UserError
from rpgmt.whole_files import whole_file

MARK = b"\nrpgmt sha256 "
SIGNED = "signed"
"""A key of what is stored: a file that has it and no digest has lost it."""
PIECE = 1 << 20
"""Bytes that are read at a time."""
_LENGTH = len(MARK) + 64


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; whoever pulls the plug finds the old one or the new one.

    Raises:
        UserError: it cannot be written; the old one stays.
    """
    import torch  # here, for those who only ask what is in a run folder

    with whole_file(path) as part, part.open("wb") as file:
        signed = _Signed(file)
        torch.save({**state, SIGNED: True}, signed)  # type: ignore[arg-type]  # it calls `write` and `flush` alone
        signed.finish()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing of it is executed.

    Raises:
        UserError: it is not whole, or not a checkpoint.
    """
    import torch

    has_digest = _check(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: zip files, pickles and tensors may be wrong in their own ways
        raise _damaged(path, "it cannot be read") from error
    if not isinstance(state, dict):
        raise _damaged(path, "it holds something else")
    if state.pop(SIGNED, False) and not has_digest:
        raise _damaged(path, "its digest is gone")
    return state


@contextmanager
def taken_over(path: Path) -> Iterator[None]:
    """What a checkpoint holds is handed to model, optimizer, …, which have their own ways to say that it is not theirs.

    Raises:
        UserError: it does not fit.
    """
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is not a checkpoint of this run ({reason}): put the run's own best.ckpt in its place, or start again "
            "with another --out"
        ) from error


class _Signed:
    """A file for `torch.save` that gets the digest of its bytes at its end.

    What the disk says is kept until then: an error on the way would reach torch's writer in C++, which has another for it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Nothing: `finish` is to come."""

    def finish(self) -> None:
        self.write(MARK + self._digest.hexdigest().encode())
        if self._error is not None:
            raise self._error


def _check(path: Path) -> bool:
    """Compare the file with its digest, and return whether it has one.

    Raises:
        UserError: they differ.
    """
    try:
        with path.open("rb") as file:
            rest = os.path.getsize(path) - _LENGTH
            file.seek(max(0, rest))
            end = file.read()
            if not end.startswith(MARK):
                return False
            file.seek(0)
            digest = hashlib.sha256()
            while rest:
                piece = file.read(min(PIECE, rest))
                digest.update(piece)
                rest -= len(piece) or rest
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if end[len(MARK) :] != digest.hexdigest().encode():
        raise _damaged(path, "its bytes are not those that were written")
    return True


def _damaged(path: Path, reason: str) -> UserError:
    advice = "put best.ckpt in its place, or start again with another --out"
    return UserError(f"{path} is not a whole checkpoint ({reason}): {advice}")
