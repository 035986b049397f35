"""A data set with labels for several tasks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from numpy.typing import NDArray

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.mirror_classes import Mirror, mirror_of
from rpgmt.data.regions import Entry, Regions


def _no_classes(_: Entry) -> Mapping[str, int]:
    return {}


@dataclass(frozen=True, kw_only=True)
class MultiTaskSet:
    """What is cut out of which image, and what is known of it.

    Args:
        regions: what is cut out, each of them a sample: the people's boxes, or whole images.
        people: who is in the regions, one in each and in their order, with key points; None: there are no key points.
        maps: the dense labels that the set has, by name.
        read_maps: gives some of the maps of an image: asked with the entry and names, it returns what there is, (H, W) of
            the image's size ((H, W, 3) of normals). What an image lacks is left out, and masked in training.
        classes: labels of images as a whole: name and names of the classes.
        read_classes: gives an image's classes by name, a whole number each; what it lacks is left out.
        mirrors: what a mirror image does to the classes of images, and of maps as in their `swaps`, by name; where it is not
            there, the names of images' classes tell.
        way: to say otherwise, for messages.
    """

    regions: Regions
    people: CocoPeople | None = None
    maps: Mapping[str, LabelMap]
    read_maps: Callable[[Entry, Collection[str]], Mapping[str, NDArray]]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    read_classes: Callable[[Entry], Mapping[str, int]] = _no_classes
    mirrors: Mapping[str, Mirror] = field(default_factory=dict)
    way: str = "`mirrors`"

    @property
    def name(self) -> str:
        return self.regions.name

    @property
    def names(self) -> tuple[str, ...]:
        """Of all labels; those of key points are called `keypoints`."""
        return (*(("keypoints",) if self.people is not None else ()), *self.maps, *self.classes)

    def kind(self, name: str) -> LabelMap | tuple[str, ...] | None:
        """What the labels of a name are: a map, or the names of an image's classes or of key points; None: there are none."""
        if name == "keypoints" and self.people is not None:
            return self.people.keypoints.names
        return self.maps.get(name) or self.classes.get(name)

    def mirror(self, name: str) -> Mirror:
        """What a mirror image does to the classes of a name."""
        if name in self.mirrors:
            return self.mirrors[name]
        return Mirror(swaps=self.maps[name].swaps) if name in self.maps else mirror_of(self.classes[name])

    def check_mirrors(self, names: Collection[str], *, note: bool = False) -> None:
        """Raise UserError where it is not known what a mirror image does to a class of one of these labels.

        Args:
            names: of the labels.
            note: which classes are exchanged by their names.
        """
        classes = {**{name: label.classes for name, label in self.maps.items()}, **self.classes}
        for name in classes:
            if name in names:
                self.mirror(name).check(f"{self.name}: {name}", self.way)
                if note:
                    self.mirror(name).note(f"{self.name}: {name}", classes[name], self.way)
