"""Image files as arrays, decoded no larger than they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rpgmt.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet's red, green and blue, 0 to 255

# The names with GRAYSCALE are those of the bare reductions; with COLOR they would ask for BGR as well.
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def read_image_file(path: str | Path, width: int, height: int, reduction: int = 1) -> np.ndarray:
    """The RGB array of an image file, of the size that its annotations are in or reduced from it.

    Args:
        path: of the file, in any format that OpenCV reads.
        width, height: that the image is to have, in pixels.
        reduction: 1, 2, 4 or 8, the most that the image may shrink.

    Returns:
        uint8 (⌈height/s⌉, ⌈width/s⌉, 3) for an s of 1, 2, 4, 8 that is at most `reduction`: see `decode_image`.

    Raises:
        UserError: the file is missing, not an image, or of another size.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the image cannot be read: {error.strerror}") from error
    return decode_image(data, width, height, reduction, name=str(path))


def decode_image(data: bytes, width: int, height: int, reduction: int = 1, *, name: str = "image") -> np.ndarray:
    """The RGB array of an encoded image: as `read_image_file`, from memory.

    A JPEG file is decoded at 1/s of its size, which costs a fraction of the time: each pixel is then the mean of a block
    of s×s, and a pixel x of the full image lies at (x + 0.5)/s - 0.5. Other formats gain nothing and stay whole.
    """
    found = (0, 0)
    for scale in dict.fromkeys((_possible_reduction(data, width, height, reduction), 1)):
        # Cameras note how the picture is to be turned. Some annotators' tools obeyed and some did not; the size tells.
        for orientation in (0, cv2.IMREAD_IGNORE_ORIENTATION):
            array = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[scale] | orientation) if data else None
            if array is None:
                raise UserError(f"{name}: not an image that OpenCV can read")
            found = array.shape[:2]
            if found == (-(-height // scale), -(-width // scale)):
                return array
    raise UserError(
        f"{name}: the image is {found[1]}×{found[0]} and its annotations are for {width}×{height}: "
        "give the images that were annotated"
    )


def _possible_reduction(data: bytes, width: int, height: int, reduction: int) -> int:
    """The largest s ≤ `reduction` at which blocks start at the image's first pixel."""
    if not data.startswith(b"\xff\xd8"):
        return 1
    # The blocks that stick out at the right and below come to lie at the left or on top when the picture is turned.
    while reduction > 1 and (width % reduction or height % reduction) and b"Exif\0\0" in data:
        reduction //= 2
    return reduction


def normalize(pixels: Tensor) -> Tensor:
    """Images as a network wants them: minus the mean of ImageNet's colours, over their standard deviation.

    The field's convention, which pretrained trunks expect. Rows are taken as a whole: a loop over the last axis, of three
    colours, takes a CPU five times as long.

    Args:
        pixels: uint8 (B, H, W, 3), RGB.

    Returns:
        float32 (B, 3, H, W), channels last in memory.
    """
    import torch

    mean, deviation = (torch.tensor(colour, device=pixels.device).repeat(pixels.shape[2]) for colour in (_MEAN, _DEVIATION))
    rows = pixels.flatten(2).float().sub_(mean).div_(deviation)
    return rows.view(pixels.shape).permute(0, 3, 1, 2)
