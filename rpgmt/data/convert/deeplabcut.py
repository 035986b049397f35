"""DeepLabCut's labels: `labeled-data/<video>/CollectedData_<scorer>.csv`, a row for each image.

    scorer,,,jane,jane,…
    individuals,,,mouse1,mouse1,…          in projects of several animals only
    bodyparts,,,snout,snout,…
    coords,,,x,y,…
    labeled-data,video1,img001.png,308.9,216.7,…

The image is in one column or in three. An empty place is not labelled; there is no other visibility, and there are no boxes.
Body parts of the individual `single` are those that occur once in an image. `skeleton` is in the project's `config.yaml`.
(deeplabcut.github.io, "maDLC user guide" and the project's example data.)
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rpgmt.config.text_files import read_text
from rpgmt.config.yaml_files import load_yaml
from rpgmt.data.convert.image_files import Claims, ImageFinder, Placer
from rpgmt.data.convert.labels import ALL, Part, Point, box_round, category, count_text, flat_name
from rpgmt.data.image_headers import image_size
from rpgmt.errors import UserError
from rpgmt.whole_files import whole_file

_SCORER = "rpgmt"
_SPLITS = ("train", "val", "test")
Column = tuple[str, str, str]
"""Individual, body part and coordinate."""


def read(source: Path, images: Path | None, notes: list[str]) -> list[Part]:
    """A project, a folder with one of its CSV files, or such a file.

    Folders that are called train, val and test are splits.

    Raises:
        UserError: there is no such file, or a row is malformed.
    """
    files = [source] if source.is_file() else sorted(source.rglob("CollectedData_*.csv"))
    if not files:
        raise UserError(f"{source}: no CollectedData_*.csv in it: give DeepLabCut's project or one of these files")
    tables = [_table(path) for path in files]
    categories = _categories([column for columns, _ in tables for column in columns], _edges(source, files[0]))
    if len(categories) > 1:
        notes.append("body parts that occur once in an image (`single`) are a category of their own")
    parts: dict[str, Part] = {}
    animals, claims = 0, Claims()
    for path, (columns, rows) in zip(files, tables, strict=True):
        split = path.parent.name if path.parent.name in _SPLITS else ALL
        part = parts.setdefault(split, Part(split, categories))
        finder = ImageFinder([images] if images else [path.parent, path.parent.parent.parent, path.parent.parent], path, claims)
        for name, values in rows:
            short = name.rpartition("/")[2]
            file = finder.find(short, name) if (path.parent / short).is_file() else finder.find(name, short)
            if file is None:
                continue
            size = image_size(file)
            folder = name.split("/")[-2] if "/" in name else ""
            title = short if split != ALL or not folder else f"{folder}/{short}"
            number = part.add_image(title, *size, file)
            for entry, points in _people(columns, values, categories):
                part.add_person(number, entry["id"], points, box_round(points, *size))
                animals += 1
        finder.check()
    notes.append(f"DeepLabCut has no boxes: of {count_text(animals, 'animal')} it is round the points, which are all visible")
    return list(parts.values())


def _table(path: Path) -> tuple[list[Column], list[tuple[str, list[str]]]]:
    """The columns of a file, and of each row the image's name and the cells."""
    try:
        rows = [row for row in csv.reader(read_text(path).splitlines()) if row]
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV file: {error}") from error
    heads: dict[str, list[str]] = {}
    while rows and rows[0][0] in ("scorer", "individuals", "bodyparts", "coords"):
        head, *cells = rows.pop(0)
        heads[head] = cells
    if not {"bodyparts", "coords"} <= heads.keys():
        raise UserError(f"{path}: no lines `bodyparts` and `coords` at its top: give DeepLabCut's CollectedData_*.csv")
    if "likelihood" in heads["coords"]:
        raise UserError(f"{path}: has likelihoods: these are predictions on a video; give labels, CollectedData_*.csv")
    first = next((i for i, cell in enumerate(heads["coords"]) if cell in ("x", "y")), 0)  # three columns name the image, or one
    width = len(heads["coords"])
    individuals = heads.get("individuals", [""] * width)
    lengths = {len(heads["bodyparts"]), len(individuals), width}
    columns = list(zip(individuals[first:], heads["bodyparts"][first:], heads["coords"][first:], strict=False))
    doubled = next((column for column in columns if columns.count(column) > 1), None) if len(columns) < 5000 else None
    if len(lengths) > 1 or any(column[2] not in ("x", "y") for column in columns) or doubled:
        raise UserError(f"{path}: the lines at its top do not name an x and a y for each body part, each once")
    found = []
    for line, (head, *cells) in enumerate(rows, len(heads) + 1):
        if len(cells) != width:
            raise UserError(f"{path}, line {line}: {len(cells) + 1} cells: the top has {width + 1}")
        found.append(("/".join([head, *cells[:first]]).replace("\\", "/"), cells[first:]))
        for cell in cells[first:]:
            _number(cell, f"{path}, line {line}")
    return columns, found


