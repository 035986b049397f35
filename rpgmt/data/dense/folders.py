"""A data set of the user's own: folders of images and labels that a short YAML file describes."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PlainValidator

from rpgmt.data.coco.entries import image_entries
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.person import Entry, WholeImages
from rpgmt.data.dense.label_maps import IGNORE, Kind, LabelMap
from rpgmt.data.dense.map_files import Size, as_classes, as_depth, as_normals, open_array
from rpgmt.data.images import read_image_file
from rpgmt.data.multitask_set import LabelledSet
from rpgmt.errors import UserError
from rpgmt.fields import config_class, from_dict
from rpgmt.yaml12 import load_yaml

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

_OWN = {  # keys of a map that have a meaning for some kinds only
    "classes": ("classes", "parts"),
    "ignore": ("classes", "parts"),
    "instances": ("classes",),
    "swaps": ("parts",),
    "unit": ("depth",),
    "negate": ("normals",),
}


@config_class
class MapFiles:
    """Dense labels: a `.png` or `.npy` file for each image."""

    folder: Annotated[str, Field(min_length=1, description="of the files; {split} becomes train or val")]
    kind: Annotated[Kind, Field(description="what a pixel holds")]
    classes: Annotated[tuple[str, ...], Field(description="names of the classes, from number 0 on")] = ()
    ignore: Annotated[int, Field(description="number of pixels without a label, besides -1")] = IGNORE
    instances: Annotated[
        bool, Field(description="numbers count people or things: 0 is the first class, all else the second")
    ] = False
    swaps: Annotated[tuple[tuple[str, str], ...], Field(description="pairs of classes that a mirror image exchanges")] = ()
    unit: Annotated[float, Field(gt=0, description="metres of one step of depth")] = 1.0
    negate: Annotated[
        tuple[Literal["x", "y", "z"], ...],
        Field(description="axes of normals that do not run x right, y down, z forward; y and z in graphics programs"),
    ] = ()

    def __post_init__(self) -> None:
        for item in fields(self):
            if self.kind not in _OWN.get(item.name, (self.kind,)) and getattr(self, item.name) != item.default:
                raise ValueError(f"`{item.name}` has no meaning for kind {self.kind}: leave it out")
        if self.kind in _OWN["classes"]:
            _check_classes(self.classes)
        if self.instances and len(self.classes) != 2:
            raise ValueError(f"`classes` has {len(self.classes)} names: with `instances` give two, e.g. [background, person]")
        swapped = [name for pair in self.swaps for name in pair]
        for name in swapped:
            if name not in self.classes:
                raise ValueError(f"`swaps` names {name!r}, which is not in `classes`: give pairs of classes")
            if swapped.count(name) > 1:
                raise ValueError(f"`swaps` names {name!r} twice: a class has one mirror image")

    @property
    def label_map(self) -> LabelMap:
        swaps = tuple((self.classes.index(left), self.classes.index(right)) for left, right in self.swaps)
        return LabelMap(kind=self.kind, classes=self.classes, swaps=swaps)


@config_class
class ClassFile:
    """Labels of images as a whole: a CSV file with the columns `image` (name of the file) and `class`."""

    file: Annotated[str, Field(min_length=1, description="the CSV file; {split} becomes train or val")]
    classes: Annotated[tuple[str, ...], Field(description="names of the classes")]

    def __post_init__(self) -> None:
        _check_classes(self.classes)


def _check_classes(classes: tuple[str, ...]) -> None:
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"`classes` is {list(classes)}: give different names, e.g. [background, person]")


def _each(cls: Any, key: str) -> Callable[[Any], dict[str, Any]]:
    """A validator of a mapping from the names of labels to what `cls` describes."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"`{key}` is {value!r}: give a name for each and what it is, e.g. depth: {{folder: …, kind: …}}")
        result = {}
        for name, entry in value.items():
            if not isinstance(name, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):  # it becomes a head's name
                raise ValueError(f"`{key}` has the name {name!r}: use letters, digits and _, e.g. segmentation")
            try:
                result[name] = entry if isinstance(entry, cls) else from_dict(cls, entry)
            except ValueError as error:
                raise ValueError(f"{key}, {name}: {error}") from None
        return result

    return read


_SAMPLE = ("image", "keypoints", "visibility", "to_image", "index")
"""Names that a sample has for other things."""


@config_class
class FolderSet:
    """What the YAML file says; paths are relative to it."""

    images: Annotated[str, Field(min_length=1, description="folder of the images; {split} becomes train or val")]
    keypoints: Annotated[str | None, Field(description="key points in COCO's format: each person is a sample")] = None
    maps: Annotated[dict[str, MapFiles], PlainValidator(_each(MapFiles, "maps")), Field(description="dense labels")] = field(
        default_factory=dict
    )
    classes: Annotated[
        dict[str, ClassFile], PlainValidator(_each(ClassFile, "classes")), Field(description="labels of whole images")
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "{split}" not in f"{self.images} {self.keypoints}":
            raise ValueError(
                f"`images` is {self.images!r} for training and validation alike: write {{split}} where train or val is to stand"
            )
        for name in self.classes:
            if name in self.maps:
                raise ValueError(f"`{name}` is in `maps` and in `classes`: give each label a name of its own")
        for name in (*self.maps, *self.classes):
            if name in _SAMPLE:
                raise ValueError(f"`{name}` is the name of a label: give it another than {', '.join(_SAMPLE)}")


def read_folders(description: str | Path, split: str) -> LabelledSet:
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
        return path.parent / relative.replace("{split}", split)

    folder, name = place(settings.images), f"{path} ({split})"
    people: CocoPeople | WholeImages
    if settings.keypoints is None:
        people = WholeImages(_images(folder), _Images(folder).read, name)
    else:
        people = CocoPeople.from_files(place(settings.keypoints), folder)
    entries = [person.image for person in people.people]
    maps = {key: _Maps(place(files.folder), files) for key, files in settings.maps.items()}
    for key, reader in maps.items():
        if not any(reader.path(entry) for entry in entries):
            raise UserError(
                f"{reader.folder}: no label {key} for any of {folder}'s images: looked for {_stem(entries[0])}.npy, "
                f"{_stem(entries[0])}.png and so on; leave `{key}` out if there are none"
            )
    classes = {key: _labels(place(file.file), file.classes, entries) for key, file in settings.classes.items()}
    labels = _Labels(maps, classes)
    return LabelledSet(
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
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := {"image", "class"} - set(reader.fieldnames or ()):
                raise UserError(f"{path}: no column `{min(missing)}`: the first line is to be image,class")
            rows = [(reader.line_num, row["image"], row["class"]) for row in reader]
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8: {error}") from error
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
