"""Image files of a format: where they are, how large they are, and how they get to a new place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from rpgmt.data.convert.labels import safe_name
from rpgmt.data.file_names import check_link, file_inside
from rpgmt.data.images import IMAGE_SUFFIXES
from rpgmt.errors import UserError
from rpgmt.whole_files import whole_file

Claims = dict[str, tuple[tuple[str, ...], bool, Path]]
"""Of each file that was found, links followed: the names it was asked for by, whether it was guessed, and in which source."""


class ImageFinder:
    """Finds images by the names that an annotation file gives them, which often are of another machine.

    A name counts as a path below one of the folders. Else the file is guessed: it is the one file of this name anywhere below
    them, or, where the folder that the name gives is there, below that. A file that is another image's is no guess.

    Args:
        folders: to look in, in order.
        source: the annotation file, for messages.
        claims: what finders of other files of the same data set have found.
    """

    def __init__(self, folders: Iterable[Path], source: Path, claims: Claims | None = None) -> None:
        self.folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
        self.source = source
        self._claims: Claims = {} if claims is None else claims
        self._below: dict[str, list[Path]] | None = None
        self._missing: list[str] = []

    def find(self, *names: str) -> Path | None:
        """The file that has one of these names, the likeliest first; None is remembered for `check`.

        Raises:
            UserError: it was guessed and may be several files, or is another image's.
        """
        safe = [safe_name(name) for name in names]
        whole = [name for name in safe if name.count("/") >= safe[0].count("/")]
        if path := self._at_its_place(whole):
            return self._claim(path, names, guessed=False)
        homes = self._homes(safe)
        path = self._at_its_place([name for name in safe if name not in whole])
        if path is not None and _below_one(path, homes):
            return self._claim(path, names, guessed=True)
        for name in safe:
            found = [path for path in self._index().get(Path(name).name, []) if _below_one(path, homes)]
            if len(found) == 1:
                check_link(found[0])
                return self._claim(found[0], names, guessed=True)
            if found:
                raise UserError(f"{self.source}: image {name} may be {found[0]} or {found[1]}: give its folder by --images")
        self._missing.append(names[0])
        return None

    def _at_its_place(self, names: Sequence[str]) -> Path | None:
        paths = (file_inside(folder, name, str(self.source)) for name in names for folder in self.folders)
        return next((path for path in paths if os.path.isfile(path)), None)

    def _homes(self, names: Sequence[str]) -> list[Path]:
        """The folders that the names give, as far as they are there: an image that is in none of them is missing."""
        parents = [name.rpartition("/")[0] for name in names if "/" in name]
        return [folder / parent for parent in parents for folder in self.folders if (folder / parent).is_dir()]

    def _claim(self, path: Path, names: tuple[str, ...], *, guessed: bool) -> Path:
        real = os.path.realpath(path)
        others, other_guessed, source = self._claims.setdefault(real, (names, guessed, self.source))
        if (others, source) != (names, self.source) and (guessed or other_guessed):
            astray, owner = (names[0], others[0]) if guessed else (others[0], names[0])
            raise UserError(
                f"{self.source}: image {astray} is not at its place, and {path}, which has its name, is image {owner}: "
                "put it there, or give the folder of the images by --images DIR"
            )
        return path

    def check(self) -> None:
        """Raise UserError where an image was not found."""
        if self._missing:
            places = ", ".join(map(str, self.folders)) or "no folder"
            raise UserError(
                f"{self.source}: image {self._missing[0]} is missing ({len(self._missing)} are), looked in {places}: "
                "give the folder of the images by --images DIR"
            )

    def _index(self) -> dict[str, list[Path]]:
        if self._below is None:
            self._below = {}
            for folder in self.folders:
                for path in sorted(folder.rglob("*")):
                    known = self._below.setdefault(path.name, [])
                    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and path not in known:
                        known.append(path)
        return self._below


def _below_one(path: Path, folders: Sequence[Path]) -> bool:
    return not folders or any(path.is_relative_to(folder) for folder in folders)


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder and those below it, sorted.

    Raises:
        UserError: one is a link out of its folder.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    for path in found:
        check_link(path)
    return found


class Placer:
    """Puts image files into a new data set, as copies or as symbolic links.

    Args:
        link: symbolic links.
    """

    def __init__(self, link: bool = False) -> None:
        self.link, self.count = link, 0

    def place(self, file: Path, target: Path) -> None:
        """Puts a file where `target` is to be.

        Raises:
            UserError: something is there: two images have one name.
        """
        if target.exists() or target.is_symlink():
            raise UserError(f"{target}: two images of the source have this name: rename one of them")
        if self.link:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(file.resolve(), target)
        else:
            with whole_file(target, durable=False, folders=True) as part:
                shutil.copyfile(file, part)
        self.count += 1


def near(source: Path, images: Path | None, *more: str) -> Sequence[Path]:
    """Where the images of an annotation file may be: the folder that was given, or those round the file."""
    if images is not None:
        return [images]
    return [source.parent / "images", *(source.parent / name for name in more), source.parent]
