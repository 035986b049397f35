"""An image to predict on: a file, its bytes, an array or an image of Pillow, decoded no larger than needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from rpgmt.data.image_headers import read_file, size_of_bytes
from rpgmt.data.images import decode_image
from rpgmt.data.regions import Entry
from rpgmt.errors import UserError

ImageLike = str | Path | bytes | bytearray | memoryview | NDArray[np.uint8] | PIL.Image.Image
"""A path, an encoded file's bytes, uint8 (H, W, 3), RGB, or an image of Pillow, as it lies: a note to turn it is not obeyed."""


@dataclass(frozen=True)
class SourceImage:
    """An image whose size is known and whose pixels are decoded when they are asked for.

    Attributes:
        name: the file's; "image" where there is none.
        width, height: in pixels, as the picture is to be seen: turned as the camera noted.
        data: the encoded file, or the pixels.
    """

    name: str
    width: int
    height: int
    data: bytes | NDArray[np.uint8]

    @classmethod
    def open(cls, image: ImageLike | SourceImage, size: tuple[int, int] | None = None) -> SourceImage:
        """Reads a file or takes an array.

        Args:
            image: what to open.
            size: (W, H) in pixels that a file is to have, turned as its camera noted or not; None: turned.

        Raises:
            UserError: it cannot be read or is no image; the line names the file.
        """
        if isinstance(image, SourceImage):
            return image
        if isinstance(image, PIL.Image.Image):
            try:
                image = np.array(image.convert("RGB"))
            except (OSError, ValueError, SyntaxError) as error:  # its file is read only now
                raise UserError(f"the image of Pillow cannot be read: {error}") from error
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise UserError(f"the image is an array {image.dtype} {image.shape}: give uint8 (H, W, 3), red, green, blue")
            return cls("image", image.shape[1], image.shape[0], image)
        if isinstance(image, bytes | bytearray | memoryview):
            name, data = "image", bytes(image)
        elif isinstance(image, str | Path):
            name, data = str(image), read_file(image)
        else:
            raise UserError(
                f"the image is a {type(image).__name__}: give a path, bytes, uint8 (H, W, 3), or an image of Pillow"
            )
        return cls(name, *(size or size_of_bytes(data, name)), data)

    @property
    def entry(self) -> Entry:
        """As `rpgmt.data.regions` has it."""
        return {"id": self.name, "width": self.width, "height": self.height}

    def read(self, _entry: Entry, reduction: int = 1, rows: int | None = None) -> NDArray[np.uint8]:
        """The pixels, as `read_image` of `rpgmt.data.regions.Regions` gives them."""
        if isinstance(self.data, np.ndarray):
            return self.data
        return decode_image(self.data, self.width, self.height, reduction, rows, name=self.name)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """All of them, uint8 (H, W, 3), RGB.

        Raises:
            UserError: the file is broken.
        """
        return self.read(self.entry)
