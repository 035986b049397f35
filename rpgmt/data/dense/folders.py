"""A data set of the user's own: folders of images and labels that a short YAML file describes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rpgmt.config.validation import from_dict
from rpgmt.config.yaml_files import load_yaml
from rpgmt.data.coco.entries import image_entries
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.dense.class_table import read_class_table
from rpgmt.data.dense.dataset_yaml import FolderSet, MapFiles
from rpgmt.data.dense.label_files import LabelFiles, label_paths, stem
from rpgmt.data.file_names import check_link, folder_inside
from rpgmt.data.images import IMAGE_SUFFIXES, note_passed_over, read_image_file
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
          gaze: {file: "gaze_{split}.csv", classes: [ahead, aside_a, aside_b], swaps: [[aside_a, aside_b]]}

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
        with _of_key(path, "images"):
            regions = whole_images(_images(folder), _Images(folder).read, name)
    else:
        document = place(settings.keypoints)
        with _of_key(path, "keypoints"):
            people = CocoPeople.from_files(document, folder)
        if "{split}" in settings.images:  # else the folder has images of other splits too
            named = {image.get("file_name") for image in people.annotations["images"]}
            note_passed_over(folder, [name for name in os.listdir(folder) if name not in named])
        regions = people.regions
    entries = list({region.image["id"]: region.image for region in regions.regions}.values())
    maps, classes = {}, {}
    for key, files in settings.maps.items():
        own = place(files.folder)
        with _of_key(path, f"maps, {key}"):
            maps[key] = _label_files(own, files, key, entries, folder)
    for key, file in settings.classes.items():
        table, whole = place(file.file), "{split}" in file.file
        check_link(table)
        with _of_key(path, f"classes, {key}"):
            classes[key] = read_class_table(table, file.classes, entries, folder, of_these_alone=whole)
    labels = _Labels(maps, classes)
    _note_what_lacks_labels(name, labels, entries)
    return MultiTaskSet(
        regions=regions,
        people=people,
        maps={key: reader.files.label_map for key, reader in maps.items()},
        read_maps=labels.read_maps,
        classes={key: file.classes for key, file in settings.classes.items()},
        read_classes=labels.read_classes,
        mirrors={
            **{key: files.mirror for key, files in settings.maps.items()},
            **{key: file.mirror for key, file in settings.classes.items()},
        },
        way=f"`swaps` in {path.name}",
    )


@contextmanager
def _of_key(path: Path, key: str) -> Iterator[None]:
    """Errors begin with the description and the key that led to what is wrong."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {key}: {error}") from error


def _images(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images")
    listed = sorted(os.listdir(folder))
    names = [name for name in listed if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")]
    if not names:
        raise UserError(f"{folder}: holds no image: looked for {', '.join(IMAGE_SUFFIXES)}")
    note_passed_over(folder, list(set(listed) - set(names)))
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
    maps: dict[str, LabelFiles]
    classes: dict[str, dict[str, int]]

    def read_maps(self, entry: Entry, names: Collection[str]) -> dict[str, NDArray]:
        paths = {name: self.maps[name].path(entry) for name in names}
        size = entry["height"], entry["width"]
        return {name: self.maps[name].read(path, size) for name, path in paths.items() if path}

    def read_classes(self, entry: Entry) -> dict[str, int]:
        return {name: known[key] for name, known in self.classes.items() if (key := stem(entry["file_name"])) in known}


def _label_files(folder: Path, files: MapFiles, key: str, entries: Sequence[Entry], images: Path) -> LabelFiles:
    """The files of the label `key`, and a note of classes that none of them has."""
    first = stem(entries[0]["file_name"])
    found = LabelFiles(folder, files, label_paths(folder, [stem(entry["file_name"]) for entry in entries]))
    if not found.paths:
        raise UserError(
            f"{folder}: no label {key} for any of {images}'s images: looked for {first}.npy, {first}.png and so on; "
            f"leave `{key}` out if there are none"
        )
    if not files.classes:
        found.check_valid(entries)
    elif text := found.absent_classes(entries):
        warnings.warn(text, stacklevel=3)
    return found


def _note_what_lacks_labels(name: str, labels: _Labels, entries: Sequence[Entry]) -> None:
    """Says, in one line, how many images lack which label."""
    known: dict[str, Collection[str]] = {**{key: files.paths for key, files in labels.maps.items()}, **labels.classes}
    stems = {stem(entry["file_name"]): entry["file_name"] for entry in entries}
    lacking = {key: [file for own, file in stems.items() if own not in of] for key, of in known.items()}
    parts = [f"{key} {len(files)} of {len(stems)}, e.g. {files[0]}" for key, files in lacking.items() if files]
    if parts:
        warnings.warn(f"{name}: images without a label: {'; '.join(parts)}", stacklevel=3)
