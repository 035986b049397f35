"""Boxes of people from a file in COCO's format, and the ids that it gives to images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpgmt.config.json_files import read_json
from rpgmt.data.coco.annotations import are_numbers, is_box
from rpgmt.data.coco.person import clip_box
from rpgmt.data.coco.tidy import tidy
from rpgmt.errors import UserError

PERSON = 1
"""COCO's category of persons."""


@dataclass(frozen=True)
class BoxedImage:
    """An image under its id.

    Args:
        id: of the image.
        boxes: (P, 5), x, y, w, h, score; 1 where there is none. None: no file has boxes.
        size: (W, H) in pixels that its boxes are in; None where the file does not say.
    """

    id: int | str
    boxes: NDArray[np.float64] | None
    size: tuple[int, int] | None


class Boxes:
    """The boxes of a file, by the names of the images.

    Args:
        images: entries with `id`, `file_name`, and where known `width` and `height`.
        rows: with `image_id`, `bbox` and perhaps `score`.
        category_id: of the people.
        name: of the file, for messages.
    """

    def __init__(
        self, images: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], category_id: int, name: str
    ) -> None:
        self.category_id, self.name = category_id, name
        self._rows: dict[int | str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            self._rows[row["image_id"]].append(row)
        self._by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for image in images:
            self._by_name[PurePath(image["file_name"]).name].append(image)
        self._taken: dict[int | str, str] = {}

    def of(self, path: str) -> BoxedImage:
        """What the file says about an image.

        The image is the entry whose `file_name`, folders included, ends the path; of several the longest.

        Raises:
            UserError: there is none, it is that of another path too, or a box is wrong.
        """
        parts = Path(path).absolute().parts
        entries = [e for e in self._by_name[parts[-1]] if parts[-len(wanted := PurePath(e["file_name"]).parts) :] == wanted]
        if not entries:
            raise UserError(f"{path}: {self.name} names no such image")
        entry = max(entries, key=lambda entry: len(PurePath(entry["file_name"]).parts))
        if (other := self._taken.setdefault(entry["id"], path)) != path:
            raise UserError(f"{path}: {self.name} names one image, {entry['file_name']}, for it and for {other}")
        boxes = [box for row in self._rows[entry["id"]] if (box := self._box(row, entry)) is not None]
        size = (entry["width"], entry["height"]) if _has_size(entry) else None
        return BoxedImage(entry["id"], np.array(boxes, np.float64).reshape(-1, 5), size)

    def _box(self, row: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[float, ...] | None:
        box = clip_box(row["bbox"], dict(entry), self.name) if _has_size(entry) else tuple(map(float, row["bbox"]))
        return None if box is None else (*box, float(row.get("score", 1.0)))


def read_boxes(file: Path, annotations: Path | None) -> Boxes:
    """Boxes of people from a file.

    Args:
        file: a COCO document, whose `annotations` with the category of key points, or else of persons, are taken but for
            crowds and people whose key points are all unlabelled, as in an evaluation; or a list of COCO's box results,
            `image_id`, `category_id`, `bbox`, `score`.
        annotations: of a list of results, a COCO document whose `images` say which file an `image_id` is. Without one each
            result needs a `file_name`.

    Raises:
        UserError: a file is not such a file, or nothing in it is a person.
    """
    found = read_json(file)
    if isinstance(found, dict):
        found = tidy(found, str(file))
        categories, images = _categories(found), _images(found, file)
        rows = [row for row in _list(found, "annotations", file) if isinstance(row, dict) and not _left_out(row)]
    elif isinstance(found, list):
        rows = found
        document = None if annotations is None else read_json(annotations)
        if document is not None and not isinstance(document, dict):
            raise UserError(f"{annotations}: not a COCO document: the top level is to be an object with a list `images`")
        categories = (PERSON,) if document is None else _categories(tidy(document, str(annotations)))
        images = _images_of_rows(rows, file) if document is None else _images(document, annotations)
    else:
        raise UserError(f"{file}: neither a COCO document nor a list of results")
    for number, row in enumerate(rows):
        _check(row, f"{file}: entry {number}")
    people = [row for row in rows if row.get("category_id", categories[0]) in categories]
    if not people:
        raise UserError(f"{file}: nobody with a box and the `category_id` {' or '.join(map(str, categories))}")
    return Boxes(images, people, categories[0], str(file))


def _left_out(row: Mapping[str, Any]) -> bool:
    points = row.get("keypoints")
    unlabelled = isinstance(points, list) and len(points) > 0 and not any(points[2::3])
    return bool(row.get("iscrowd")) or unlabelled


def _categories(document: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids of the categories with key points, which count as one as in training, else of that called person, else COCO's."""
    categories = [c for c in document.get("categories") or [] if isinstance(c, dict) and isinstance(c.get("id"), int)]
    of_people = [c for c in categories if c.get("keypoints")] or [c for c in categories if c.get("name") == "person"]
    return tuple(c["id"] for c in of_people) or (PERSON,)


def _images(document: Mapping[str, Any], file: Path | None) -> list[dict[str, Any]]:
    images = _list(document, "images", file)
    for image in images:
        if not (isinstance(image, dict) and isinstance(image.get("id"), int | str) and isinstance(image.get("file_name"), str)):
            raise UserError(f"{file}: an entry of `images` has no `id` or no `file_name`")
    return images


def _images_of_rows(rows: Sequence[Any], file: Path) -> list[dict[str, Any]]:
    names = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise UserError(
                f"{file}: entry {number} has no `file_name`: give the document with its images by --annotations FILE"
            )
        names[row.get("image_id", row["file_name"])] = row["file_name"]
        row.setdefault("image_id", row["file_name"])
    return [{"id": id, "file_name": name} for id, name in names.items()]


def _list(document: Mapping[str, Any], key: str, file: Path | None) -> list[Any]:
    if not isinstance(document.get(key), list):
        raise UserError(f"{file}: not a COCO document: it needs a list `{key}`")
    return document[key]


def _check(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise UserError(f"{where} is {str(row)[:40]!r}: give an object with image_id, bbox and score")
    for key, valid, text in (
        ("image_id", isinstance(row.get("image_id"), int | str), "the id of an image"),
        ("bbox", is_box(row.get("bbox")), "[x, y, width, height] in pixels"),
        ("score", are_numbers([row.get("score", 1)]), "a number"),
    ):
        if not valid:
            raise UserError(f"{where}: `{key}` is {str(row.get(key, 'missing'))[:40]!r}: give {text}")


def _has_size(entry: Mapping[str, Any]) -> bool:
    return all(isinstance(entry.get(key), int) and entry[key] > 0 for key in ("width", "height"))
