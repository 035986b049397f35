"""People with key points from documents in COCO's format."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rpgmt.data.keypoints import COCO_KEYPOINTS, DEFAULT_SIGMA, KeypointSet, infer_flip_pairs
from rpgmt.errors import UserError


@dataclass(frozen=True)
class Person:
    """An annotated person.

    Attributes:
        annotation_id: its id in the document.
        image: the document's entry of its image: `id`, `width`, `height`, `file_name`.
        box: (x, y, w, h) in image pixels, clipped to the image.
        keypoints: float64 (K, 2), x and y in image pixels; (0, 0) where not labelled.
        visibility: int64 (K,): 0 not labelled, 1 labelled and hidden, 2 visible.
        area: of the person's segment, in square pixels.
    """

    annotation_id: int
    image: dict[str, Any]
    box: tuple[float, float, float, float]
    keypoints: np.ndarray
    visibility: np.ndarray
    area: float


class CocoPeople:
    """A COCO key-point document and its images.

    `people` lists who can be trained on and evaluated: no crowd, at least one labelled key point, a box that overlaps
    the image. The evaluation itself runs over the whole document, in which COCO's evaluator ignores crowds and people
    without labelled key points.

    Args:
        annotations: the parsed document (`images`, `annotations`, `categories`); it is kept, not copied or changed.
        read_image: gives the uint8 RGB array (H, W, 3) of an entry of `images`.
        boxes: where the boxes come from, for labels: accuracy with true boxes and with detected ones differs.
        name: of the data set, for messages.

    Raises:
        UserError: the document is not COCO's format; the line says what is wrong and where.
    """

    def __init__(
        self,
        annotations: dict[str, Any],
        read_image: Callable[[dict[str, Any]], np.ndarray],
        *,
        boxes: str = "gt boxes",
        name: str = "annotations",
    ) -> None:
        category = keypoint_category(annotations, name)
        self.annotations = annotations
        self.read_image = read_image
        self.boxes = boxes
        self.name = name
        self.category_id: int = category["id"]
        self.keypoints = _keypoint_set(category, name)
        self.people = _people(annotations, name)

    @classmethod
    def from_files(cls, json_path: str | Path, image_dir: str | Path) -> CocoPeople:
        """Read a COCO key-point JSON file; images are read from `image_dir` when they are asked for.

        Raises:
            UserError: the file, the folder or an image that somebody stands in is missing.
            UserError: the file is empty, not JSON or not COCO's format.
        """
        path, folder = Path(json_path), Path(image_dir)
        document = _read_json(path)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of images for {path}")
        data = cls(document, partial(_read_image, folder), name=str(path))
        wanted = {_file_name(person.image, path) for person in data.people}
        present = {entry.name for entry in os.scandir(folder)}
        missing = sorted(name for name in wanted - present if not (folder / name).is_file())
        if missing:
            raise UserError(
                f"{folder / missing[0]}: no such image, named in {path} ({len(missing)} of {len(wanted)} are missing): "
                "put the images there or give the folder that holds them"
            )
        return data


def find_files(root: str | Path, split: str) -> tuple[Path, Path]:
    """Find the annotation file and the image folder of a split in a COCO-style data root.

    The file is the first of `annotations/person_keypoints_{split}.json`, `person_keypoints_{split}.json` and COCO's own
    `annotations/person_keypoints_{split}2017.json`; the folder is the first of `images/{split}`, `images`,
    `{split}2017` and `images/{split}2017` that holds the first image named in the file.

    Raises:
        UserError: the root, the file or the image is missing, or the file is empty, not JSON, or names no image.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such data root: give the folder that holds the annotations and the images")
    stem = f"person_keypoints_{split}"
    files = [f"annotations/{stem}.json", f"{stem}.json", f"annotations/{stem}2017.json"]
    path = next((root / file for file in files if (root / file).is_file()), None)
    if path is None:
        raise UserError(f"{root}: no annotation file of split {split!r}: looked for {', '.join(files)}")
    image = _first_file_name(path)
    folders = [f"images/{split}", "images", f"{split}2017", f"images/{split}2017"]
    for folder in folders:
        if (root / folder / image).is_file():
            return path, root / folder
    raise UserError(f"{root}: image {image} of {path} is missing: looked in {', '.join(folders)}")


