"""Image files as arrays, decoded no larger than they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

from rpgmt.data.file_names import file_inside
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

_MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet's red, green and blue, 0 to 255

# The names with GRAYSCALE are those of the bare reductions; with COLOR they would ask for BGR as well.
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


def check_files(folder: Path, names: Iterable[str], source: str) -> None:
    """Raise UserError where an image that the annotation file `source` names is not in its folder, or leads out of it."""
    wanted = set(names)
    # One look, for thousands of files; what is a link or lies deeper is looked at by itself.
    present = {entry.name for entry in os.scandir(folder) if not entry.is_symlink()} if folder.is_dir() else set()
    missing = sorted(name for name in wanted - present if not os.path.isfile(file_inside(folder, name, source)))
    if missing:
        raise UserError(
            f"{folder / missing[0]}: no such image, named in {source} ({len(missing)} of {len(wanted)} are missing): "
            "put the images there or give the folder that holds them"
        )


_SKIPPED = {0xC4, 0xDB, 0xFE, *range(0xE0, 0xF0)}
"""Markers of a JPEG header that say nothing about where rows lie: tables, comments and applications' data."""


def read_image_file(path: str | Path, width: int, height: int, reduction: int = 1, rows: int | None = None) -> np.ndarray:
    """The RGB array of an image file, of the size that its annotations are in or reduced from it.

    Args:
        path: of the file, in any format that OpenCV reads.
        width, height: that the image is to have, in pixels.
        reduction: 1, 2, 4 or 8, the most that the image may shrink.
        rows: how many, from the top and in pixels of the whole image, are needed; None for all.

    Returns:
        uint8 (⌈height/s⌉, ⌈width/s⌉, 3) for an s of 1, 2, 4, 8 that is at most `reduction`: see `decode_image`. Rows from
        ⌈rows/s⌉ on may be missing.

    Raises:
        UserError: the file is missing, not an image, or of another size.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"{path}: the image cannot be read: {error.strerror}") from error
    return decode_image(data, width, height, reduction, rows, name=str(path))


def decode_image(
    data: bytes, width: int, height: int, reduction: int = 1, rows: int | None = None, *, name: str = "image"
) -> np.ndarray:
    """The RGB array of an encoded image: as `read_image_file`, from memory.

    A JPEG file is decoded at 1/s of its size, which costs a fraction of the time: each pixel is then the mean of a block
    of s×s, and a pixel x of the full image lies at (x + 0.5)/s - 0.5. It is decoded down to the last row that is needed.
    Colours that were stored at half the size are repeated, not interpolated, which leaves the brightness as it is: in
    photographs a mean difference of 0.7 in 255, and none where colours are stored at the full size. Other formats gain
    nothing and stay whole.
    """
    reduction = _possible_reduction(data, width, height, reduction)
    if (array := _decode_plain_jpeg(data, width, height, reduction, rows or height)) is not None:
        return array
    found = (0, 0)
    for scale in dict.fromkeys((reduction, 1)):
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


def _decode_plain_jpeg(data: bytes, width: int, height: int, reduction: int, rows: int) -> np.ndarray | None:
    """The first rows of a usual JPEG file, bit for bit those of the whole image; None leaves the file to OpenCV.

    A decoder stops at the height that the file's header tells. Rows lie in the file one after another, so a smaller height
    in the header spares all that follows. OpenCV would print a warning about the bytes that are left; simplejpeg, with the
    same library inside, can be silent.
    """
    frame = _plain_frame(data)
    if frame is None or min(width, height) < 8:  # the scale is asked for by the size, which is ambiguous in tiny ones
        return None
    if (height, width) != (int.from_bytes(data[frame + 5 : frame + 7]), int.from_bytes(data[frame + 7 : frame + 9])):
        return None
    block = 8 * max(sampling & 15 for sampling in data[frame + 11 : frame + 11 + 3 * data[frame + 9] : 3])
    kept = -(-rows // block) * block
    # Of a file that ends too early, the whole is tried, so that it is found out and left to OpenCV, which says so.
    cut = kept < height and data.endswith(b"\xff\xd9")
    kept = kept if cut else height
    size = -(-kept // reduction), -(-width // reduction)
    changed = bytearray(data)
    changed[frame + 5 : frame + 7] = kept.to_bytes(2)
    try:
        array = simplejpeg.decode_jpeg(
            changed,
            min_height=size[0],
            min_width=size[1],
            min_factor=reduction,
            fastupsample=True,
            strict=not cut,
        )
    except ValueError:
        return None
    return array if array.shape[:2] == size else None


def _plain_frame(data: bytes) -> int | None:
    """Where a JPEG file's frame header lies; None if rows do not simply follow one another, or the picture may be turned.

    Sequential Huffman coding (SOF0, SOF1) in a single scan without restarts, of one or three components of 8 bits, without
    Exif data (ITU-T T.81, annex B).
    """
    frame, place = None, 2
    while data[:2] == b"\xff\xd8" and place + 10 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xDA:
            return frame if frame is not None and data[place + 4] == data[frame + 9] else None
        if marker in (0xC0, 0xC1) and data[place + 4] == 8 and data[place + 9] in (1, 3):
            frame = place
        elif marker not in _SKIPPED or data[place + 4 : place + 10] == b"Exif\0\0":
            return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None


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

    colours = (torch.tensor(colour).repeat(pixels.shape[2]) for colour in (_MEAN, _DEVIATION))
    mean, deviation = (colour.to(pixels.device, non_blocking=True) for colour in colours)  # a GPU is not waited for
    rows = pixels.flatten(2).float().sub_(mean).div_(deviation)
    return rows.view(pixels.shape).permute(0, 3, 1, 2)
