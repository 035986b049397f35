"""Crops of regions of images: a person's box or a whole image, changed at random, scaled to the network's input."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rpgmt.data.augmentation import Augmentation, Changes
from rpgmt.data.regions import Entry, Region, Regions
from rpgmt.data.transforms import crop_affine, enlarged_size, from_reduced, invert, seen_rows, spare_reduction, warp


class Crop(NamedTuple):
    """What was cut out.

    Args:
        image: uint8 (H, W, 3), RGB.
        affine: float64 (2, 3), from pixels of the image to pixels of the crop.
        to_image: float64 (2, 3), the way back.
    """

    image: np.ndarray
    affine: np.ndarray
    to_image: np.ndarray


class RegionCrops:
    """One crop for each region: a map-style data set, asked by (epoch, index).

    A sample is a dict of

    - `image`: uint8 (H, W, 3), RGB
    - `to_image`: float64 (2, 3), the affine from pixels of the crop to pixels of the region's image
    - `index`: of the region

    A crop meets one interpolation, whatever changes it. Where a region is larger than the crop, the image is asked for
    reduced by a power of two, and in any case without the rows below the crop: that spares much of a JPEG's decoding. The
    last image is kept, for the next region of it.

    Args:
        regions: what is cut out.
        input_size: (W, H) of the crop in pixels.
        augment: random changes; None gives the same crop in every epoch.
        seed: of the augmentation.
        padding: enlargement of the box.
        stream: of the random changes: parts of a mixed data set that have one seed have streams of their own.
    """

    def __init__(
        self,
        regions: Regions,
        input_size: tuple[int, int],
        *,
        augment: Augmentation | None = None,
        seed: int = 0,
        padding: float = 1.25,
        stream: int = 0,
    ) -> None:
        self.regions, self.input_size, self.padding = regions, input_size, padding
        self.augment, self.seed, self.stream = augment, seed, stream
        self._last: tuple[Any, dict[int, tuple[int, np.ndarray]]] = (None, {})

    def __len__(self) -> int:
        return len(self.regions)

    def areas(self) -> np.ndarray:
        """(R,) square pixels of the image that each crop shows when nothing changes it."""
        sizes = (enlarged_size(region.box[2:], self.input_size, self.padding) for region in self.regions.regions)
        return np.array([width * height for width, height in sizes])

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The sample of region `index` in epoch `epoch`."""
        _, index = key
        crop = self.cut(self.regions.regions[index], self.changes(key))
        return {"image": crop.image, "to_image": crop.to_image, "index": index}

    def changes(self, key: tuple[int, int]) -> Changes:
        """What changes the crop number `index` in epoch `epoch`."""
        epoch, index = key
        return self.augment.draw(self.seed, epoch, index, self.stream) if self.augment else Changes()

    def cut(self, region: Region, changes: Changes, padding: float | None = None) -> Crop:
        """Cut out any region of the data set's images.

        Args:
            region: it need not be one of `regions`.
            changes: of the crop; `half_body` is the caller's.
            padding: enlargement of the box; None: that of the data set.
        """
        affine = crop_affine(
            region.box,
            self.input_size,
            padding=self.padding if padding is None else padding,
            flip=changes.flip,
            scale=changes.scale,
            rotation=changes.rotation,
            shift=changes.shift,
        )
        to_image = invert(affine)
        return Crop(self._pixels(region.image, affine, to_image, changes), affine, to_image)

    def _pixels(self, entry: Entry, affine: np.ndarray, to_image: np.ndarray, changes: Changes) -> np.ndarray:
        rows = min(max(1, seen_rows(to_image, self.input_size)), entry["height"])
        image = self._image(entry, spare_reduction(affine), rows)
        crop = warp(image, from_reduced(affine, _reduction(image, entry, rows)), self.input_size)
        if changes.pixel_seed is not None or changes.occlusion_seed is not None:
            from rpgmt.data import pixels

            if changes.pixel_seed is not None:
                crop = pixels.change_pixels(crop, changes.pixel_seed)
            if changes.occlusion_seed is not None:
                crop = pixels.hide_part(crop, changes.occlusion_seed)
        return crop

    def _image(self, entry: Entry, reduction: int, rows: int) -> np.ndarray:
        """An image down to a row, or further: whatever was read before, the crop is the same bit for bit."""
        number, images = self._last
        if number != entry["id"]:
            self._last = entry["id"], (images := {})
        known, image = images.get(reduction, (0, None))
        if image is None or known < rows:
            rows = entry["height"] if known else rows  # for the second person who sees more, all that others may see
            image = self.regions.read_image(entry, reduction, rows)
            images[reduction] = rows, image
        return image


def _reduction(image: np.ndarray, entry: Entry, rows: int) -> int:
    """By how much an image came smaller than its entry says; rows after the first `rows` may be missing."""
    for s in (1, 8, 4, 2):
        if image.shape[1] == -(-entry["width"] // s) and -(-rows // s) <= image.shape[0] <= -(-entry["height"] // s):
            return s
    size = f"{image.shape[1]}×{image.shape[0]}"
    raise ValueError(f"image {entry['id']} is {size}: give one of {entry['width']}×{entry['height']}, or reduced by 2, 4 or 8")
