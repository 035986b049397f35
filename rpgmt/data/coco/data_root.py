"""Where a data root in COCO's layout keeps the annotations and the images of a split."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from rpgmt.config.json_files import read_json
from rpgmt.data.coco.annotations import keypoint_category
from rpgmt.data.file_names import file_inside
from rpgmt.errors import UserError


def find_files(root: str | Path, split: str) -> tuple[Path, Path]:
    """Find the annotation file and the image folder of a split in a COCO-style data root.

    The file is the first of `annotations/person_keypoints_{split}.json`, `person_keypoints_{split}.json` and COCO's own
    `annotations/person_keypoints_{split}2017.json`; the folder is the first of `images/{split}`, `images`,
    `{split}2017`, `images/{split}2017` and the root itself that holds the first image named in the file, or, where that is
    missing, any of them.

    Raises:
        UserError: the root, the file or all images are missing, or the file is empty, not JSON, or names no image, or
            one elsewhere.
    """
    path = find_file(root, split, annotation_files(split))
    image = _first_file_name(path)
    folder = find_image_folder(Path(root), split, [image], str(path)) or find_image_folder(
        Path(root), split, _file_names(path), str(path)
    )
    if folder is None:
        raise UserError(f"{root}: image {image} of {path} is missing: looked in {', '.join(image_folders(split))}")
    return path, folder


def find_image_folder(root: Path, split: str, names: Sequence[str], source: str) -> Path | None:
    """The first of a split's possible folders that holds one of the images, which the file `source` names.

    Raises:
        UserError: an image that was looked for lies elsewhere.
    """
    folders = (root / folder for folder in image_folders(split))
    return next((place for place in folders if any(os.path.isfile(file_inside(place, name, source)) for name in names)), None)


def image_folders(split: str) -> tuple[str, ...]:
    """Where a COCO-style data root may have the images of a split, in order of precedence; the root for names with a folder."""
    return f"images/{split}", "images", f"{split}2017", f"images/{split}2017", "."


def annotation_files(split: str) -> tuple[str, ...]:
    """Where a COCO-style data root may have the annotations of a split, in order of precedence."""
    stem = f"person_keypoints_{split}"
    return f"annotations/{stem}.json", f"{stem}.json", f"annotations/{stem}2017.json"


def find_file(root: str | Path, split: str, candidates: Sequence[str]) -> Path:
    """The first of a split's possible annotation files that is there, below a data root.

    Raises:
        UserError: the root is missing, or there is none of them.
    """
    if not Path(root).is_dir():
        raise UserError(f"{root}: no such data root: give the folder that holds the annotations and the images")
    path = next((Path(root) / file for file in candidates if (Path(root) / file).is_file()), None)
    if path is None:
        raise UserError(f"{root}: no annotation file of split {split!r}: looked for {', '.join(candidates)}")
    return path


def _file_names(path: Path) -> list[str]:
    document = read_json(path)
    images = document.get("images") if isinstance(document, dict) else None
    names = [image.get("file_name") for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    return [name for name in names if isinstance(name, str)]


def _first_file_name(path: Path) -> str:
    """The first image name in a document, without parsing all of it: COCO's own has 240 MB."""
    pattern = re.compile(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
    with path.open(encoding="utf-8", errors="replace") as file:
        window = ""
        while chunk := file.read(1 << 20):
            window += chunk
            if match := pattern.search(window):
                try:
                    return json.loads(match.group(1))
                except json.JSONDecodeError:
                    break
            window = window[-4096:]  # a name may lie across two chunks
    keypoint_category(read_json(path), str(path))  # says what is wrong with a document that is empty or broken
    raise UserError(f"{path}: no image has a `file_name`")
