"""Checks of people with key points: the document as the readers see it, and what they take without a word."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt.data.check.findings import Findings
from rpgmt.data.coco.annotations import are_numbers, complete_annotation, is_box, is_id, is_integer, keypoint_category
from rpgmt.data.coco.joining import join_categories
from rpgmt.data.coco.keypoint_names import side_and_part
from rpgmt.data.coco.person import has_size
from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.coco.tidy import tidy
from rpgmt.errors import UserError

_LISTS = ("images", "annotations", "categories")
_TOLERANCE = 1.0
"""Pixels that a box or a point may lie outside of its image without a word: rounding."""
MOST_PEOPLE = 20
"""In an image, of whom COCO's evaluation of key points takes the results."""
SMALLEST_AREA = 0.01
"""Part of the box that somebody's segment may be without a word."""
MANY = 0.01
"""Part of the people with points at one place above which that is no accident."""


@dataclass(frozen=True)
class SoundPart:
    """What is left of a document without the entries that training would refuse.

    Args:
        document: in COCO's format, with one category that has key points.
        refused: ids of images that somebody is on who is not in it.
    """

    document: dict[str, Any]
    refused: set[Any]


def sound_part(document: Any, name: str, findings: Findings, categories: Sequence[str] | None = None) -> SoundPart | None:
    """Lists every entry that training would refuse, and returns the document without them, or None if nothing can be read.

    Args:
        document: parsed, whatever it is.
        name: of the file, for messages.
        findings: gets what is wrong.
        categories: names of those that are the people; None: all that have key points.
    """
    with findings.warnings_as_facts():
        document = tidy(document, name)
    if isinstance(document, dict) and all(isinstance(document.get(key), list) for key in _LISTS):
        own = {key: _with_own_ids(document[key], key, name, findings) for key in _LISTS}
        if any(document[key] and not own[key] for key in _LISTS):
            return None
        document = {**document, **own}
    try:
        with findings.warnings_as_facts():
            document, _ = join_categories(document, name, categories)
        category = keypoint_category(document, name)
    except UserError as error:
        findings.refuse("files that are no COCO key-point documents", str(error))
        return None
    images = [image for image in document["images"] if _has_size(image, name, findings)]
    # Who is on an image that was refused just now is on an image: what is said of it is enough.
    known, left, count = *({image["id"] for image in some} for some in (document["images"], images)), len(category["keypoints"])
    sound, refused, people = [], set(), 0
    for annotation in document["annotations"]:
        if not is_integer(annotation.get("category_id")):
            given = repr(annotation.get("category_id", "missing"))
            findings.refuse("annotations whose `category_id` is no integer", f"{name}: annotation {annotation['id']}: {given}")
        elif annotation["category_id"] != category["id"]:
            sound.append(annotation)
            continue
        else:
            try:
                complete_annotation(annotation, count, known, name)
            except UserError as error:
                findings.refuse(_title(annotation, count, known), str(error))
            else:
                if annotation["image_id"] in left:
                    sound.append(annotation)
                    people += 1
                continue
        if is_id(annotation.get("image_id"), "images"):
            refused.add(annotation["image_id"])
    if not people:
        if not refused and len(images) == len(document["images"]):
            findings.refuse("files in which nobody is left", name)
        return None
    return SoundPart({**document, "images": images, "annotations": sound}, refused)


def _with_own_ids(entries: list[Any], key: str, name: str, findings: Findings) -> list[Any]:
    seen: set[Any] = set()
    result = []
    for entry in entries:
        number = entry.get("id") if isinstance(entry, dict) else None
        if not is_id(number, key):
            findings.refuse(f"`{key}` that are no objects with an `id`", f"{name}: {str(entry)[:80]}")
        elif number in seen:
            findings.refuse(f"`{key}` with the `id` of another", f"{name}: {number!r}")
        else:
            seen.add(number)
            result.append(entry)
    return result


def _has_size(image: dict[str, Any], name: str, findings: Findings) -> bool:
    if has_size(image) and isinstance(image.get("file_name"), str):
        return True
    findings.refuse("images without `file_name`, `width` or `height`", f"{name}: image {image['id']}")
    return False


