"""Crops with labels for several tasks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rpgmt.data.augmentation import Augmentation
from rpgmt.data.crops import RegionCrops
from rpgmt.data.dense.label_maps import IGNORE, mirrors, warp_maps
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.pose_crops import PoseCrops
from rpgmt.data.regions import Regions


class MultiTaskCrops:
    """One crop for each region of a data set, with its labels: a map-style data set, asked by (epoch, index).

    A sample is that of `PoseCrops`, or where the set has no key points of `RegionCrops`, with an array for each map, as
    `rpgmt.data.dense.label_maps.warp_maps` gives it, and a whole number, -1 where not known, for each label of the image.
    Image, points and maps go through one affine. A mirror image has the class that is given as that of the mirror image.

    Args:
        dataset: what is cut out, and its labels.
        names: the maps and image labels to read.
        input_size: (W, H) of the crop in pixels.
        augment, seed, padding: as of `RegionCrops`; a whole image is not padded.

    Raises:
        UserError: images are to be mirrored, and it is not known what that does to a class.
    """

    def __init__(
        self,
        dataset: MultiTaskSet,
        names: Collection[str],
        input_size: tuple[int, int],
        *,
        augment: Augmentation | None = None,
        seed: int = 0,
        padding: float = 1.25,
    ) -> None:
        self.dataset = dataset
        self.crops: PoseCrops | RegionCrops
        if dataset.people is not None:
            self.crops = PoseCrops(dataset.people, input_size, augment=augment, seed=seed, padding=padding)
        else:
            self.crops = RegionCrops(dataset.regions, input_size, augment=augment, seed=seed, padding=1.0)
            if augment:
                augment.warn_without_halves(dataset.name)
        self._maps = {name: label for name, label in dataset.maps.items() if name in names}
        self._partners = {name: dataset.mirror(name).partners for name in dataset.classes if name in names}
        if augment and augment.flip:
            dataset.check_mirrors(names, note=True)

    @property
    def regions(self) -> Regions:
        """What is cut out."""
        return self.dataset.regions

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The sample number `index` in epoch `epoch`."""
        sample = self.crops[key]
        entry = self.regions.regions[sample["index"]].image
        if self._maps:
            read = self.dataset.read_maps(entry, self._maps)
            sample |= warp_maps(read, self._maps, sample["to_image"], self.crops.input_size)
        if self._partners:
            known, mirrored = self.dataset.read_classes(entry), mirrors(sample["to_image"])
            for name, partners in self._partners.items():
                number = known.get(name, IGNORE)
                sample[name] = partners.get(number, number) if mirrored else number
        return sample
