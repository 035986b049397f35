"""A data set of the user's own: folders of images and labels that a short YAML file describes."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rpgmt.config.text_files import read_text
from rpgmt.config.validation import from_dict
from rpgmt.config.yaml_files import load_yaml
from rpgmt.data.coco.entries import image_entries
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.dense.dataset_yaml import FolderSet, MapFiles
from rpgmt.data.dense.label_map_files import Size, as_classes, as_depth, as_normals, open_array
from rpgmt.data.file_names import check_link, folder_inside
from rpgmt.data.images import IMAGE_SUFFIXES, read_image_file
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.regions import Entry, whole_images
from rpgmt.errors import UserError


def read_folders(description: str | Path, split: str) -> MultiTaskSet:
    """A data set that a YAML file describes::

        images: images/{split}
        keypoints: annotations/person_keypoints_{split}.json    # COCO's format; without, each image is a sample
        maps:
          segmentation:
            folder: masks/{split}
            kind: classes
            classes: [background, person]
            ignore: 255
          parts:
            folder: parts/{split}
            kind: parts
            classes: [background, left_hand, right_hand]
            swaps: [[left_hand, right_hand]]
          depth: {folder: "depth/{split}", kind: depth, unit: 0.001}    # braces within braces want quotes
          normals: {folder: "normals/{split}", kind: normals, negate: [y, z]}
        classes:
          scene: {file: "scenes_{split}.csv", classes: [indoor, outdoor]}

    Only `images` is needed. Paths are relative to the file, and {split} stands for the split. A label belongs to the image
    whose file has the same name up to the suffix, and an image without one lacks that label:

    - classes and parts: `.png` of 8 or 16 bits or with a palette, whose indices count, or `.npy`; of both the `.npy`. With
      `instances` any number but 0 (and `ignore`) is the second class.
    - depth: the same, times `unit` metres; 0 is no label.
    - normals: `.npy`, (0, 0, 0) is no label; or `.png` with (n + 1) / 2 · 255, black and grey (n = 0) are no label.

    Args:
        description: the YAML file.
        split: "train" or "val".

    Raises:
        UserError: a key, a file or a value is wrong or missing. Maps are looked at when they are read.
    """
    path = Path(description)
    values = load_yaml(path)
    try:
        settings = from_dict(FolderSet, values)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None

    def place(relative: str) -> Path:
        return folder_inside(path.parent, relative.replace("{split}", split), str(path))

    folder, name = place(settings.images), f"{path} ({split})"
    people = None
    if settings.keypoints is None:
        regions = whole_images(_images(folder), _Images(folder).read, name)
    else:
        people = CocoPeople.from_files(place(settings.keypoints), folder)
        regions = people.regions
    entries = [region.image for region in regions.regions]
    maps = {key: _Maps(place(files.folder), files) for key, files in settings.maps.items()}
    for key, reader in maps.items():
        if not any(reader.path(entry) for entry in entries):
            raise UserError(
                f"{reader.folder}: no label {key} for any of {folder}'s images: looked for {_stem(entries[0])}.npy, "
                f"{_stem(entries[0])}.png and so on; leave `{key}` out if there are none"
            )
    classes = {key: _labels(place(file.file), file.classes, entries) for key, file in settings.classes.items()}
    labels = _Labels(maps, classes)
    return MultiTaskSet(
        regions=regions,
        people=people,
        maps={key: reader.files.label_map for key, reader in maps.items()},
        read_maps=labels.read_maps,
        classes={key: file.classes for key, file in settings.classes.items()},
        read_classes=labels.read_classes,
    )


def _images(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images")
    names = sorted(item.name for item in folder.iterdir() if item.suffix.lower() in IMAGE_SUFFIXES)
    if not names:
        raise UserError(f"{folder}: holds no image: looked for {', '.join(IMAGE_SUFFIXES)}")
    stems: dict[str, str] = {}
    for name in names:
        other = stems.setdefault(Path(name).stem, name)
        if other != name:
            raise UserError(f"{folder}: {other} and {name} have one name, by which labels are found: rename one of them")
    return image_entries(folder, names, str(folder))


@dataclass(frozen=True)
class _Images:
    folder: Path

    def read(self, entry: Entry, *need: int) -> NDArray[np.uint8]:
        return read_image_file(self.folder / entry["file_name"], entry["width"], entry["height"], *need)


@dataclass(frozen=True)
class _Labels:
    maps: dict[str, _Maps]
    classes: dict[str, dict[str, int]]

    def read_maps(self, entry: Entry, names: Collection[str]) -> dict[str, NDArray]:
        paths = {name: self.maps[name].path(entry) for name in names}
        size = entry["height"], entry["width"]
        return {name: self.maps[name].read(path, size) for name, path in paths.items() if path}

    def read_classes(self, entry: Entry) -> dict[str, int]:
        return {name: known[_stem(entry)] for name, known in self.classes.items() if _stem(entry) in known}


@dataclass(frozen=True)
class _Maps:
    folder: Path
    files: MapFiles

    def path(self, entry: Entry) -> Path | None:
        paths = (self.folder / (_stem(entry) + suffix) for suffix in (".npy", ".png"))
        return next((path for path in paths if path.is_file()), None)

    def read(self, path: Path, size: Size) -> NDArray:
        check_link(path)
        files = self.files
        values = open_array(path) if path.suffix == ".npy" else _read_png(path)
        if files.kind == "depth":
            return as_depth(values, size, path, files.unit)
        if files.kind == "normals":
            if path.suffix == ".png":
                values = _from_colours(values)
            signs = np.array([-1.0 if axis in files.negate else 1.0 for axis in "xyz"], np.float32)
            return as_normals(values, size, path) * signs
        advice = "name all of them in `classes`, or give `ignore` the number of pixels without a label"
        count = len(files.classes)
        return as_classes(values, size, count, path, advice=advice, ignore=files.ignore, instances=files.instances)


def _stem(entry: Entry) -> str:
    """The name of an image's file without the suffix; with the folder, where it lies in one below that of the images."""
    return str(Path(entry["file_name"]).with_suffix(""))


def _read_png(path: Path) -> NDArray:
    """The numbers in a PNG file: of one with a palette, its indices."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not an image that can be read") from error


def _from_colours(values: NDArray) -> NDArray[np.float32]:
    """Vectors from colours 0 to 255; what is far from unit length, as black and grey are, becomes 0."""
    vectors = values.astype(np.float32) / np.float32(127.5) - np.float32(1)
    length = np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
    return np.where((length > 0.5) & (length < 1.5), vectors, np.float32(0))


def _labels(path: Path, classes: Sequence[str], entries: Sequence[Entry]) -> dict[str, int]:
    """The classes in a CSV file, as numbers, by the images' names without their suffix."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        if missing := {"image", "class"} - set(reader.fieldnames or ()):
            raise UserError(f"{path}: no column `{min(missing)}`: the first line is to be image,class")
        rows = [(reader.line_num, row["image"], row["class"]) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file: {error}") from error
    stems = {name: _stem(entry) for entry in entries for name in (_stem(entry), entry["file_name"])}
    found: dict[str, int] = {}
    for line, image, name in rows:
        if image not in stems:  # the file may be for more images than these
            continue
        if name not in classes:
            raise UserError(f"{path}, line {line}: class {name!r} is none of {', '.join(classes)}")
        if stems[image] in found:
            raise UserError(f"{path}, line {line}: image {image} stands twice: give each image one class")
        found[stems[image]] = classes.index(name)
    if not found:
        raise UserError(f"{path}: names none of the images: give their files' names, e.g. {entries[0]['file_name']}")
    return found