def _title(annotation: dict[str, Any], count: int, images: set[Any]) -> str:
    """What the check of an annotation stumbled over; the order is that of the check."""
    image, points, area = annotation.get("image_id"), annotation.get("keypoints"), annotation.get("area")
    if not is_id(image, "images") or image not in images:
        return "annotations of no image"
    if not is_box(annotation.get("bbox")):
        return "annotations without a box of four numbers"
    if points and (not are_numbers(points) or len(points) != 3 * count):
        return "annotations without x, y, v for each key point"
    if points and set(points[2::3]) - {0, 1, 2}:
        return "annotations with a visibility that is not 0, 1 or 2"
    if not are_numbers([area]) or not area or area <= 0:
        return "labelled people without an area"
    return "malformed annotations"


def check_points(keypoints: KeypointSet, findings: Findings) -> None:
    """Notes of names and pairs: what a mirror image does with left and right."""
    order = keypoints.flip_order
    for index, point in enumerate(keypoints.names):
        side, part = side_and_part(point)
        other, same = side_and_part(keypoints.names[order[index]])
        if side and order[index] == index:
            findings.note("key points with a side that no mirror image exchanges: give `flip_pairs`", point)
        elif order[index] > index and ((side, part) == (other, same) or part != same or (bool(side) != bool(other))):
            pair = f"{point} and {keypoints.names[order[index]]}"
            findings.note("pairs that a mirror image exchanges, and their names do not say why", pair)


def check_labels(document: dict[str, Any], name: str, findings: Findings) -> dict[str, int]:
    """Notes of people, boxes and points that training takes as they are; returns counts.

    Args:
        document: sound.
        name: of the file.
        findings: gets the notes.
    """
    category = keypoint_category(document, name)
    names = category["keypoints"]
    images = {image["id"]: image for image in document["images"]}
    people = [entry for entry in document["annotations"] if entry.get("category_id") == category["id"]]
    labels, crowds, unlabelled = Counter[str](), 0, 0
    labelled = []
    for entry in people:
        flat = entry.get("keypoints") or [0] * (3 * len(names))
        points = np.array(flat, np.float64).reshape(-1, 3)
        if entry.get("iscrowd"):
            crowds += 1
        elif not (points[:, 2] > 0).any():
            unlabelled += 1
        else:
            labelled.append((entry, points))
            labels.update(name for name, point in zip(names, points, strict=True) if point[2] > 0)
        if "num_keypoints" in entry and entry["num_keypoints"] != int((points[:, 2] > 0).sum()):
            findings.note("people whose `num_keypoints` is wrong (it is counted anew)", f"{name}: annotation {entry['id']}")
    for entry, points in labelled:
        _check_person(entry, points, names, images[entry["image_id"]], f"{name}: annotation {entry['id']}", findings)
    _check_twins(labelled, name, findings)
    _check_origin([points for _, points in labelled], name, findings)
    for number, count in Counter(entry["image_id"] for entry, _ in labelled).items():
        if count > MOST_PEOPLE:
            title = f"images with more than {MOST_PEOPLE} people (COCO's evaluation counts the {MOST_PEOPLE} best found)"
            findings.note(title, f"{name}: {images[number]['file_name']} with {count}")
    for point in names:
        if not labels[point]:
            findings.note("key points that are labelled on nobody", f"{name}: {point}")
    if unlabelled:
        findings.fact(f"{name}: {unlabelled} of {len(people)} people have no labelled key point: nobody trains on them")
    occupied = {entry["image_id"] for entry, _ in labelled}
    files = Counter(image["file_name"] for image in images.values())
    for file, count in files.items():
        if count > 1:
            findings.note("images with several entries", f"{name}: {file}")
    if empty := len(images) - len(occupied):
        findings.fact(f"{name}: {empty} of {len(images)} images have nobody to train on")
    flags = [int(v) for _, points in labelled for v in points[:, 2]]
    return {
        "images": len(images),
        "people": len(people),
        "trained on": len(labelled),
        "crowds": crowds,
        "visible": flags.count(2),
        "hidden": flags.count(1),
        "not labelled": flags.count(0),
    }


