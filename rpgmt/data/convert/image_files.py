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


class ImageFinder:
    """Finds images by the names that an annotation file gives them, which often are of another machine.

    A name counts as a path below one of the folders, else as that of the one file of this name anywhere below them.

    Args:
        folders: to look in, in order.
        source: the annotation file, for messages.
    """

    def __init__(self, folders: Iterable[Path], source: Path) -> None:
        self.folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
        self.source = source
        self._below: dict[str, list[Path]] | None = None
        self._missing: list[str] = []

    def find(self, *names: str) -> Path | None:
        """The file that has one of these names, the likeliest first; None is remembered for `check`."""
        for name in names:
            for folder in self.folders:
                if os.path.isfile(path := file_inside(folder, safe_name(name), str(self.source))):
                    return path
        for name in names:
            found = self._index().get(Path(safe_name(name)).name, [])
            if len(found) == 1:
                check_link(found[0])
                return found[0]
            if found:
                raise UserError(f"{self.source}: image {name} may be {found[0]} or {found[1]}: give its folder by --images")
        self._missing.append(names[0])
        return None

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


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder and those below it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


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
