"""People with key points from documents in COCO's format."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt.config.json_files import read_json
from rpgmt.data.coco.annotations import keypoint_category
from rpgmt.data.coco.category import NamePairs, keypoint_set
from rpgmt.data.coco.detections import detected_people
from rpgmt.data.coco.joining import check_category_ids, join_categories
from rpgmt.data.coco.person import annotated_people
from rpgmt.data.coco.tidy import tidy
from rpgmt.data.file_names import file_inside
from rpgmt.data.images import check_files, missing_files, read_image_file
from rpgmt.data.regions import Entry, Regions
from rpgmt.errors import UserError


class CocoPeople:
    """A COCO key-point document and its images.

    `people` lists who can be trained on and evaluated: no crowd, at least one labelled key point, a box that overlaps
    the image. The evaluation itself runs over the whole document, in which COCO's evaluator ignores crowds and people
    without labelled key points. `image_dir` is the folder of the images, where they are files.

    Args:
        annotations: the parsed document (`images`, `annotations`, `categories`); it is kept, not changed, and copied only
            where it needs what `tidy` and `join_categories` do.
        read_image: gives the uint8 RGB array (H, W, 3) of an entry of `images`; called as that of `Regions`.
        boxes: where the boxes come from, for labels, as of `Regions`.
        name: of the data set, for messages.
        categories: names of the categories that are the people; None: all that have key points, see `join_categories`.
        sigmas, flip_pairs, skeleton: of the key points, where the document's own are missing or wrong: see
            `rpgmt.data.coco.category.keypoint_set`.
        clip: cut the people's boxes off at the image's edges.

    Raises:
        UserError: the document is not COCO's format; the line says what is wrong and where.
    """

    def __init__(
        self,
        annotations: dict[str, Any],
        read_image: Callable[..., np.ndarray],
        *,
        boxes: str = "gt boxes",
        name: str = "annotations",
        categories: Sequence[str] | None = None,
        sigmas: Sequence[float] | None = None,
        flip_pairs: NamePairs | None = None,
        skeleton: NamePairs | None = None,
        clip: bool = True,
    ) -> None:
        annotations, self.category_ids = join_categories(tidy(annotations, name), name, categories)
        category = keypoint_category(annotations, name)
        check_category_ids(annotations, name)
        self.annotations = annotations
        self.read_image = read_image
        self.image_dir: Path | None = None
        self.boxes = boxes
        self.name = name
        self.category_id: int = category["id"]
        self.keypoints = keypoint_set(category, name, sigmas=sigmas, flip_pairs=flip_pairs, skeleton=skeleton)
        self.people = annotated_people(annotations, name, clip)

    @property
    def regions(self) -> Regions:
        """The people's boxes, which are cut out."""
        regions = [person.region for person in self.people]
        return Regions(name=self.name, boxes=self.boxes, regions=regions, read_image=self.read_image)

    @classmethod
    def from_files(
        cls,
        json_path: str | Path,
        image_dir: str | Path,
        **options: Any,
    ) -> CocoPeople:
        """Read a COCO key-point JSON file; images are read from `image_dir` when they are asked for.

        Args:
            json_path, image_dir: of the annotations and the images.
            options: further arguments of the class.

        Raises:
            UserError: the file, the folder or an image that somebody stands in is missing.
            UserError: the file is empty, not JSON or not COCO's format.
        """
        return cls.from_document(read_json(Path(json_path)), image_dir, name=str(json_path), **options)

    @classmethod
    def from_document(cls, document: dict[str, Any], image_dir: str | Path, *, name: str, **options: Any) -> CocoPeople:
        """People of a document whose images lie in a folder, under their `file_name`.

        Args:
            document: in COCO's format.
            image_dir: the folder.
            name: of the document, for messages.
            options: further arguments of the class.

        Raises:
            UserError: the folder or an image that somebody stands in is missing, or the document is not COCO's format.
        """
        folder = Path(image_dir)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of images for {name}")
        data = cls(document, partial(_read_image, folder), name=name, **options)
        data.image_dir = folder
        check_files(folder, (_file_name(person.image, name) for person in data.people), name)
        data._note_missing(folder)
        return data

    def _note_missing(self, folder: Path) -> None:
        """Says how many images are missing that nobody is on: only a detector's boxes may ask for them."""
        peopled = {person.image["id"] for person in self.people}
        empty = [image["file_name"] for image in self.annotations["images"] if image["id"] not in peopled and _named(image)]
        if missing := missing_files(folder, empty, self.name):
            text = f"{self.name}: {len(missing)} of {len(empty)} images without labelled people are missing"
            warnings.warn(f"{text}, e.g. {missing[0]}", stacklevel=3)

    def with_detections(self, path: str | Path, threshold: float = 0.0) -> CocoPeople:
        """The same document and images with a detector's boxes: `people` are the detections, the truth stays.

        Args:
            path: COCO's box results, a JSON list of {`image_id`, `category_id`, `bbox`, `score`}, e.g. the widely used
                `COCO_val2017_detections_AP_H_56_person.json`. Other categories are left out.
            threshold: the lowest score that counts.

        Raises:
            UserError: the file is malformed, no detection is left, or an image is missing.
        """
        result = copy.copy(self)
        category = keypoint_category(self.annotations, self.name)
        result.people = detected_people(self.annotations, category, self.category_ids, Path(path), threshold)
        if self.image_dir is not None:
            check_files(self.image_dir, (_file_name(person.image, self.name) for person in result.people), self.name)
        result.boxes = "detected boxes"
        return result


def _file_name(image: Entry, name: str) -> str:
    if not _named(image):
        raise UserError(f"{name}: image {image['id']} has no `file_name`")
    return image["file_name"]


def _named(image: Entry) -> bool:
    return isinstance(image.get("file_name"), str)


def _read_image(folder: Path, image: Entry, *need: int) -> np.ndarray:
    path = file_inside(folder, image["file_name"], f"image {image['id']}")
    return read_image_file(path, image["width"], image["height"], *need)
