"""Image files as arrays, decoded no larger than they are needed."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

from rpgmt.data.file_names import file_inside
from rpgmt.data.image_headers import MAX_PIXELS, Header, read_file, stored_header, upright
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

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
    if missing := missing_files(folder, wanted, source):
        raise UserError(
            f"{missing[0]}: no such image, named in {source} ({len(missing)} of {len(wanted)} are missing): "
            "put the images there or give the folder that holds them"
        )


def note_passed_over(folder: Path, others: Sequence[str]) -> None:
    """Warn of what lies among images and is not read: other kinds of files, folders, images that a file does not name.

    Args:
        folder: of the images.
        others: the names; those that begin with a dot, which systems leave behind, do not count.
    """
    seen = sorted(name for name in others if not name.startswith("."))
    if seen:
        warnings.warn(f"{folder}: {len(seen)} files or folders are passed over, e.g. {seen[0]}", stacklevel=3)


def missing_files(folder: Path, names: Iterable[str], source: str) -> list[Path]:
    """The files that are not there of those that the file `source` names, in the names' order.

    Raises:
        UserError: one leads out of the folder.
    """
    # One look, for thousands of files; what is a link or lies deeper is looked at by itself.
    present = {entry.name for entry in os.scandir(folder) if not entry.is_symlink()} if folder.is_dir() else set()
    paths = (file_inside(folder, name, source) for name in sorted(set(names) - present))
    return [path for path in paths if not os.path.isfile(path)]


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
        UserError: the file is missing, not an image, broken, too large, or of another size.
    """
    return decode_image(read_file(path), width, height, reduction, rows, name=str(path))


def decode_image(
    data: bytes, width: int, height: int, reduction: int = 1, rows: int | None = None, *, name: str = "image"
) -> np.ndarray:
    """The RGB array of an encoded image: as `read_image_file`, from memory.

    A JPEG file is decoded at 1/s of its size, which costs a fraction of the time: each pixel is then the mean of a block
    of s×s, and a pixel x of the full image lies at (x + 0.5)/s - 0.5. It is decoded down to the last row that is needed.
    Colours that were stored at half the size are repeated, not interpolated, which leaves the brightness as it is: in
    photographs a mean difference of 0.7 in 255, and none where colours are stored at the full size. Other formats gain
    nothing and stay whole.

    A picture is turned as its camera noted. Some annotators' tools obey that note and some do not: where `width` and `height`
    are those of the picture as it lies in the file, it stays so.
    """
    reduction = _possible_reduction(data, width, height, reduction)
    if (array := _decode_plain_jpeg(data, width, height, reduction, rows or height)) is not None:
        return array
    header = stored_header(io.BytesIO(data))
    if header is not None:
        header.check(name)
    found = (0, 0)
    for scale in dict.fromkeys((reduction, 1)):
        for array in _decode_both_ways(data, scale, header, name):
            found = array.shape[:2]
            if found == (-(-height // scale), -(-width // scale)):
                return np.ascontiguousarray(array)
    raise UserError(
        f"{name}: the image is {found[1]}×{found[0]} and its annotations are for {width}×{height}: "
        "give the images that were annotated"
    )


def _decode_both_ways(data: bytes, scale: int, header: Header | None, name: str) -> Iterator[np.ndarray]:
    """The whole image, upright and as it lies in the file."""
    if header is None:  # a format that leaves its orientation to OpenCV, or no image
        for orientation in (0, cv2.IMREAD_IGNORE_ORIENTATION):
            yield _decode_by_opencv(data, _REDUCED[scale] | orientation, name)
        return
    array = _decode_odd_jpeg(data, scale, header, name) if data.startswith(b"\xff\xd8") else None
    if array is None:
        check_whole(data, name)
        array = _decode_by_opencv(data, _REDUCED[scale] | cv2.IMREAD_IGNORE_ORIENTATION, name)
    yield upright(array, header.orientation)
    yield array


def _decode_by_opencv(data: bytes, flags: int, name: str) -> np.ndarray:
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:  # too large for it, above all
        raise UserError(f"{name}: not an image that OpenCV can read: {error.err}") from error
    if array is None:
        raise UserError(f"{name}: not an image that OpenCV can read")
    return array


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
    # The scale is asked for by the size, which is ambiguous in tiny ones.
    if frame is None or min(width, height) < 8 or width * height > MAX_PIXELS:
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
    corner = array[-8:, -8:]
    if cut and (corner == corner[0, 0]).all() and _breaks_off(data):  # a file that breaks off goes on in one colour
        return None
    return array if array.shape[:2] == size else None


def _breaks_off(data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data, min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        return _lacks_pixels(error)
    return False


def _lacks_pixels(error: ValueError) -> bool:
    """Whether libjpeg did not find all pixels; with other things that are odd, as bytes too many, it did."""
    return any(text in str(error) for text in ("remature end", "bad Huffman code", "found marker"))


def _decode_odd_jpeg(data: bytes, reduction: int, header: Header, name: str) -> np.ndarray | None:
    """All of a JPEG file that is not plain, as it lies in the file; None leaves it to OpenCV.

    OpenCV has the same library inside and gives the same pixels, bit for bit, but of a file that breaks off in the middle it
    makes the rest grey, and says so in a line that names no file.

    Raises:
        UserError: the file lacks pixels.
    """
    size = -(-header.height // reduction), -(-header.width // reduction)
    wanted = {} if reduction == 1 else {"min_height": size[0], "min_width": size[1], "min_factor": reduction}
    try:
        array = simplejpeg.decode_jpeg(data, **wanted, strict=True)
    except ValueError as error:
        if _lacks_pixels(error) or data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # no end after the last scan's start
            raise UserError(f"{name}: the file is broken ({error}): give a whole copy of it") from error
        try:
            array = simplejpeg.decode_jpeg(data, **wanted, strict=False)
        except ValueError:
            return None
    try:
        colours = simplejpeg.decode_jpeg_header(data, strict=False)[2]
    except (ValueError, KeyError):
        return None
    usual = colours in ("YCbCr", "Gray") and min(header.width, header.height) >= 8
    return array if usual and array.shape[:2] == size else None


def check_whole(data: bytes, name: str) -> None:
    """Raise UserError where a PNG or BMP file is not whole; its decoder would say so in a line that names no file."""
    problem = None
    if data.startswith(b"\x89PNG"):
        place, kind = 8, b""
        while kind != b"IEND" and problem is None:
            length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
            end = place + 8 + length
            checksum, needed = int.from_bytes(data[end : end + 4]), kind in (b"IHDR", b"PLTE", b"IDAT")
            if end + 4 > len(data):
                problem = "it ends too early"
            elif needed and zlib.crc32(data[place + 4 : end]) != checksum:
                problem = f"a checksum of its {kind.decode()} is wrong"
            place = end + 4
    elif data.startswith(b"BM") and data[14:18] == b"\x28\0\0\0" and data[30:34] == bytes(4):  # without compression
        start, width, height, bits = (
            abs(int.from_bytes(data[a:b], "little", signed=True)) for a, b in ((10, 14), (18, 22), (22, 26), (28, 30))
        )
        if len(data) < start + (width * bits + 31) // 32 * 4 * height:
            problem = "it ends too early"
    if problem is not None:
        raise UserError(f"{name}: the file is broken ({problem}): give a whole copy of it")


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
