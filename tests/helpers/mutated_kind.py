"""A kind of input that is mutated, and what becomes of one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from rpgmt.errors import UserError, one_line

Mutate = Callable[[bytes], st.SearchStrategy[bytes]]


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Args:
        name: of the kind.
        file: the file that is mutated, below the folder.
        write: writes sound files into a folder.
        mutate: what is drawn in place of the file's bytes.
        read: reads them as training does; raises AssertionError where what it gives is not what the files say.
        weight: of the cases; little where one takes long.
    """

    name: str
    file: str
    write: Callable[[Path], object]
    mutate: Mutate
    read: Callable[[Path], object]
    weight: float = 1.0


def outcome(kind: Kind, folder: Path, data: bytes) -> str:
    """Reads a mutated file. "handled", or "refused" with a reason in one line that names the file.

    Raises:
        Whatever else happens, an AssertionError where the line is none or what was read is wrong.
    """
    (folder / kind.file).write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", UserWarning)  # a note to the user
            kind.read(folder)
    except UserError as error:
        text = str(error)
        stem = Path(kind.file).stem
        assert str(folder) in text or stem in text, f"the line names no file: {text}"
        assert len(one_line(text)) > 10
        return "refused"
    return "handled"
