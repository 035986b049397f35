"""What a `dataset.yaml` may say of folders of images and labels: its keys and their checks."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field, fields
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from rpgmt.config.validation import config_class, from_dict
from rpgmt.data.dense.label_maps import IGNORE, Kind, LabelMap
from rpgmt.data.mirror_classes import Mirror, mirror_of

_OWN = {  # keys of a map that have a meaning for some kinds only
    "classes": ("classes", "parts"),
    "ignore": ("classes", "parts"),
    "instances": ("classes",),
    "swaps": ("classes", "parts"),
    "unit": ("depth",),
    "negate": ("normals",),
}

Pairs = tuple[tuple[str, str], ...]
_SWAPS = Field(description="pairs of classes that a mirror image exchanges; null: those whose names say left and right")


@config_class
class MapFiles:
    """Dense labels: a `.png` or `.npy` file for each image."""

    folder: Annotated[str, Field(min_length=1, description="of the files; {split} becomes train or val")]
    kind: Annotated[Kind, Field(description="what a pixel holds")]
    classes: Annotated[tuple[str, ...], Field(description="names of the classes, from number 0 on")] = ()
    ignore: Annotated[int, Field(description="number of pixels without a label, besides -1")] = IGNORE
    instances: Annotated[
        bool, Field(description="numbers count people or things: 0 is the first class, all else the second")
    ] = False
    swaps: Annotated[Pairs | None, _SWAPS] = None
    unit: Annotated[float, Field(gt=0, description="metres of one step of depth")] = 1.0
    negate: Annotated[
        tuple[Literal["x", "y", "z"], ...],
        Field(description="axes of normals that do not run x right, y down, z forward; y and z in graphics programs"),
    ] = ()

    def __post_init__(self) -> None:
        for item in fields(self):
            if self.kind not in _OWN.get(item.name, (self.kind,)) and getattr(self, item.name) != item.default:
                raise ValueError(f"`{item.name}` has no meaning for kind {self.kind}: leave it out")
        if self.kind in _OWN["classes"]:
            _check_classes(self.classes)
        if self.instances and len(self.classes) != 2:
            raise ValueError(f"`classes` has {len(self.classes)} names: with `instances` give two, e.g. [background, person]")
        _ = self.mirror

    @property
    def mirror(self) -> Mirror:
        return mirror_of(self.classes, self.swaps)

    @property
    def label_map(self) -> LabelMap:
        return LabelMap(kind=self.kind, classes=self.classes, swaps=self.mirror.swaps)


@config_class
class ClassFile:
    """Labels of images as a whole: a CSV file with the columns `image` (name of the file) and `class`."""

    file: Annotated[str, Field(min_length=1, description="the CSV file; {split} becomes train or val")]
    classes: Annotated[tuple[str, ...], Field(description="names of the classes")]
    swaps: Annotated[Pairs | None, _SWAPS] = None

    def __post_init__(self) -> None:
        _check_classes(self.classes)
        _ = self.mirror

    @property
    def mirror(self) -> Mirror:
        return mirror_of(self.classes, self.swaps)


def _check_classes(classes: tuple[str, ...]) -> None:
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(f"`classes` is {list(classes)}: give different names, e.g. [background, person]")


def _each(cls: Any, key: str) -> Callable[[Any], dict[str, Any]]:
    """A validator of a mapping from the names of labels to what `cls` describes."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"`{key}` is {value!r}: give a name for each and what it is, e.g. depth: {{folder: …, kind: …}}")
        result = {}
        for name, entry in value.items():
            if not isinstance(name, str) or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):  # it becomes a head's name
                raise ValueError(f"`{key}` has the name {name!r}: use letters, digits and _, e.g. segmentation")
            try:
                result[name] = entry if isinstance(entry, cls) else from_dict(cls, entry)
            except ValueError as error:
                raise ValueError(f"{key}, {name}: {error}") from None
        return result

    return read


_SAMPLE = ("image", "keypoints", "visibility", "to_image", "index")
"""Names that a sample has for other things."""


@config_class
class FolderSet:
    """What the YAML file says; paths are relative to it."""

    images: Annotated[str, Field(min_length=1, description="folder of the images; {split} becomes train or val")]
    keypoints: Annotated[str | None, Field(description="key points in COCO's format: each person is a sample")] = None
    maps: Annotated[dict[str, MapFiles], PlainValidator(_each(MapFiles, "maps")), Field(description="dense labels")] = field(
        default_factory=dict
    )
    classes: Annotated[
        dict[str, ClassFile], PlainValidator(_each(ClassFile, "classes")), Field(description="labels of whole images")
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "{split}" not in f"{self.images} {self.keypoints}":
            raise ValueError(
                f"`images` is {self.images!r} for training and validation alike: write {{split}} where train or val is to stand"
            )
        for name in self.classes:
            if name in self.maps:
                raise ValueError(f"`{name}` is in `maps` and in `classes`: give each label a name of its own")
        for name in (*self.maps, *self.classes):
            if name in _SAMPLE:
                raise ValueError(f"`{name}` is the name of a label: give it another than {', '.join(_SAMPLE)}")