def keypoint_category(document: Any, name: str = "annotations") -> dict[str, Any]:
    """The document's one category with key points.

    Raises:
        UserError: the document lacks one of COCO's three lists, or there is no such category, or more than one.
    """
    if not isinstance(document, dict):
        raise UserError(f"{name}: not a COCO document: the top level is to be an object, not {_kind(document)}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            raise UserError(f"{name}: not a COCO document: it needs a list `{key}`")
        if not document[key]:
            raise UserError(f"{name}: the list `{key}` is empty: give at least one entry")
        if not all(isinstance(entry, dict) and "id" in entry for entry in document[key]):
            raise UserError(f"{name}: not a COCO document: every entry of `{key}` is to be an object with an `id`")
    found = [category for category in document["categories"] if category.get("keypoints")]
    if len(found) != 1:
        names = ", ".join(str(category.get("name", category["id"])) for category in found) or "none"
        raise UserError(f"{name}: one category with a list `keypoints` of names is needed, found: {names}")
    return found[0]


def person_annotations(document: dict[str, Any], name: str = "annotations") -> list[dict[str, Any]]:
    """The annotations of the category with key points, checked, with what may be left out filled in.

    Copies: the document stays as it is. `iscrowd` is 0, `keypoints` are not labelled, `num_keypoints` is counted and
    the `area` of a person without labelled key points, whom the evaluation ignores, is that of the box.

    Raises:
        UserError: a box, an image or the area of a labelled person is missing, or key points do not fit the category.
    """
    category = keypoint_category(document, name)
    count = len(category["keypoints"])
    images = {image["id"] for image in document["images"]}
    return [
        _complete(annotation, count, images, name)
        for annotation in document["annotations"]
        if annotation.get("category_id") == category["id"]
    ]


def _complete(annotation: dict[str, Any], count: int, images: set[int], name: str) -> dict[str, Any]:
    where = f"{name}: annotation {annotation['id']}"
    if annotation.get("image_id") not in images:
        raise UserError(f"{where}: `image_id` is {annotation.get('image_id')!r}, which is not in `images`")
    box = annotation.get("bbox")
    if box is None or not _numbers(box) or len(box) != 4:
        raise UserError(f"{where}: `bbox` is {box!r}: give [x, y, width, height] in pixels")
    points = annotation.get("keypoints") or [0] * (3 * count)
    if not _numbers(points) or len(points) != 3 * count:
        raise UserError(
            f"{where}: `keypoints` is to be {3 * count} numbers, x, y, v for each of the category's {count} names"
            + (f"; there are {len(points)}" if isinstance(points, list) else "")
        )
    labelled = sum(v > 0 for v in points[2::3])
    complete = {"iscrowd": 0, "num_keypoints": labelled, "area": 0, **annotation, "keypoints": points}
    if not _numbers([complete["area"]]) or complete["area"] <= 0:
        if complete["num_keypoints"] > 0:
            raise UserError(
                f"{where}: `area` is {annotation.get('area', 'missing')}: give the segment's area in square pixels, "
                "or where there are no segments 0.53 · width · height of the box"
            )
        complete["area"] = box[2] * box[3]
    return complete


def _people(document: dict[str, Any], name: str) -> list[Person]:
    images = {image["id"]: image for image in document["images"]}
    people, outside = [], 0
    for annotation in person_annotations(document, name):
        points = np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
        if annotation["iscrowd"] or annotation["num_keypoints"] == 0 or not (points[:, 2] > 0).any():
            continue
        image = images[annotation["image_id"]]
        x, y, w, h = annotation["bbox"]
        try:
            right, bottom = min(x + w, image["width"]), min(y + h, image["height"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{name}: image {image['id']} needs `width` and `height` in pixels") from error
        x, y = max(x, 0.0), max(y, 0.0)
        if right <= x or bottom <= y:
            outside += 1
            continue
        people.append(
            Person(
                annotation_id=annotation["id"],
                image=image,
                box=(float(x), float(y), float(right - x), float(bottom - y)),
                keypoints=points[:, :2],
                visibility=points[:, 2].astype(np.int64),
                area=float(annotation["area"]),
            )
        )
    if not people:
        raise UserError(f"{name}: nobody to train on or evaluate: no person has a labelled key point and a box in the image")
    if outside:
        warnings.warn(f"{name}: {outside} people are left out: their boxes are empty or outside the image", stacklevel=3)
    return people


def _keypoint_set(category: dict[str, Any], name: str) -> KeypointSet:
    """The category's key points: COCO's own where the names are COCO's."""
    names = tuple(str(point) for point in category["keypoints"])
    # One-based in COCO's files. Edges to points that the category lacks occur: CrowdPose's files keep COCO's edges.
    edges = [(a - 1, b - 1) for a, b in category.get("skeleton", [])]
    skeleton = tuple((a, b) for a, b in edges if 0 <= a < len(names) and 0 <= b < len(names))
    if len(skeleton) < len(edges):
        warnings.warn(f"{name}: edges of `skeleton` to points beyond the {len(names)} are left out", stacklevel=3)
    known = dict(zip(COCO_KEYPOINTS.names, COCO_KEYPOINTS.sigmas, strict=True))
    unknown = [point for point in names if point not in known]
    if unknown:
        warnings.warn(
            f"{name}: COCO has no OKS sigma for {', '.join(unknown)}: {DEFAULT_SIGMA} is taken, this library's own",
            stacklevel=3,
        )
    return KeypointSet(
        names=names,
        flip_pairs=infer_flip_pairs(names),
        skeleton=skeleton,
        sigmas=tuple(known.get(point, DEFAULT_SIGMA) for point in names),
    )


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: no such annotation file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file: give COCO's JSON, unpacked") from error
    if not text.strip():
        raise UserError(f"{path}: the annotation file is empty: give a COCO key-point document")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON: {error}") from error


def _first_file_name(path: Path) -> str:
    """The first image name in a document, without parsing all of it: COCO's own has 240 MB."""
    pattern = re.compile(r'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
    with path.open(encoding="utf-8", errors="replace") as file:
        window = ""
        while chunk := file.read(1 << 20):
            window += chunk
            if match := pattern.search(window):
                return json.loads(match.group(1))
            window = window[-4096:]  # a name may lie across two chunks
    keypoint_category(_read_json(path), str(path))  # says what is wrong with a document that is empty or broken
    raise UserError(f"{path}: no image has a `file_name`")


def _file_name(image: dict[str, Any], path: Path) -> str:
    if not isinstance(image.get("file_name"), str):
        raise UserError(f"{path}: image {image['id']} has no `file_name`")
    return image["file_name"]


def _read_image(folder: Path, image: dict[str, Any]) -> np.ndarray:
    """The RGB array of an image file, of the size that the annotations are in."""
    path = folder / image["file_name"]
    # Cameras note how the picture is to be turned. Some annotators' tools obeyed and some did not; the size tells.
    for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION):
        array = cv2.imread(str(path), flags)
        if array is None:
            raise UserError(f"{path}: not an image that OpenCV can read")
        height, width = array.shape[:2]
        if (height, width) == (image["height"], image["width"]):
            return cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
    raise UserError(
        f"{path}: the image is {width}×{height} and its annotations are for {image['width']}×{image['height']}: "
        "give the images that were annotated"
    )


def _numbers(values: Any) -> bool:
    # The range rejects NaN and infinities; one pass without NumPy, as there may be 262,000 annotations.
    return isinstance(values, list | tuple) and all(isinstance(value, int | float) and -1e9 < value < 1e9 for value in values)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a number")
