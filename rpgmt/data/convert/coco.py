"""COCO's format, which is what training reads: `annotations/person_keypoints_{split}.json` and `images/{split}/`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from rpgmt.config.json_files import read_json
from rpgmt.data.coco.annotations import AREA_RULE, are_numbers, check_lists, complete_annotation, is_box, keypoint_category
from rpgmt.data.coco.category import keypoint_set
from rpgmt.data.coco.data_root import annotation_files, image_folders
from rpgmt.data.coco.joining import check_category_ids
from rpgmt.data.coco.tidy import tidy
from rpgmt.data.convert.image_files import Claims, ImageFinder, Placer, near
from rpgmt.data.convert.labels import ALL, Part, count_text, safe_name, the_category
from rpgmt.errors import UserError
from rpgmt.whole_files import write_text

_SPLITS = ("train", "val", "test")


def read(source: Path, images: Path | None, notes: list[str]) -> list[Part]:
    """A folder in COCO's layout, all of its splits, or one JSON file.

    Missing areas are filled in by the rule for boxes. Annotations of categories without key points are left out.

    Raises:
        UserError: nothing is there, an image is missing, or an entry is malformed.
    """
    if source.is_file():
        return [_read(source, ALL, near(source, images), notes, {})]
    parts, claims = [], Claims()
    for split in _SPLITS:
        path = next((source / name for name in annotation_files(split) if (source / name).is_file()), None)
        if path is not None:
            folders = [images] if images else [source / name for name in image_folders(split)]
            parts.append(_read(path, split, folders, notes, claims))
    if not parts:
        looked = ", ".join(name for split in _SPLITS for name in annotation_files(split)[:2])
        raise UserError(f"{source}: no annotations in COCO's format: looked for {looked}; or give the JSON file")
    return parts


def _read(path: Path, split: str, folders: Any, notes: list[str], claims: Claims) -> Part:
    document, name = tidy(read_json(path), str(path)), str(path)
    check_lists(document, name)
    check_category_ids(document, name)
    categories = [entry for entry in document["categories"] if entry.get("keypoints")]
    if not categories:
        raise UserError(f"{path}: no category has a list `keypoints` of names")
    for entry in categories:
        keypoint_category({**document, "categories": [entry]}, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is inferred, training says
            keypoint_set(entry, name)
    counts = {entry["id"]: len(entry["keypoints"]) for entry in categories}
    part, finder = Part(split, categories), ImageFinder(folders, path, claims)
    for image in document["images"]:
        size = image.get("width"), image.get("height")
        if not isinstance(image.get("file_name"), str) or not are_numbers(size) or min(size) <= 0:
            raise UserError(f"{path}: image {image['id']} needs `file_name`, `width` and `height` in pixels")
        part.images.append(image)
        name_in_split = [] if split == ALL else [f"{split}/{image['file_name']}"]
        if file := finder.find(image["file_name"], *name_in_split):
            part.files[image["id"]] = file
    finder.check()
    known, areas = {image["id"] for image in part.images}, 0
    for entry in document["annotations"]:
        if (number := entry["category_id"]) not in counts:
            continue
        if not entry.get("area") and is_box(box := entry.get("bbox")):
            entry, areas = {**entry, "area": AREA_RULE * box[2] * box[3]}, areas + 1
        part.annotations.append(complete_annotation(entry, counts[number], known, name))
    if areas:
        notes.append(f"{path.name}: {count_text(areas, 'area')} missing: {AREA_RULE} · width · height of the box")
    if others := len(document["annotations"]) - len(part.annotations):
        notes.append(f"{path.name}: {count_text(others, 'annotation')} of categories without key points left out")
    return part


def write(parts: list[Part], out: Path, placer: Placer, notes: list[str]) -> Path:
    """Writes the layout that `train.py pose --data coco` reads, and returns what it is called with: the folder.

    Raises:
        UserError: there is more than one category, which training does not take.
    """
    the_category(parts[0].categories, "training")
    for part in parts:
        images = [{**image, "file_name": safe_name(image["file_name"])} for image in part.images]
        for image in images:
            placer.place(part.files[image["id"]], out / "images" / part.split / image["file_name"])
        path = out / f"annotations/person_keypoints_{part.split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            text = json.dumps({**part.document, "images": images}, allow_nan=False)
        except ValueError as error:
            raise UserError("a number of the source is not finite, which JSON does not have: mend it there") from error
        write_text(path, text)
    return out
