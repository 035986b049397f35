"""Classes of images in a CSV file with the columns `image` and `class`."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rpgmt.config.text_files import read_text
from rpgmt.data.dense.label_files import stem
from rpgmt.data.images import IMAGE_SUFFIXES
from rpgmt.data.regions import Entry
from rpgmt.errors import UserError


def read_class_table(
    path: Path, classes: Sequence[str], entries: Sequence[Entry], folder: Path, *, of_these_alone: bool = True
) -> dict[str, int]:
    """The classes in a file, as numbers, by the images' names without their suffix.

    A row names an image by its file's name, with or without the suffix. Where nothing else has that name, it may be in
    capitals, have another image suffix, or begin with the folders that the images lie in, or with `../`. Warnings count
    the rows that name none of the images, and name the classes that no image has.

    Args:
        path: of the file.
        classes: their names, in the order of their numbers.
        entries: of the images.
        folder: that they lie in.
        of_these_alone: the file is for no other images.

    Raises:
        UserError: the file is malformed, a class is unknown, an image stands twice, or no row names an image.
    """
    rows = _rows(path)
    images = _Images(entries, folder)
    found: dict[str, int] = {}
    lost = []
    for line, image, name in rows:
        key = images.stem(image)
        if key is None:
            lost.append(f"line {line}, {image!r}")
            continue
        if name not in classes:
            raise UserError(f"{path}, line {line}: class {name!r} is none of {', '.join(classes)}")
        if key in found:
            raise UserError(f"{path}, line {line}: image {image} stands twice: give each image one class")
        found[key] = classes.index(name)
    if not found:
        raise UserError(f"{path}: names none of the images: give their files' names, e.g. {entries[0]['file_name']}")
    if lost and of_these_alone:
        text = f"{path}: {len(lost)} of {len(rows)} rows name none of the {len(entries)} images in {folder}, e.g. {lost[0]}"
        warnings.warn(text, stacklevel=3)
    if absent := [name for number, name in enumerate(classes) if number not in found.values()]:
        warnings.warn(f"{path}: no image of {', '.join(absent)}", stacklevel=3)
    return found


def _rows(path: Path) -> list[tuple[int, str, str | None]]:
    """The line, the image and the class of each row; None where a row is too short."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        if missing := {"image", "class"} - set(reader.fieldnames or ()):
            raise UserError(f"{path}: no column `{min(missing)}`: the first line is to be image,class")
        return [(reader.line_num, row["image"] or "", row["class"]) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file: {error}") from error


class _Images:
    """Finds images by what a row calls them."""

    def __init__(self, entries: Sequence[Entry], folder: Path) -> None:
        self.exact = {
            name: stem(entry["file_name"]) for entry in entries for name in (stem(entry["file_name"]), entry["file_name"])
        }
        self.parts = folder.parts
        self.loose: dict[str, str | None] = {}
        for name, own in self.exact.items():  # None where several images have the name
            self.loose[name.lower()] = own if self.loose.get(name.lower(), own) == own else None

    def stem(self, name: str) -> str | None:
        """The name without its suffix of the image that a row means; None for none, or for one of several."""
        if name in self.exact:
            return self.exact[name]
        parts = [part for part in PurePosixPath(name.strip().replace("\\", "/")).parts if part not in ("..", ".", "/")]
        for cut in range(len(parts)):
            if tuple(parts[:cut]) != self.parts[len(self.parts) - cut :]:  # folders of other images
                continue
            rest = PurePosixPath("/".join(parts[cut:]).lower())
            bare = rest.with_suffix("") if rest.suffix in IMAGE_SUFFIXES else rest
            if found := self.loose.get(str(rest)) or self.loose.get(str(bare)):
                return found
        return None
