"""The data sets with labels for several tasks, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rpgmt.data.coco.people import CocoPeople, find_files
from rpgmt.data.coco.person_masks import with_person_masks
from rpgmt.data.dense.folders import read_folders
from rpgmt.data.dense.npy_bundle import read_cityscapes, read_nyuv2
from rpgmt.data.multitask_set import LabelledSet
from rpgmt.synthetic import cache
from rpgmt.synthetic.labels import synthetic_labels

LabelledName = Literal["coco", "nyuv2", "cityscapes", "folders"]


def read_labelled(name: LabelledName, root: Path, split: str) -> LabelledSet:
    """The labels of a data set's files.

    Args:
        name: of the data set. `coco` is any in COCO's format (`rpgmt.data.coco.people.find_files`), with its segments as masks;
            `folders` is what a YAML file describes (`rpgmt.data.dense.folders`).
        root: folder of its files; of `folders` the YAML file, or the folder that holds it as `dataset.yaml`.
        split: "train" or "val".

    Raises:
        UserError: a file is missing or malformed.
    """
    if name == "coco":
        return with_person_masks(CocoPeople.from_files(*find_files(root, split)))
    if name == "folders":
        return read_folders(root / "dataset.yaml" if root.is_dir() else root, split)
    return {"nyuv2": read_nyuv2, "cityscapes": read_cityscapes}[name](root, split)


def synthetic_labelled(root: Path, split: Literal["train", "val"], *, count: int, size: int) -> LabelledSet:
    """The labels of images that are drawn here, once, and then kept; arguments as of `rpgmt.data.catalog.synthetic_people`."""
    scenes = cache.load(root, count=count, size=size, split=split, dense=True)
    return synthetic_labels(scenes, f"synthetic {split}")
