"""Which files a data set may name: those in its own folders. The one place that decides.

A name in an annotation file, a list or a description counts from a folder, and the file has to lie in that folder, links
followed. So `../`, absolute paths and links to somewhere else are refused: whoever made the data set does not choose what is
read of this machine. Links of the folders themselves, the data root, `images/`, `images/train/`, a folder of labels or of a
class, are the user's own arrangement and are followed. What else may be read the user says in `RPGMT_LINKED_DATA`: folders,
with `:` between them, that links, `../` and absolute paths may lead into (docs/safety.md).
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from rpgmt.errors import UserError

ALLOWED = "RPGMT_LINKED_DATA"
"""The environment variable: worker processes have it too."""


def file_inside(folder: Path, name: str, source: str) -> Path:
    """The path of a file that data name; whether it is there, the caller sees.

    Args:
        folder: that the name counts from.
        name: as it stands in the data, with folders or without.
        source: the file that names it, for messages.

    Raises:
        UserError: it lies elsewhere, links followed, or no file can have such a name.
    """
    path = _joined(folder, name, source)
    parent, last = os.path.split(os.path.abspath(path))
    special = os.path.islink(path) or os.pardir in Path(name).parts  # `..` behind a link is not what it looks like
    real = os.path.realpath(path) if special else os.path.join(_real(parent), last)
    if not _within(real, (_real(os.path.abspath(folder)), *_allowed())):
        raise _outside(name, real, folder, source)
    return Path(path)


def folder_inside(base: Path, name: str, source: str) -> Path:
    """The path of a folder or file of a data set's layout, as its description gives it: links on the way are followed.

    Args:
        base, name, source: as of `file_inside`.

    Raises:
        UserError: it begins at the root of the file system or climbs out of the folder, or no file can have such a name.
    """
    path = _joined(base, name, source)
    whole = os.path.abspath(path)
    if not _within(whole, (os.path.abspath(base),)) and not _within(os.path.realpath(whole), _allowed()):
        raise _outside(name, whole, base, source)
    return Path(os.path.normpath(path))


def check_link(path: Path) -> None:
    """Raise UserError where a file of a data set's folder is a link out of that folder."""
    if os.path.islink(path):
        file_inside(path.parent, path.name, str(path))


def _joined(folder: Path, name: str, source: str) -> str:
    try:
        longest = max(map(len, os.fsencode(name).split(b"/")))
    except UnicodeEncodeError:  # half of a character
        longest = 0
    if not longest or longest > 255 or len(name) > 4095 or "\0" in name:
        raise UserError(f"{source}: a file is called {name[:60]!r}: no file has such a name")
    return os.path.join(folder, name)


def _outside(name: str, real: str, folder: Path, source: str) -> UserError:
    shown = name if len(name) <= 200 else f"{name[:200]}…"
    return UserError(
        f"{source}: {shown!r} leads out of {folder}, to {real}: name files inside, or allow the folder by {ALLOWED}=DIR"
    )


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def _allowed() -> tuple[str, ...]:
    return tuple(_real(os.path.abspath(folder)) for folder in os.environ.get(ALLOWED, "").split(os.pathsep) if folder)


@functools.lru_cache(4096)
def _real(folder: str) -> str:
    """A folder with its links followed; a data set asks of few folders and of each file in them."""
    return os.path.realpath(folder)
