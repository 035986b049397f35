"""What is cut out of an image and makes a sample: a person's box, or the whole image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Box = tuple[float, float, float, float]
"""x, y, w, h in pixels of the image."""

WHOLE_IMAGES = "whole images"
"""`Regions.boxes` of samples that are images as they are."""

Entry = dict[str, Any]
"""An image of a set as COCO's documents have it: `id`, `width`, `height`, and what the set needs to find its files."""


class Region(NamedTuple):
    """A box in an image.

    Args:
        image: the entry of the image.
        box: (x, y, w, h) in its pixels.
    """

    image: Entry
    box: Box


@dataclass(frozen=True, kw_only=True)
class Regions:
    """What is cut out of the images of a data set.

    Args:
        name: of the data set, for messages.
        boxes: where the boxes come from, for labels, e.g. "gt boxes": accuracy with true boxes and with detected ones differs.
        regions: one for each sample.
        read_image: gives the uint8 RGB array (H, W, 3) of an entry; `read_image(entry, reduction, rows)` may give one reduced
            by a power of two up to `reduction` and without what is below the first `rows`, as
            `rpgmt.data.images.read_image_file` does.
    """

    name: str
    boxes: str
    regions: Sequence[Region]
    read_image: Callable[..., np.ndarray]

    def __len__(self) -> int:
        return len(self.regions)


def whole_images(images: Sequence[Entry], read_image: Callable[..., np.ndarray], name: str) -> Regions:
    """Images that are samples as they are.

    Args:
        images: the entries, each with an `id` of its own, `width` and `height`.
        read_image, name: as of `Regions`.
    """
    regions = [Region(image, (0.0, 0.0, float(image["width"]), float(image["height"]))) for image in images]
    return Regions(name=name, boxes=WHOLE_IMAGES, regions=regions, read_image=read_image)
