"""What all formats are read into: images, categories and people as COCO has them, and where the image files are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rpgmt.data.coco.annotations import AREA_RULE
from rpgmt.data.coco.entries import points_box
from rpgmt.data.coco.keypoint_names import infer_flip_pairs, side_and_part
from rpgmt.data.coco.person import clip_box
from rpgmt.data.regions import Box
from rpgmt.errors import UserError

ALL = "all"
"""The split of a format that does not tell splits apart."""

DIGITS = 6
"""Decimals of a pixel that survive a format with parts of the image's size: x / width · width is not x to the last bit."""

_MARGIN = 0.1
_LEAST_MARGIN = 4.0

Point = tuple[float, float, int]
"""x and y in pixels, and COCO's v: 0 not labelled, 1 hidden, 2 visible."""


@dataclass
class Part:
    """The labelled images of one split.

    Args:
        split: "train", "val", …, or `ALL`.
        categories: COCO's, each with `keypoints`: names.
        images: COCO's entries: `id`, `file_name`, `width`, `height`.
        annotations: COCO's, of these categories and complete: `bbox`, `area`, `iscrowd`, `keypoints`, `num_keypoints`.
        files: of each image's id the file.
    """

    split: str
    categories: list[dict[str, Any]]
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    files: dict[Any, Path] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """As COCO writes it."""
        return {"images": self.images, "annotations": self.annotations, "categories": self.categories}

    def add_image(self, file_name: str, width: int, height: int, file: Path) -> int:
        """Adds an image and returns its id."""
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        self.files[number] = file
        return number

    def add_person(self, image: int, category: int, points: Sequence[Point], box: Sequence[float]) -> None:
        """Adds a person; the area is `AREA_RULE` of the box, as none of the formats but COCO's has one."""
        flat = [value for point in points for value in (point if point[2] else (0.0, 0.0, 0))]
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": image,
                "category_id": category,
                "bbox": [round(float(value), DIGITS) for value in box],
                "area": AREA_RULE * box[2] * box[3],
                "iscrowd": 0,
                "keypoints": flat,
                "num_keypoints": sum(point[2] > 0 for point in points),
            }
        )

    def people(self) -> Iterable[tuple[dict[str, Any], dict[str, Any], list[Point]]]:
        """Of each annotation that is no crowd: its image, itself and its points."""
        images = {image["id"]: image for image in self.images}
        for annotation in self.annotations:
            if not annotation["iscrowd"]:
                flat = annotation["keypoints"]
                yield images[annotation["image_id"]], annotation, list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))

    def people_of_images(self) -> Iterable[tuple[dict[str, Any], list[tuple[dict[str, Any], list[Point]]]]]:
        """Each image with its people."""
        found: dict[Any, list[tuple[dict[str, Any], list[Point]]]] = {image["id"]: [] for image in self.images}
        for image, annotation, points in self.people():
            found[image["id"]].append((annotation, points))
        return ((image, found[image["id"]]) for image in self.images)


def category(number: int, name: str, keypoints: Sequence[str], **more: Any) -> dict[str, Any]:
    """A category; `more` may be `skeleton` (numbers from 1) and `flip_pairs` (names), left out where None."""
    own = {key: value for key, value in more.items() if value is not None}
    return {"id": number, "name": name, "keypoints": list(keypoints), **own}


def flip_pairs(entry: dict[str, Any]) -> list[tuple[int, int]]:
    """The pairs (left, right) of a category as indices, from itself or from the names."""
    names = entry["keypoints"]
    if entry.get("flip_pairs") is not None:
        return [(names.index(a), names.index(b)) for a, b in entry["flip_pairs"]]
    return list(infer_flip_pairs(tuple(names)))


def pairs_by_name(names: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[list[str]]:
    """Pairs of names, the left one first where the names tell."""
    found = sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]})
    return [[names[b], names[a]] if side_and_part(names[a])[0] == "right" else [names[a], names[b]] for a, b in found]


def box_round(points: Sequence[Point], width: int, height: int) -> Box:
    """The box (x, y, w, h) round the labelled points, in the image: a tenth of its longer side wider on each side.

    Hands, feet and tails stick out of the points; the box of LSP is made in the same way. At least 4 pixels are added, since
    one point has no extent.
    """
    labelled = np.array([point[:2] for point in points if point[2] > 0])
    margin = max(_LEAST_MARGIN, _MARGIN * float(np.ptp(labelled, axis=0).max()))
    box = points_box(labelled, margin)
    return clip_box(box, {"id": 0, "width": width, "height": height}, "image") or box


def safe_name(name: str) -> str:
    """An image's name as a relative path that does not leave its folder."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".") and ":" not in part]
    if not parts:
        raise UserError(f"an image is called {name!r}: give it a name")
    return "/".join(parts)


def flat_name(name: str) -> str:
    """An image's name as that of a file in one folder."""
    return safe_name(name).replace("/", "_")


def split_of(name: str | None) -> str:
    """A split under the name that training has for it: CVAT's "Default" is `ALL`, "Validation" is "val"."""
    known = {"": ALL, "default": ALL, "training": "train", "valid": "val", "validation": "val"}
    return known.get((name or "").lower(), safe_name((name or "").lower() or ALL))


def the_category(categories: Sequence[dict[str, Any]], what: str) -> dict[str, Any]:
    """The only category.

    Raises:
        UserError: there are several, which `what` has no place for.
    """
    if len(categories) > 1:
        names = ", ".join(str(entry.get("name", entry["id"])) for entry in categories)
        raise UserError(f"the source has key points of {names}, and {what} takes one of them: choose it by --category NAME")
    return categories[0]


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """E.g. "1 person", "3 people"."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
