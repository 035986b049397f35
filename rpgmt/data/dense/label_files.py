"""Label maps in folders: which file belongs to an image, what it holds, and what of the classes is nowhere to be seen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.dense.dataset_yaml import MapFiles
from rpgmt.data.dense.label_map_files import Size, as_classes, as_depth, as_normals, open_array, read_png
from rpgmt.data.file_names import check_link
from rpgmt.data.regions import Entry
from rpgmt.errors import UserError

LOOKED_AT = 200
"""How many masks are read, evenly spread, in search of classes."""
_SHOWN = 12


def stem(file_name: str) -> str:
    """The name of an image's file without the suffix; with the folder, where it lies in one below that of the images."""
    return str(Path(file_name).with_suffix(""))


def label_paths(folder: Path, stems: Iterable[str]) -> dict[str, Path]:
    """The label file of each image that has one: `.npy` or else `.png`, in upper or lower case.

    Args:
        folder: of the files.
        stems: of the images, as `stem` gives them.

    Raises:
        UserError: an image has two of a kind.
    """
    listed: dict[Path, dict[str, list[str]]] = {}
    found = {}
    for name in stems:
        path = folder / name
        if path.parent not in listed:
            listed[path.parent] = _label_files(path.parent)
        own = listed[path.parent].get(path.name, [])
        for suffix in (".npy", ".png"):
            files = [file for file in own if file.lower().endswith(suffix)]
            if len(files) > 1:
                raise UserError(f"{path.parent}: {files[0]} and {files[1]} are labels of one image: keep one of them")
            if files:
                found[name] = path.parent / files[0]
                break
    return found


def _label_files(folder: Path) -> dict[str, list[str]]:
    """The names of a folder's label files, by their stems."""
    files: dict[str, list[str]] = {}
    if folder.is_dir():
        for entry in os.scandir(folder):
            if entry.name.lower().endswith((".npy", ".png")) and entry.is_file():
                files.setdefault(entry.name[:-4], []).append(entry.name)
    return {name: sorted(own) for name, own in files.items()}


@dataclass(frozen=True)
class LabelFiles:
    """The label files of a split.

    Args:
        folder: that they lie in.
        files: what they hold.
        paths: of each image that has one, by its stem.
    """

    folder: Path
    files: MapFiles
    paths: Mapping[str, Path]

    def path(self, entry: Entry) -> Path | None:
        return self.paths.get(stem(entry["file_name"]))

    def read(self, path: Path, size: Size) -> NDArray:
        """What `rpgmt.data.dense.label_maps` expects of the kind.

        Raises:
            UserError: the file cannot be read or does not hold labels of an image of this size.
        """
        check_link(path)
        files, values = self.files, self._values(path, size)
        if files.kind == "depth":
            return as_depth(values, size, path, files.unit)
        if files.kind == "normals":
            if path.suffix.lower() == ".png":
                values = _from_colours(values)
            signs = np.array([-1.0 if axis in files.negate else 1.0 for axis in "xyz"], np.float32)
            return as_normals(values, size, path) * signs
        advice = "name all of them in `classes`, or give `ignore` the number of pixels without a label"
        count = len(files.classes)
        if count == 2:
            advice += ", or `instances: true` where any number but 0 is the second class"
        return as_classes(values, size, count, path, advice=advice, ignore=files.ignore, instances=files.instances)

    def _values(self, path: Path, size: Size) -> NDArray:
        if path.suffix.lower() == ".npy":
            return open_array(path)
        return read_png(path, size, colours=self.files.kind == "normals")

    def _looked_at(self, entries: Sequence[Entry]) -> tuple[list[tuple[Path, Size]], int]:
        """Files and sizes of some images with a label, at most `LOOKED_AT`, evenly spread; and how many there are."""
        with_label = [(path, (entry["height"], entry["width"])) for entry in entries if (path := self.path(entry))]
        chosen = [with_label[i * len(with_label) // LOOKED_AT] for i in range(LOOKED_AT)] if with_label else []
        return list(dict.fromkeys(chosen if len(with_label) > LOOKED_AT else with_label)), len(with_label)

    def check_valid(self, entries: Sequence[Entry]) -> None:
        """Raise UserError where no file has a depth or a normal: 0 says that there is none. A broken file says so later.

        Args:
            entries: of the images.
        """
        looked, there_are = self._looked_at(entries)
        try:
            if any(np.any(self.read(path, size)) for path, size in looked):
                return
        except UserError:
            return
        if len(looked) == there_are:
            what = f"no {self.files.kind} in any of {there_are} files"
            raise UserError(f"{self.folder}: {what}: all is 0 or below, or unknown")

    def absent_classes(self, entries: Sequence[Entry]) -> str | None:
        """A line on classes that none of the masks has; None where each occurs, or a mask cannot be read.

        Args:
            entries: of the images.

        Raises:
            UserError: no mask has a labelled pixel.
        """
        looked, there_are = self._looked_at(entries)
        seen = np.zeros(len(self.files.classes), np.int64)
        try:
            for path, size in looked:
                known = self.read(path, size)
                seen += np.bincount(known[known >= 0], minlength=len(seen))
                if seen.all():
                    return None
            values = sorted({value for path, size in looked[:20] for value in np.unique(self._values(path, size)).tolist()})
        except UserError:  # who reads it for a sample is told
            return None
        numbers = ", ".join(f"{value:g}" for value in values[:_SHOWN]) + (", …" if len(values) > _SHOWN else "")
        ignored = f", of which {self.files.ignore} is `ignore`" if self.files.ignore in values else ""
        what = f"masks that were looked at, {len(looked)} of {there_are}: they hold {numbers}{ignored}"
        if not seen.any() and len(looked) == there_are:
            raise UserError(f"{self.folder}: no class at all in the {what}: name them in `classes`, or leave the label out")
        if ignored and len(seen) == 2 and not self.files.instances:
            what += "; if that is the second class, give `instances: true` in place of `ignore`"
        names = ", ".join(name for name, count in zip(self.files.classes, seen, strict=True) if not count)
        return f"{self.folder}: no {names} in the {what}"


def _from_colours(values: NDArray) -> NDArray[np.float32]:
    """Vectors from colours 0 to 255; what is far from unit length, as black and grey are, becomes 0."""
    vectors = values.astype(np.float32) / np.float32(127.5) - np.float32(1)
    length = np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
    return np.where((length > 0.5) & (length < 1.5), vectors, np.float32(0))
