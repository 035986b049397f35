"""Images with labels for several tasks, and the crops of them that a multi-task network is trained on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.person import Entry, WholeImages
from rpgmt.data.dense.label_maps import IGNORE, LabelMap, warp_maps
from rpgmt.data.pose_crops import Augmentation, PoseCrops


def _no_classes(_: Entry) -> Mapping[str, int]:
    return {}


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """A data set with labels for several tasks: what is cut out of which image, and what is known of the image.

    Args:
        people: people, each of whom is a sample, with key points; or whole images, without.
        maps: the dense labels that the set has, by name.
        read_maps: gives some of the maps of an image: asked with the entry and names, it returns what there is, (H, W) of
            the image's size ((H, W, 3) of normals). What an image lacks is left out, and masked in training.
        classes: labels of images as a whole: name and names of the classes.
        read_classes: gives an image's classes by name, a whole number each; what it lacks is left out.
    """

    people: CocoPeople | WholeImages
    maps: Mapping[str, LabelMap]
    read_maps: Callable[[Entry, Collection[str]], Mapping[str, NDArray]]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    read_classes: Callable[[Entry], Mapping[str, int]] = _no_classes

    @property
    def name(self) -> str:
        return self.people.name

    @property
    def has_keypoints(self) -> bool:
        return isinstance(self.people, CocoPeople)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all labels; those of key points are called `keypoints`."""
        return (*(("keypoints",) if self.has_keypoints else ()), *self.maps, *self.classes)

    def kind(self, name: str) -> LabelMap | tuple[str, ...] | None:
        """What the labels of a name are: a map, or the names of an image's classes or of key points; None: there are none."""
        if name == "keypoints" and isinstance(self.people, CocoPeople):
            return self.people.keypoints.names
        return self.maps.get(name) or self.classes.get(name)


class LabelledCrops:
    """Crops with their labels: a map-style data set, asked by (epoch, index).

    A sample is that of `PoseCrops` (without key points where the set has whole images), with an array for each map, as
    `rpgmt.data.dense.label_maps.warp_maps` gives it, and a whole number, -1 where not known, for each label of the image.
    Image, points and maps go through one affine.

    Args:
        labelled: the data set.
        names: the maps and image labels to read.
        input_size: (W, H) of the crop in pixels.
        augment, seed, padding: as of `PoseCrops`; a whole image is not padded.
    """

    def __init__(
        self,
        labelled: LabelledSet,
        names: Collection[str],
        input_size: tuple[int, int],
        *,
        augment: Augmentation | None = None,
        seed: int = 0,
        padding: float = 1.25,
    ) -> None:
        self.labelled = labelled
        padding = padding if labelled.has_keypoints else 1.0
        people: Any = labelled.people  # whole images have what is asked of people here
        self.crops = PoseCrops(people, input_size, augment=augment, seed=seed, padding=padding)
        self._maps = {name: kind for name, kind in labelled.maps.items() if name in names}
        self._classes = [name for name in labelled.classes if name in names]

    @property
    def people(self) -> CocoPeople | WholeImages:
        """Who, or what, is cut out."""
        return self.labelled.people

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The sample number `index` in epoch `epoch`."""
        sample = self.crops[key]
        if not self.labelled.has_keypoints:
            del sample["keypoints"], sample["visibility"]
        entry = self.labelled.people.people[sample["index"]].image
        if self._maps:
            read = self.labelled.read_maps(entry, self._maps)
            sample |= warp_maps(read, self._maps, sample["to_image"], self.crops.input_size)
        if self._classes:
            known = self.labelled.read_classes(entry)
            sample |= {name: known.get(name, IGNORE) for name in self._classes}
        return sample
