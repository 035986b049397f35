"""Images with a class each as training and validation see them: cropped and mirrored at random, or whole.

What is drawn for a sample is a function of (seed, epoch, index) alone, so that a resumed run sees what the uninterrupted one
would have seen.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rpgmt.data.image_headers import read_file, size_of_bytes
from rpgmt.data.images import decode_image, normalize
from rpgmt.data.mirror_classes import SWAPS_FLAG, mirror_of
from rpgmt.data.random_numbers import generator, uniform_integers
from rpgmt.data.resized_crops import centre_box, cut_and_scale, random_box
from rpgmt.data.sets.image_classes import ImageSet
from rpgmt.errors import UserError


@dataclass(frozen=True)
class ImageAugmentation:
    """Random changes of the images that are trained on.

    Attributes:
        flip: probability of a mirror image.
        swaps: pairs of classes that a mirror image exchanges; None: those whose names differ in left and right only.
        padding: small images: black pixels put round an image, out of which one of its own size is cut.
        smallest: files: the least part of an image's area that is cut out.
    """

    flip: float = 0.5
    swaps: tuple[tuple[str, str], ...] | None = None
    padding: int = 4
    smallest: float = 0.08


class ClassifiedImages(abc.ABC):
    """A data set of the engine: samples `data[epoch, index]`, and what the network is given of a batch of them.

    Samples have `index`, `label` and `part`, `train` for images that are changed at random, which have their `epoch`
    besides, and else `val`: it says to whose `images` a batch belongs.

    Args:
        source: the images.
        augment: changes at random; None for validation.
        seed: of what is drawn.

    Raises:
        UserError: images are to be mirrored, and it is not known what that does to a class.
    """

    def __init__(self, source: ImageSet, *, augment: ImageAugmentation | None = None, seed: int = 0) -> None:
        self.classes, self.labels = source.classes, source.labels
        self.augment, self.seed = augment, seed
        self.partners: dict[int, int] = {}
        if augment and augment.flip:
            mirror = mirror_of(source.classes, augment.swaps)
            mirror.check(source.name, SWAPS_FLAG)
            mirror.note(source.name, source.classes, SWAPS_FLAG)
            self.partners = mirror.partners

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """The sample number `index` in epoch `epoch`."""

    def _sample(self, epoch: int, index: int, mirrored: bool) -> dict[str, Any]:
        """A sample without its image."""
        label = int(self.labels[index])
        if self.augment is None:
            return {"index": index, "label": label, "part": "val"}
        label = self.partners.get(label, label) if mirrored else label
        return {"index": index, "label": label, "part": "train", "epoch": epoch}

    cut: ClassVar[Literal["images", "middle"]]
    """What of an image the network is given: all of it, or the middle."""

    @abc.abstractmethod
    def images(self, batch: Mapping[str, Any]) -> Tensor:
        """The network's input, float32 (B, 3, H, W) on the batch's device, normalised as `normalize` says."""

    @abc.abstractmethod
    def picture(self, index: int) -> np.ndarray:
        """An image without random changes, uint8 (H, W, 3), RGB."""


class SmallImages(ClassifiedImages):
    """Images that lie, all of them, on the training device, and are cropped and mirrored there, a batch at a time.

    The loader hands out numbers only. CIFAR's usual changes (He et al., arXiv 1512.03385, section 4.2): an image is padded
    on all sides, one of its own size is cut out, and half of them are mirrored.
    """

    cut = "images"

    def __init__(self, source: ImageSet, *, augment: ImageAugmentation | None = None, seed: int = 0) -> None:
        super().__init__(source, augment=augment, seed=seed)
        assert isinstance(source.images, np.ndarray)
        self._pixels = torch.from_numpy(source.images)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        mirrored = False
        if self.augment is not None and int(self.labels[index]) in self.partners:  # else it does not matter
            mirrored = bool(self._mirrored(torch.tensor([epoch]), torch.tensor([index]), self.augment))
        return self._sample(epoch, index, mirrored)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the images in pixels."""
        _, height, width, _ = self._pixels.shape
        return width, height

    def images(self, batch: Mapping[str, Any]) -> Tensor:
        index: Tensor = batch["index"]
        if self._pixels.device != index.device:
            self._pixels = self._pixels.to(index.device)  # once
        pixels = self._pixels[index] if self.augment is None else self._changed(index, batch["epoch"], self.augment)
        return normalize(pixels)

    def picture(self, index: int) -> np.ndarray:
        return self._pixels[index].cpu().numpy()

    def _mirrored(self, epoch: Tensor, index: Tensor, augment: ImageAugmentation) -> Tensor:
        return uniform_integers(self.seed, epoch, index, 2, 2**30) < round(augment.flip * 2**30)

    def _changed(self, index: Tensor, epoch: Tensor, augment: ImageAugmentation) -> Tensor:
        """Cut out and mirrored images, uint8 (B, H, W, 3): each pixel is fetched from where it comes to lie."""
        width, height = self.size
        shifts = 2 * augment.padding + 1
        key = self.seed, epoch, index
        down, right = (uniform_integers(*key, stream, shifts)[:, None] - augment.padding for stream in (0, 1))
        mirrored = self._mirrored(epoch, index, augment)[:, None]
        rows = torch.arange(height, device=index.device) + down
        columns = torch.arange(width, device=index.device)
        columns = torch.where(mirrored, width - 1 - columns, columns) + right
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        rows, columns = rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
        return self._pixels[index[:, None, None], rows, columns] * inside[..., None]


