"""YOLO's pose format: `data.yaml`, `images/{split}/` and `labels/{split}/*.txt`, a line for each person.

    class x y width height  x1 y1 v1  x2 y2 v2 …

Centre and size of the box and the points are parts of the image's width and height (Ultralytics, "Pose Estimation Datasets
Overview"). `kpt_shape: [K, 3]`; with [K, 2] there is no v. The labels of `…/images/a.jpg` are in `…/labels/a.txt`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import yaml

from rpgmt.config.text_files import read_text
from rpgmt.config.yaml_files import load_yaml
from rpgmt.data.convert.image_files import Placer, images_below
from rpgmt.data.convert.labels import DIGITS, Part, Point, category, count_text, flip_pairs, pairs_by_name, safe_name
from rpgmt.data.file_names import check_link, file_inside, folder_inside
from rpgmt.data.image_headers import image_size
from rpgmt.data.images import IMAGE_SUFFIXES
from rpgmt.errors import UserError
from rpgmt.whole_files import write_text

_LEAST = 0.5 / 10**DIGITS
"""What a box may stick out of its image in pixels without a word: less is the sum of two rounded numbers."""

_ROUNDED = 1.001
_PIXELS = 2.0
"""Parts of an image's size above the first are beyond its edge; those above the second are no parts, but pixels."""

_NOT_READ = (".avif", ".gif", ".heic", ".heif", ".jp2")
"""Suffixes of images that training does not read."""

_SPLITS = ("train", "val", "test")


def read(source: Path, images: Path | None, notes: list[str]) -> list[Part]:
    """The set that a `data.yaml` describes, or the folder with it.

    Raises:
        UserError: a key, a folder or a line of a label file is malformed.
    """
    path = source / "data.yaml" if source.is_dir() else source
    if not path.is_file():
        raise UserError(f"{path}: no such file: give YOLO's data.yaml or the folder with it")
    settings = load_yaml(path)
    categories, dimensions = _categories(settings, path, notes)
    root = images or _root(settings, path)
    parts, labels, beyond = [], list[Path](), 0
    for split in _SPLITS:
        if settings.get(split):
            part = Part(split, categories)
            for file, name in _images(settings[split], root, path):
                beyond += _read_image(part, file, name, dimensions)
            parts.append(part)
            labels += [_label_file(file) for file in part.files.values()]
    if not parts:
        raise UserError(f"{path}: none of `train`, `val` and `test` is given: name the folders of images")
    if not any(file.is_file() for file in labels):
        raise UserError(f"{path}: none of the images has a label file: looked for {labels[0]} and so on")
    if beyond:
        notes.append(f"{count_text(beyond, 'line')} of labels with numbers beyond 1, outside of the image: taken as they are")
    for part in parts:
        _note_passed_over(part, set(labels), notes)
    return parts


def _note_passed_over(part: Part, labels: set[Path], notes: list[str]) -> None:
    """Notes how many images have no label file, and what lies beside those that were read."""
    files = list(part.files.values())
    without = sum(not _label_file(file).is_file() for file in files)
    if without:
        count = f"{without} of {count_text(len(files), 'image')} of {part.split}"
        notes.append(f"{count} without a label file: taken for images with nobody on them")
    beside = sorted(file for folder in {file.parent for file in files} for file in folder.iterdir())
    if others := [file for file in beside if file.suffix.lower() in _NOT_READ and _label_file(file) not in labels]:
        count = f"{count_text(len(others), 'file')} of {part.split} passed over with their labels, {others[0].name} the first"
        notes.append(f"{count}: images are read as {', '.join(IMAGE_SUFFIXES)}")
    known = labels | {_label_file(file) for file in beside if file.suffix != ".txt"}
    places = {_label_file(file).parent for file in files}
    found = {file for place in places if place.is_dir() for file in place.glob("*.txt")}
    if lone := sorted(file.name for file in found - known if file.name != "classes.txt"):
        count = count_text(len(lone), "label file")
        notes.append(f"{count} of {part.split} without an image passed over, {lone[0]} the first")


