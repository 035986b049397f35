"""The synthetic people with all that is known of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.regions import Entry
from rpgmt.synthetic.body import PARTS
from rpgmt.synthetic.cache import Split, SyntheticScenes, load

SWAPS = tuple(
    (number, PARTS.index("right_" + name.removeprefix("left_")))
    for number, name in enumerate(PARTS)
    if name.startswith("left_")
)
"""Pairs of body parts, left and right."""


def synthetic_people(root: Path, split: Split, *, count: int, size: int) -> CocoPeople:
    """The people of images that are drawn here, once, and then kept.

    Args:
        root: folder of the cache.
        split: which images.
        count: how many.
        size: their width and height in pixels.
    """
    scenes = load(root, count=count, size=size, split=split)
    return CocoPeople(scenes.document(), scenes.read_image, name=f"synthetic {split}")


def synthetic_multitask_set(root: Path, split: Split, *, count: int, size: int) -> MultiTaskSet:
    """The people of `synthetic_people` with all labels, which are kept too; arguments as there."""
    return synthetic_labels(load(root, count=count, size=size, split=split, dense=True), f"synthetic {split}")


def synthetic_labels(scenes: SyntheticScenes, name: str) -> MultiTaskSet:
    """The people of synthetic scenes with the maps `segmentation` (background, person), `parts`, `depth` and `normals`.

    Args:
        scenes: stored with `dense` where maps are read in training: without it, each image is rendered again for them.
        name: of the data set, for messages.
    """
    people = CocoPeople(scenes.document(), scenes.read_image, name=name)
    return MultiTaskSet(
        regions=people.regions,
        people=people,
        maps={
            "segmentation": LabelMap(kind="classes", classes=("background", "person")),
            "parts": LabelMap(kind="parts", classes=PARTS, swaps=SWAPS),
            "depth": LabelMap(kind="depth"),
            "normals": LabelMap(kind="normals"),
        },
        read_maps=_Maps(scenes).read_maps,
    )


@dataclass(frozen=True)
class _Maps:
    scenes: SyntheticScenes

    def read_maps(self, entry: Entry, names: Collection[str]) -> dict[str, NDArray]:
        readers: dict[str, Callable[[int], NDArray[Any]]] = {
            "segmentation": self._person,
            "parts": self.scenes.parts,
            "depth": self.scenes.depth,
            "normals": self.scenes.normals,
        }
        return {name: readers[name](entry["id"]) for name in names}

    def _person(self, number: int) -> NDArray[Any]:
        return (self.scenes.person_mask(number) > 0).view("uint8")