class ImageFiles(ClassifiedImages):
    """Images that are decoded when they are asked for, by the loader's workers, as the field does with ImageNet.

    Training: a part of random area and shape, scaled to the input, mirrored at random (Szegedy et al., arXiv 1409.4842,
    section 6; area from `smallest` to 1, width / height from 3/4 to 4/3). Validation: the centre.

    Args:
        source, augment, seed: see `ClassifiedImages`.
        input_size: (width, height) of the network's input in pixels.
    """

    cut = "middle"

    def __init__(
        self, source: ImageSet, input_size: tuple[int, int], *, augment: ImageAugmentation | None = None, seed: int = 0
    ) -> None:
        super().__init__(source, augment=augment, seed=seed)
        assert isinstance(source.images, list)
        self.files, self.input_size = source.images, input_size

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        image, mirrored = self._read(index, epoch)
        return self._sample(epoch, index, mirrored) | {"image": image}

    def images(self, batch: Mapping[str, Any]) -> Tensor:
        return normalize(batch["image"])

    def picture(self, index: int) -> np.ndarray:
        return self._read(index, 0)[0]

    def _read(self, index: int, epoch: int) -> tuple[np.ndarray, bool]:
        """What is cut out of an image, and whether that is mirrored."""
        path = self.files[index]
        data = read_file(path)
        width, height = size_of_bytes(data, str(path))
        if self.augment is None:
            box, mirrored = centre_box(width, height, self.input_size), False
        else:
            random = generator(self.seed, epoch, index)
            box = random_box(width, height, self.augment.smallest, random)
            mirrored = random.random() < self.augment.flip
        part = cut_and_scale(partial(decode_image, data, width, height, name=str(path)), width, box, self.input_size)
        return np.ascontiguousarray(part[:, ::-1]) if mirrored else part, mirrored


def classified_images(
    source: ImageSet, title: str, input_size: tuple[int, int], *, augment: ImageAugmentation | None, seed: int
) -> ClassifiedImages:
    """The data set of a source: `SmallImages` of an array, `ImageFiles` of files.

    Args:
        source, augment, seed: see `ClassifiedImages`.
        title: what the set is called, for messages.
        input_size: (width, height) of the network's input in pixels.

    Raises:
        UserError: small images, which are not scaled, are of another size.
    """
    if isinstance(source.images, list):
        return ImageFiles(source, input_size, augment=augment, seed=seed)
    small = SmallImages(source, augment=augment, seed=seed)
    if small.size != input_size:
        given, right = (",".join(map(str, size)) for size in (input_size, small.size))
        raise UserError(f"`input_size` is {given}: {title} is not scaled, give --input-size {right}")
    return small
