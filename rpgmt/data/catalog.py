"""The data sets by name, as `--data` gives them: a new one is a file in a folder beside this one, a line here and a preset.

Synthetic people are not here: they are drawn, not read (`rpgmt.synthetic.labels`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rpgmt.data.coco.data_root import find_files
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.person_masks import with_person_masks
from rpgmt.data.dense.cityscapes import read_cityscapes
from rpgmt.data.dense.folders import read_folders
from rpgmt.data.dense.nyuv2 import read_nyuv2
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.sets.crowdpose import read_crowdpose
from rpgmt.data.sets.image_classes import ImageSet, read_cifar10, read_cifar10_jpeg, read_cifar100, read_folder
from rpgmt.data.sets.lsp import read_lsp
from rpgmt.data.sets.mpii import read_mpii
from rpgmt.errors import UserError


def _read_coco(root: Path, split: str, **own: Any) -> CocoPeople:
    return CocoPeople.from_files(*find_files(root, split), **own)


POSE_SETS: dict[str, Callable[..., CocoPeople]] = {
    "coco": _read_coco,  # any set in COCO's format
    "crowdpose": read_crowdpose,
    "mpii": read_mpii,
    "lsp": read_lsp,
}
"""People with key points, read from (root, split)."""

MULTITASK_SETS: dict[str, Callable[[Path, str], MultiTaskSet]] = {
    "coco": lambda root, split: with_person_masks(_read_coco(root, split)),
    "nyuv2": read_nyuv2,
    "cityscapes": read_cityscapes,
    "folders": lambda root, split: read_folders(
        root if root.suffix in (".yaml", ".yml") and not root.is_dir() else root / "dataset.yaml", split
    ),
}
"""Images with labels for several tasks."""


@dataclass(frozen=True)
class ImageSource:
    """How a set of images with a class each is called, how it is read, and which split it is usually validated on."""

    title: str
    read: Callable[[Path, str], ImageSet]
    val_split: str


IMAGE_SETS = {
    "cifar10": ImageSource("CIFAR-10", read_cifar10, "test"),
    "cifar100": ImageSource("CIFAR-100", read_cifar100, "test"),
    "cifar10_jpeg": ImageSource("CIFAR-10 (JPEG)", read_cifar10_jpeg, "test"),
    "imagenet": ImageSource("ImageNet", read_folder, "val"),
    "folder": ImageSource("images in folders", read_folder, "val"),
}
"""Images with a class each, for classification."""


def read_people(name: str, root: Path, split: str, **own: Any) -> CocoPeople:
    """The people of a data set's files.

    Args:
        name: of the data set, in `POSE_SETS`; `coco` is any in COCO's format (`rpgmt.data.coco.data_root.find_files`).
        root: folder of its files.
        split: "train" or "val".
        own: of `coco`: `categories`, which of the file's are the people, and `sigmas`, `flip_pairs` and `skeleton` in place
            of the file's, where not None; other sets have their own.

    Raises:
        UserError: a file is missing or malformed, or a set that has its own categories, sigmas, … is given others.
    """
    own = {key: value for key, value in own.items() if value is not None}
    if name != "coco":
        for key, value in own.items():
            raise UserError(f"`{key}` is {value}: {name} has its own; give it for data coco only")
    return POSE_SETS[name](root, split, **own)


def read_further_people(entry: str) -> CocoPeople:
    """The training people of a further set, given as NAME=DIR.

    Raises:
        UserError: the entry is malformed, or as `read_people`.
    """
    name, _, root = entry.partition("=")
    if name not in POSE_SETS or not root:
        raise UserError(f"`also` is {entry!r}: give NAME=DIR with a name of {', '.join(POSE_SETS)}")
    return read_people(name, Path(root), "train")


def read_multitask_set(name: str, root: Path, split: str) -> MultiTaskSet:
    """The images and labels of a data set's files.

    Args:
        name: of the data set, in `MULTITASK_SETS`. `coco` is any in COCO's format
            (`rpgmt.data.coco.data_root.find_files`), with its segments as masks; `folders` is what a YAML file describes
            (`rpgmt.data.dense.folders`).
        root: folder of its files; of `folders` the YAML file, or the folder that holds it as `dataset.yaml`.
        split: "train" or "val".

    Raises:
        UserError: a file is missing or malformed.
    """
    return MULTITASK_SETS[name](root, split)