def _check_person(
    entry: dict[str, Any], points: np.ndarray, names: Sequence[str], image: dict[str, Any], where: str, findings: Findings
) -> None:
    x, y, w, h = entry["bbox"]
    width, height = image["width"], image["height"]
    if w < 2 or h < 2:
        findings.note("people whose box is narrower than 2 pixels", f"{where}: {entry['bbox']}")
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        findings.note("people left out, as their box lies outside the image", f"{where}: {entry['bbox']}")
    elif min(x, y) < -_TOLERANCE or x + w > width + _TOLERANCE or y + h > height + _TOLERANCE:
        findings.note("boxes that stick out of the image (they are cut off)", f"{where}: {entry['bbox']} in {width}×{height}")
    seen = points[:, 2] > 0
    inside = (points[:, 0] >= x - 1) & (points[:, 0] <= x + w) & (points[:, 1] >= y - 1) & (points[:, 1] <= y + h)
    if 2 * (seen & ~inside).sum() > seen.sum():
        lost = f"{(seen & ~inside).sum()} of {seen.sum()} points"
        findings.note("people most of whose points lie outside their box", f"{where}: {lost}, box {entry['bbox']}")
    out = (points[:, 0] < -_TOLERANCE) | (points[:, 1] < -_TOLERANCE)
    out |= (points[:, 0] > width - 1 + _TOLERANCE) | (points[:, 1] > height - 1 + _TOLERANCE)
    for index in np.flatnonzero(seen & out).tolist():
        place = f"({points[index, 0]:g}, {points[index, 1]:g})"
        findings.note("labelled key points outside their image", f"{where}: {names[index]} {place} in {width}×{height}")
    if seen.sum() > 2 and len({tuple(point[:2]) for point in points[seen]}) == 1:
        findings.note("people all of whose points lie at one place", where)
    area = entry.get("area") or 0
    if area > 1.01 * w * h:
        findings.note("people whose area is larger than their box", f"{where}: {area:g}, box {entry['bbox']}")
    elif area < SMALLEST_AREA * w * h:
        title = "people whose area is below 1 % of their box (in square pixels? OKS and AP forgive them nothing)"
        findings.note(title, f"{where}: {area:g}, box {entry['bbox']}")


def _check_origin(poses: Sequence[np.ndarray], name: str, findings: Findings) -> None:
    """Some programs write a place that is none for points that are not labelled, and a v that says they are."""
    for place in (0, -1):
        there = [int(((points[:, :2] == place).all(1) & (points[:, 2] > 0)).sum()) for points in poses]
        if (people := sum(count > 0 for count in there)) > max(1, MANY * len(there)):
            text = f"{sum(there)} labelled key points of {people} of {len(there)} people lie at exactly ({place}, {place})"
            findings.fact(f"{name}: {text}: perhaps not labelled: give them v = 0")


def _check_twins(labelled: list[tuple[dict[str, Any], np.ndarray]], name: str, findings: Findings) -> None:
    seen: dict[Any, Any] = {}
    for entry, points in labelled:
        first = seen.setdefault((entry["image_id"], points.tobytes()), entry["id"])
        if first != entry["id"]:
            findings.note("people labelled twice, with the same points", f"{name}: annotations {first} and {entry['id']}")


def compare_points(found: dict[str, KeypointSet], root: Path, findings: Findings) -> None:
    """Refuses splits whose key points are not the same."""
    meanings = {split: [side_and_part(point) for point in points.names] for split, points in found.items()}
    if "train" in meanings and "val" in meanings and meanings["train"] != meanings["val"]:
        both = " and ".join(", ".join(found[split].names) for split in ("train", "val"))
        findings.refuse("splits whose key points are not the same ones in the same order", f"{root}: {both}")


def images_of_people(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The entries of images that somebody is on who is trained on."""
    category = keypoint_category(document, name)
    wanted: dict[Any, bool] = defaultdict(bool)
    for entry in document["annotations"]:
        if entry.get("category_id") == category["id"] and not entry.get("iscrowd"):
            wanted[entry["image_id"]] |= any(v > 0 for v in (entry.get("keypoints") or [])[2::3])
    return [image for image in document["images"] if wanted[image["id"]]]