def _categories(settings: dict[str, Any], path: Path, notes: list[str]) -> tuple[list[dict[str, Any]], int]:
    shape: Any = settings.get("kpt_shape")
    whole = isinstance(shape, list) and len(shape) == 2 and all(isinstance(value, int) for value in shape)
    if not whole or shape[0] < 1 or shape[1] not in (2, 3):
        raise UserError(f"{path}: `kpt_shape` is {shape!r}: give [number of key points, 2 or 3]")
    count, classes = shape[0], settings.get("names")
    if isinstance(classes, list):
        classes = dict(enumerate(classes))
    if not isinstance(classes, dict) or not classes or sorted(classes) != list(range(len(classes))):
        raise UserError(f"{path}: `names` is {classes!r}: give the names of the classes from 0 on")
    given = settings.get("kpt_names")
    given = dict(enumerate(given)) if isinstance(given, list) and all(isinstance(part, list) for part in given) else given
    if given is None:
        notes.append(f"{path.name} has no `kpt_names`: the key points are called point_1 … point_{count}")
        given = {number: [f"point_{i + 1}" for i in range(count)] for number in classes}
    flips = settings.get("flip_idx")
    if flips is not None and (not isinstance(flips, list) or sorted(map(str, flips)) != sorted(map(str, range(count)))):
        raise UserError(f"{path}: `flip_idx` is {flips!r}: give the {count} numbers from 0 on in another order")
    result = []
    for number, name in sorted(classes.items()):
        names = given.get(number) if isinstance(given, dict) else given
        if not isinstance(names, list) or len(names) != count or len({str(point) for point in names}) != count:
            raise UserError(f"{path}: `kpt_names` of class {number} is {names!r}: give {count} different names")
        names = [str(point) for point in names]
        pairs = None if flips is None else pairs_by_name(names, enumerate(flips))
        result.append(category(number + 1, str(name), names, flip_pairs=pairs))
    if flips is None:
        notes.append(f"{path.name} has no `flip_idx`: pairs of left and right come from the names, where these tell")
    return result, shape[1]


def _root(settings: dict[str, Any], path: Path) -> Path:
    """`path` counts from the file's folder, or, as it often was of another machine, is that folder."""
    given = str(settings.get("path") or ".")
    return folder_inside(path.parent, given, str(path)) if os.path.isdir(path.parent / given) else path.parent


