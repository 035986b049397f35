"""What an image file's header tells before anything is decoded: how large the picture is, and how its camera was held.

This is the one place that decides how pictures are turned. Sizes are those of the upright picture, as viewers and annotation
tools show it: the Exif note of its orientation is obeyed.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from rpgmt.errors import UserError

MAX_PIXELS = 2**28
"""The most that an image may have, 16,384 × 16,384: decoded it takes 0.8 GB."""

_ORIENTATION, _WIDTH, _HEIGHT = 0x0112, 0x0100, 0x0101  # tags of TIFF, and so of Exif
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of JPEG
_LONGEST_EXIF, _MOST_PARTS = 1 << 20, 100_000  # so that nothing made up is looked at for long


class Header(NamedTuple):
    """What is stored, and how it is to be turned.

    Args:
        width, height: in pixels, as the rows lie in the file.
        orientation: Exif's number from 1 (upright) to 8.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return (self.height, self.width) if self.orientation > 4 else (self.width, self.height)

    def check(self, name: str) -> None:
        """Raise UserError where the image is too large."""
        if self.width * self.height > MAX_PIXELS:
            raise UserError(
                f"{name}: the image is {self.width}×{self.height}, more than the {MAX_PIXELS:,} pixels that are read: "
                "make it smaller, or cut it up"
            )


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """A view of an image (H, W, …) as it lies in the file, turned by Exif's number from 1 to 8 (CIPA DC-008, `Orientation`)."""
    if orientation > 4:
        image = image.swapaxes(0, 1)
    down, across = (-1 if orientation in flipped else 1 for flipped in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return image[::down, ::across]


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
        UserError: it cannot be read, or is none: a pipe would be waited for, and a device has no end.
    """
    check_regular(path)
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: the image cannot be read: {error.strerror}") from error


def check_regular(path: str | Path) -> None:
    """Raise UserError where a path is not that of a regular file."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the image cannot be read: {getattr(error, 'strerror', error)}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise UserError(f"{path}: the image cannot be read: it is {kind}, and no file")


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels of the upright picture in a file, of which the header is read.

    Raises:
        UserError: it is no image, or too large.
    """
    check_regular(path)
    try:
        with open(path, "rb") as file:
            return upright_size(file, str(path))
    except OSError as error:
        raise UserError(f"{path}: the image cannot be read: {error.strerror}") from error


def upright_size(file: BinaryIO, name: str) -> tuple[int, int]:
    """As `image_size`, of an open file; `name` is for messages."""
    header = stored_header(file)
    if header is None:
        file.seek(0)
        header = _header_by_pillow(file, name)
    header.check(name)
    return header.size


def stored_header(file: BinaryIO) -> Header | None:
    """The header of a JPEG, PNG, WebP or BMP file, from its beginning on; None of others, and of broken ones."""
    start = file.read(32)
    if start.startswith(b"\xff\xd8"):
        header = _jpeg(file)
    elif start.startswith(b"\x89PNG\r\n\x1a\n") and start[12:16] == b"IHDR":
        header = Header(int.from_bytes(start[16:20]), int.from_bytes(start[20:24]), _png_orientation(file))
    elif start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        header = _webp(file, start)
    elif start.startswith(b"BM"):
        old = start[14:18] == b"\x0c\0\0\0"  # OS/2's numbers have 16 bits
        places = (slice(18, 20), slice(20, 22)) if old else (slice(18, 22), slice(22, 26))
        width, height = (int.from_bytes(start[place], "little", signed=not old) for place in places)
        header = Header(width, abs(height))  # one below 0: rows from the top
    else:
        return None
    return header if header is not None and header.width > 0 and header.height > 0 else None


def _jpeg(file: BinaryIO) -> Header | None:
    """Segments of a marker, a length and as many bytes follow each other up to the frame's (ITU-T T.81, annex B)."""
    orientation, place = 1, 2
    for _ in range(_MOST_PARTS):
        file.seek(place)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker, length = head[1], int.from_bytes(head[2:])
        if marker == 0xFF:  # filling
            place += 1
            continue
        if marker in _START_OF_FRAME:
            frame = file.read(5)
            return Header(int.from_bytes(frame[3:5]), int.from_bytes(frame[1:3]), orientation)
        if marker == 0xE1 and orientation == 1:
            payload = file.read(length - 2) if length > 2 else b""
            if payload.startswith(b"Exif\0\0"):
                orientation = exif_orientation(payload[6:])
        place += 2 + length
    return None


def _png_orientation(file: BinaryIO) -> int:
    """Chunks of a length, a name, as many bytes and a checksum; Exif's stands before the pixels or after them."""
    place = 8
    for _ in range(_MOST_PARTS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            break
        length = int.from_bytes(head[:4])
        if head[4:] == b"eXIf":
            return exif_orientation(file.read(min(length, _LONGEST_EXIF)))
        place += 12 + length
    return 1


def _webp(file: BinaryIO, start: bytes) -> Header | None:
    kind = start[12:16]
    if kind == b"VP8 ":
        width, height = (int.from_bytes(start[i : i + 2], "little") & 0x3FFF for i in (26, 28))
        return Header(width, height)
    if kind == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind != b"VP8X":
        return None
    width, height = (int.from_bytes(start[i : i + 3], "little") + 1 for i in (24, 27))
    place = 12
    for _ in range(_MOST_PARTS):
        file.seek(place)
        head = file.read(8)
        if len(head) < 8:
            break
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF":
            payload = file.read(min(length, _LONGEST_EXIF)).removeprefix(b"Exif\0\0")  # as some programs write it
            return Header(width, height, exif_orientation(payload))
        place += 8 + length + length % 2
    return Header(width, height)


def exif_orientation(payload: bytes) -> int:
    """The orientation in Exif data, from its TIFF header on: 1 to 8; 1 where it is not there or makes no sense."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(payload[:4])
    if order is None:
        return 1

    def number(place: int, size: int) -> int:
        return int.from_bytes(payload[place : place + size], order)  # type: ignore[arg-type]

    first = number(4, 4)
    for entry in range(first + 2, first + 2 + 12 * min(number(first, 2), 1000), 12):
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 2)
            return value if number(entry + 2, 2) == 3 and 1 <= value <= 8 else 1  # 3: it has 16 bits
    return 1


def _header_by_pillow(file: BinaryIO, name: str) -> Header:
    """Of formats that are rare."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large image is refused by `Header.check`, and odd tags change nothing
            with Image.open(file) as image:
                width, height = image.size
                if image.format != "TIFF":
                    return Header(width, height, exif_orientation(image.info.get("exif", b"").removeprefix(b"Exif\0\0")))
                tags: Any = image  # `size` may be that of the turned picture already
                return Header(tags.tag_v2[_WIDTH], tags.tag_v2[_HEIGHT], tags.tag_v2.get(_ORIENTATION, 1))
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(f"{name}: the image has more than the {limit:,} pixels that are read: make it smaller") from error
    except Exception as error:  # whatever a plugin of Pillow's makes of broken bytes
        raise UserError(f"{name}: not an image that can be read") from error


def size_of_bytes(data: bytes, name: str) -> tuple[int, int]:
    """As `image_size`, of a file's bytes."""
    return upright_size(io.BytesIO(data), name)
