"""From one format to another."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpgmt.data.convert import coco, cvat, deeplabcut, label_studio, sleap, yolo
from rpgmt.data.convert.image_files import Placer
from rpgmt.data.convert.labels import ALL, Part, count_text
from rpgmt.data.file_names import ALLOWED
from rpgmt.data.image_headers import image_size
from rpgmt.data.random_numbers import generator
from rpgmt.errors import UserError


@dataclass(frozen=True)
class Format:
    """What reads and writes a format, and what a set to train on has two splits in."""

    read: Callable[[Path, Path | None, list[str]], list[Part]]
    write: Callable[[list[Part], Path, Placer, list[str]], Path]
    trains: bool = False


FORMATS = {
    "coco": Format(coco.read, coco.write, trains=True),
    "yolo-pose": Format(yolo.read, yolo.write, trains=True),
    "label-studio": Format(label_studio.read, label_studio.write),
    "cvat": Format(cvat.read, cvat.write),
    "deeplabcut": Format(deeplabcut.read, deeplabcut.write),
    "sleap": Format(sleap.read, sleap.write),
}
"""By the names that `--from` and `--to` take."""


@dataclass(frozen=True)
class Converted:
    """What was written.

    Args:
        parts: by split.
        result: the file or folder that other programs are given.
        notes: what could not be kept, was filled in or left out, a line each.
        linked: the value of `RPGMT_LINKED_DATA` that who reads the links needs; "" where there are none.
    """

    parts: Sequence[Part]
    result: Path
    notes: Sequence[str]
    linked: str = ""


def convert(
    source: Path,
    out: Path,
    *,
    origin: str,
    target: str,
    images: Path | None = None,
    category: str | None = None,
    val: float = 0.2,
    seed: int = 0,
    link: bool = False,
) -> Converted:
    """Reads labels in one format and writes them, with the images, in another.

    Args:
        source: file or folder.
        out: new or empty folder.
        origin, target: names in `FORMATS`.
        images: where the images are, if not beside the labels.
        category: the one to take over; None: all.
        val: of a source without splits, the part of the images to validate on, where the target is to be trained on.
        seed: which these are.
        link: symbolic links to the images in place of copies.

    Raises:
        UserError: the source is malformed or holds nobody, an image is turned
            by Exif and its labels are not, or the folder is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"`--out` is {out}: give a new or an empty folder, as nothing is overwritten")
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    if source.suffix == ".zip":
        raise UserError(f"{source}: unpack it first, and give the folder")
    if images is not None and not images.is_dir():
        raise UserError(f"`--images` is {images}: no such folder")
    notes: list[str] = []
    parts = FORMATS[origin].read(source, images, notes)
    if category is not None:
        parts = [_only(part, category, source) for part in parts]
    if not any(part.annotations for part in parts):
        raise UserError(f"{source}: nobody in it has labelled key points")
    if FORMATS[target].trains:
        parts = _with_val(parts, val, seed, notes)
    if target != "coco":
        for part in parts:
            _check_upright(part, target)
    crowds = sum(bool(annotation["iscrowd"]) for part in parts for annotation in part.annotations)
    if crowds and target != "coco":
        notes.append(f"{count_text(crowds, 'crowd')} left out")
    out.mkdir(parents=True, exist_ok=True)
    result = FORMATS[target].write(parts, out, Placer(link), notes)
    linked = _places([file for part in parts for file in part.files.values()]) if link else ""
    if link:
        notes.append(f"links lead out of {out}: set {ALLOWED}={shlex.quote(linked)} for who reads it")
    return Converted(parts, result, list(dict.fromkeys(notes)), linked)


def _places(files: Sequence[Path]) -> str:
    """The folders that hold files, links followed, with `:` between them; of folders within each other the outer one."""
    folders = {file.resolve().parent for file in files}
    return os.pathsep.join(sorted(str(folder) for folder in folders if folders.isdisjoint(folder.parents)))


def _check_upright(part: Part, target: str) -> None:
    """Raise UserError where labels are those of a picture as it lies in its file, which Exif turns by a quarter.

    Training on COCO's format knows both ways by the size that is written there; who reads the other formats obeys Exif.
    """
    for image in part.images:
        width, height = image["width"], image["height"]
        if width != height and image_size(part.files[image["id"]]) == (height, width):
            raise UserError(
                f"{part.files[image['id']]}: is shown as {height}×{width}, and its labels are for {width}×{height}, as it lies "
                f"in the file: {target} has labels of the picture as shown; remove Exif's orientation from copies of the images"
            )


def _only(part: Part, name: str, source: Path) -> Part:
    entries = [entry for entry in part.categories if str(entry.get("name", entry["id"])) == name]
    if len(entries) != 1:
        known = ", ".join(str(entry.get("name", entry["id"])) for entry in part.categories)
        raise UserError(f"`--category` is {name!r}: {source} has {known}")
    own = [annotation for annotation in part.annotations if annotation["category_id"] == entries[0]["id"]]
    return dataclasses.replace(part, categories=entries, annotations=own)


def _with_val(parts: list[Part], share: float, seed: int, notes: list[str]) -> list[Part]:
    """Splits off images to validate on where the source has no split `val`."""
    splits = {part.split: part for part in parts}
    if "val" in splits or not share:
        return [dataclasses.replace(part, split="train") if part.split == ALL else part for part in parts]
    name = "train" if "train" in splits else ALL
    if name not in splits:
        raise UserError(f"the source has only {', '.join(splits)}: nothing to train on")
    whole = splits.pop(name)
    count = max(1, round(share * len(whole.images)))
    if len(whole.images) < 2:
        raise UserError("the source has one image: give two or more, or --val 0 for a split to train on alone")
    chosen = {whole.images[i]["id"] for i in generator(seed).permutation(len(whole.images))[:count].tolist()}
    notes.append(
        f"{count} of {count_text(len(whole.images), 'image')}, drawn at random, are to validate on: --val changes that"
    )
    return [_images(whole, "train", lambda i: i not in chosen), _images(whole, "val", lambda i: i in chosen), *splits.values()]


def _images(part: Part, split: str, wanted: Callable[[Any], bool]) -> Part:
    return Part(
        split,
        part.categories,
        [image for image in part.images if wanted(image["id"])],
        [annotation for annotation in part.annotations if wanted(annotation["image_id"])],
        {number: file for number, file in part.files.items() if wanted(number)},
    )