def _images(given: Any, root: Path, path: Path) -> list[tuple[Path, str]]:
    """The image files of a split, and their names below its folder: of a folder, a list in a text file, or several."""
    found: list[tuple[Path, str]] = []
    for entry in given if isinstance(given, list) else [given]:
        name = str(entry)
        if name.startswith("../") and not os.path.exists(root / name):
            name = name[3:]  # Roboflow's files count from a folder beside
        place = folder_inside(root, name, str(path))
        if place.is_dir():
            found += [(file, file.relative_to(place).as_posix()) for file in images_below(place)]
        elif place.is_file():
            lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
            found += [(file_inside(root, os.path.abspath(place.parent / line), str(place)), Path(line).name) for line in lines]
        else:
            raise UserError(f"{path}: {place} is missing: give a folder of images or a text file that lists them")
    if not found:
        raise UserError(f"{path}: {given} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return found


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_image(part: Part, file: Path, name: str, dimensions: int) -> int:
    """Adds an image with its people, and returns how many of them have places outside of it."""
    width, height = image_size(file)
    number, labels = part.add_image(name, width, height, file), _label_file(file)
    if not labels.is_file():  # an image without people
        return 0
    check_link(labels)
    count, beyond = len(part.categories[0]["keypoints"]), 0
    for line, text in enumerate(read_text(labels).splitlines(), 1):
        if not text.strip():
            continue
        where = f"{labels}, line {line}"
        try:
            values = [float(word) for word in text.split()]
        except ValueError:
            raise UserError(f"{where}: {text[:60]!r}: give numbers") from None
        if len(values) != 5 + count * dimensions or not all(map(math.isfinite, values)):
            raise UserError(f"{where}: {len(values)} numbers: give class, box and {dimensions} for each of {count} points")
        if values[0] not in range(len(part.categories)):
            raise UserError(f"{where}: class {values[0]:g} is none of 0 to {len(part.categories) - 1}")
        rows = [values[i : i + dimensions] for i in range(5, len(values), dimensions)]
        largest = max(values[1:5] + [v for row in rows if dimensions == 2 or row[2] for v in row[:2]])
        if largest > _PIXELS:
            raise UserError(f"{where}: {largest:g} is no part of the image's size: divide pixels by its width and height")
        beyond += largest > _ROUNDED
        x, y, w, h = (value * side for value, side in zip(values[1:5], (width, height) * 2, strict=True))
        points = [_point(row, width, height, where) for row in rows]
        part.add_person(number, int(values[0]) + 1, points, (x - w / 2, y - h / 2, w, h))
    return beyond


def _point(row: list[float], width: int, height: int, where: str) -> Point:
    x, y, *rest = row
    v = rest[0] if rest else (0.0 if x < 0 or y < 0 or (x, y) == (0, 0) else 2.0)  # without v, no place is no label
    if v not in (0, 1, 2):
        raise UserError(f"{where}: v of a key point is {v:g}: give 0 not labelled, 1 hidden or 2 visible")
    return round(x * width, DIGITS), round(y * height, DIGITS), int(v)


def write(parts: list[Part], out: Path, placer: Placer, notes: list[str]) -> Path:
    """Writes `data.yaml` and the folders, and returns the file.

    What the format cannot hold is noted: crowds, areas, skeletons and sigmas; and since its readers refuse an image with
    numbers beyond 0 … 1, boxes are cut off at the image's edges, and points outside are not labelled.
    """
    categories = parts[0].categories
    counts = {len(entry["keypoints"]) for entry in categories}
    pairs = {tuple(flip_pairs(entry)) for entry in categories}
    if len(counts) > 1 or len(pairs) > 1:
        names = ", ".join(str(entry.get("name", entry["id"])) for entry in categories)
        raise UserError(f"YOLO has one `kpt_shape` and `flip_idx`, and {names} differ: choose one by --category NAME")
    numbers = {entry["id"]: number for number, entry in enumerate(categories)}
    cut = outside = 0
    for part in parts:
        for image, people in part.people_of_images():
            name = safe_name(image["file_name"])
            placer.place(part.files[image["id"]], out / "images" / part.split / name)
            lines = []
            for person, points in people:
                text, boxed, lost = _line(numbers[person["category_id"]], person["bbox"], points, image)
                lines.append(text)
                cut, outside = cut + boxed, outside + lost
            path = (out / "labels" / part.split / name).with_suffix(".txt")
            if path.exists():
                raise UserError(f"{path}: two images of the source have this name up to the suffix: rename one of them")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "".join(f"{line}\n" for line in lines), durable=False)
    order = list(range(counts.pop()))
    for a, b in pairs.pop():
        order[a], order[b] = b, a
    settings = {
        "path": ".",
        **{part.split if part.split in _SPLITS else "train": f"images/{part.split}" for part in parts},
        "kpt_shape": [len(order), 3],
        "flip_idx": order,
        "names": {number: str(entry.get("name", number)) for number, entry in enumerate(categories)},
        "kpt_names": {number: list(entry["keypoints"]) for number, entry in enumerate(categories)},
    }
    write_text(out / "data.yaml", yaml.safe_dump(settings, sort_keys=False, default_flow_style=None))
    notes.append("YOLO has no areas, skeletons, sigmas, segments or crowds: they are left out")
    if cut:
        notes.append(f"{count_text(cut, 'box', 'boxes')} cut off at the image's edges: YOLO's readers refuse others")
    if outside:
        notes.append(f"{count_text(outside, 'key point')} outside the image are not labelled now: YOLO's readers refuse them")
    return out / "data.yaml"


def _line(number: int, box: list[float], points: list[Point], image: dict[str, Any]) -> tuple[str, bool, int]:
    """The line of a person, whether its box was cut off, and how many points were outside."""
    width, height = image["width"], image["height"]
    x, y, w, h = box
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    beyond = max(left - x, top - y, x + w - right, y + h - bottom)
    if beyond > 0:
        x, y, w, h = left, top, max(0, right - left), max(0, bottom - top)
    values = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    words, lost = [str(number), *map(_text, values)], 0
    for px, py, v in points:
        inside = 0 <= px <= width and 0 <= py <= height
        lost += bool(v) and not inside
        words += [_text(px / width), _text(py / height), str(v)] if v and inside else ["0", "0", "0"]
    return " ".join(words), beyond > _LEAST, lost


def _text(value: float) -> str:
    return repr(float(value)) if value else "0"