def _number(cell: str, where: str) -> float | None:
    """A coordinate, or None where there is none."""
    if not cell.strip():
        return None
    try:
        value = float(cell)
    except ValueError:
        raise UserError(f"{where}: {cell!r} is no coordinate: give a number of pixels, or nothing") from None
    if math.isinf(value):
        raise UserError(f"{where}: a coordinate is infinite: give a number of pixels, or nothing")
    return None if math.isnan(value) else value


def _edges(source: Path, csv_file: Path) -> list[tuple[str, str]]:
    """The pairs of body parts in `skeleton` of the project's `config.yaml`."""
    folders = [source if source.is_dir() else source.parent, csv_file.parent, *csv_file.parents[1:3]]
    path = next((folder / "config.yaml" for folder in folders if (folder / "config.yaml").is_file()), None)
    edges = load_yaml(path).get("skeleton") if path else None
    return [(str(edge[0]), str(edge[1])) for edge in edges or [] if isinstance(edge, list) and len(edge) == 2]


def _categories(columns: Sequence[Column], edges: list[tuple[str, str]]) -> list[dict[str, Any]]:
    animals = list(dict.fromkeys(part for individual, part, _ in columns if individual != "single"))
    once = list(dict.fromkeys(part for individual, part, _ in columns if individual == "single"))
    found = [("animal", animals)] if animals else []
    found += [("single", once)] if once else []
    return [
        category(
            number,
            name,
            names,
            skeleton=[[names.index(a) + 1, names.index(b) + 1] for a, b in edges if a in names and b in names] or None,
        )
        for number, (name, names) in enumerate(found, 1)
    ]


def _people(
    columns: list[Column], cells: list[str], categories: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], list[Point]]]:
    """Of each individual that has a labelled point its category and all points."""
    places: dict[str, dict[str, dict[str, float]]] = {}
    for (individual, part, axis), cell in zip(columns, cells, strict=True):
        if (value := _number(cell, "")) is not None:
            places.setdefault(individual, {}).setdefault(part, {})[axis] = value
    result = []
    for individual, found in places.items():
        entry = categories[-1] if individual == "single" else categories[0]
        whole = {name: (place["x"], place["y"], 2) for name, place in found.items() if len(place) == 2}
        if whole:
            result.append((entry, [whole.get(name, (0.0, 0.0, 0)) for name in entry["keypoints"]]))
    return result


def write(parts: list[Part], out: Path, placer: Placer, notes: list[str]) -> Path:
    """Writes a folder for each split, `labeled-data/<split>/CollectedData_rpgmt.csv` with its images, and returns the folder.

    Body parts of several categories are one list; individuals are numbered in each image.
    """
    names = list(dict.fromkeys(name for entry in parts[0].categories for name in entry["keypoints"]))
    keypoints = {entry["id"]: entry["keypoints"] for entry in parts[0].categories}
    most = max((len(people) for part in parts for _, people in part.people_of_images()), default=1)
    individuals = [f"individual{i + 1}" for i in range(max(1, most))]
    columns = [(one, name, axis) for one in individuals for name in names for axis in "xy"]
    hidden = empty = 0
    for part in parts:
        folder = out / "labeled-data" / part.split
        heads = {"scorer": [_SCORER] * len(columns)}
        heads |= {"individuals": [column[0] for column in columns]} if most > 1 else {}
        heads |= {"bodyparts": [column[1] for column in columns], "coords": [column[2] for column in columns]}
        rows = [[key, "", "", *cells] for key, cells in heads.items()]
        for image, people in part.people_of_images():
            name = flat_name(image["file_name"])
            placer.place(part.files[image["id"]], folder / name)
            cells = dict.fromkeys(columns, "")
            labelled = [(person, points) for person, points in people if any(point[2] for point in points)]
            empty += len(people) - len(labelled)
            for one, (person, points) in zip(individuals, labelled, strict=False):
                for point, (x, y, v) in zip(keypoints[person["category_id"]], points, strict=True):
                    if v:
                        cells[one, point, "x"], cells[one, point, "y"] = repr(float(x)), repr(float(y))
                    hidden += v == 1
            rows.append(["labeled-data", part.split, name, *cells.values()])
        with (
            whole_file(folder / f"CollectedData_{_SCORER}.csv") as part_file,
            part_file.open("w", encoding="utf-8", newline="") as file,
        ):
            csv.writer(file).writerows(rows)
    notes.append("DeepLabCut has no boxes, visibility, areas, pairs, sigmas or segments: they are left out")
    if hidden:
        notes.append(f"{count_text(hidden, 'hidden key point')} are as good as visible ones there")
    if empty:
        notes.append(f"{count_text(empty, 'person', 'people')} without labelled key points left out")
    return out / "labeled-data"
