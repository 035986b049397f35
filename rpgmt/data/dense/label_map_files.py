"""Dense labels from files, checked: what a file holds becomes what `rpgmt.data.dense.label_maps` expects."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.dense.label_maps import IGNORE
from rpgmt.data.image_headers import read_file, stored_header, upright
from rpgmt.errors import UserError

Size = tuple[int, int]
"""(height, width) of an image."""


def open_array(path: Path) -> NDArray:
    """The array of a `.npy` file, mapped into memory: of what is not looked at, only the header is read.

    Raises:
        UserError: the file is missing, not of this format, cut short, or holds no numbers.
    """
    try:
        with np.errstate(all="ignore"):  # the size that a header states may be beyond all numbers
            array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read: {error.strerror or error}") from error
    except Exception as error:  # NumPy's parser of headers, which is Python's, fails in many ways
        raise UserError(f"{path}: not a .npy file of numbers: write it with numpy.save") from error
    if array.dtype.kind not in "buif":
        raise UserError(f"{path}: the array is of {array.dtype}: give one of numbers")
    return array


def read_png(path: Path, size: Size, *, colours: bool = False) -> NDArray:
    """The numbers in a PNG file, upright: of one with a palette, its indices.

    Args:
        path: of the file.
        size: of its image, which is compared before anything is decoded.
        colours: it is to have red, green and blue; else it is to have none.

    Raises:
        UserError: not a PNG file, broken, of another size, or with colours where there are to be numbers.
    """
    from PIL.PngImagePlugin import PngImageFile

    data = read_file(path)
    header = stored_header(io.BytesIO(data))
    stored = (header.height, header.width) if header else size
    if size not in (stored, header.size[::-1] if header else size):
        raise UserError(f"{path}: the map is {_text(stored)} and is to be {_text(size)}, height × width: {_OWN_SIZE}")
    try:
        with PngImageFile(io.BytesIO(data)) as image:  # not `Image.open`, which knows other formats and refuses large images
            if not colours and len(image.getbands()) > 1:
                raise UserError(f"{path}: an image of colours ({image.mode}): give numbers, as grey or with a palette")
            values = np.array(image)
    except UserError:
        raise
    except Exception as error:  # whatever Pillow makes of broken bytes
        raise UserError(f"{path}: not an image that can be read as PNG: {error}") from error
    turned = upright(values, header.orientation) if header else values
    return turned if turned.shape[:2] == size else values


_OWN_SIZE = "give maps of their image's size"


def as_classes(
    values: NDArray, size: Size, count: int, path: Path, *, advice: str, ignore: int = IGNORE, instances: bool = False
) -> NDArray[np.int16]:
    """Class numbers of each pixel.

    Args:
        values: (H, W), or with an axis of length 1 at either end; whole numbers, which may be floats.
        size: of the image.
        count: of classes.
        path: of the file, for messages.
        advice: how to mend a number that is no class.
        ignore: the number of pixels without a label; -1 always is one.
        instances: the numbers count people or things, all of which are class 1.

    Returns:
        int16 (H, W), -1 where there is no label.

    Raises:
        UserError: another size, a number that is not finite, not whole, or no class.
    """
    values = _fit(values, size, 1, path)
    numbers = values.astype(np.int64)
    if values.dtype.kind == "f" and (fraction := values != numbers).any():
        raise UserError(f"{path}: class {values[fraction][0]:g} is not a whole number: give numbers of classes")
    numbers[numbers == ignore] = IGNORE
    if instances:
        numbers = np.minimum(numbers, 1)
    wrong = (numbers < IGNORE) | (numbers >= count)
    if wrong.any():
        raise UserError(f"{path}: holds class {numbers[wrong][0]}, and there are {count}, 0 to {count - 1}: {advice}")
    return numbers.astype(np.int16)


def as_depth(values: NDArray, size: Size, path: Path, unit: float = 1.0) -> NDArray[np.float32]:
    """Depth of each pixel.

    Args:
        values: (H, W), or with an axis of length 1 at either end; 0 or less where there is no label.
        size, path: as of `as_classes`.
        unit: what one step of the file's numbers is, in metres.

    Returns:
        float32 (H, W), 0 where there is no label.

    Raises:
        UserError: another size, or a number that is not finite.
    """
    with np.errstate(over="ignore"):
        depth = np.maximum(_fit(values, size, 1, path).astype(np.float32) * np.float32(unit), np.float32(0))
    if not np.isfinite(depth).all():
        raise UserError(f"{path}: holds {values.max():g}, which is no depth in metres: give 0 where there is no label")
    return depth


def as_normals(values: NDArray, size: Size, path: Path) -> NDArray[np.float32]:
    """Normals of each pixel, of unit length.

    A vector is no label where all of it is 0. (The field's code looks at the sum of its components, which is 0 for many
    valid ones too.)

    Args:
        values: (H, W, 3) or (3, H, W), any length.
        size, path: as of `as_classes`.

    Returns:
        float32 (H, W, 3), (0, 0, 0) where there is no label.

    Raises:
        UserError: another size, or a number that is not finite.
    """
    if values.dtype.kind != "f":
        raise UserError(f"{path}: normals of whole numbers ({values.dtype}): give floats from -1 to 1, or a PNG of colours")
    values = _fit(values, size, 3, path).astype(np.float64)
    length = np.sqrt(np.sum(values * values, axis=2, keepdims=True))
    return np.divide(values, length, out=np.zeros_like(values), where=length > 0).astype(np.float32)


def _fit(values: NDArray, size: Size, channels: int, path: Path) -> NDArray:
    """Finite values (H, W), or (H, W, C) of several channels; in files these come first or last."""
    if values.shape == (channels, *size):
        values = np.moveaxis(values, 0, -1)
    if channels == 1 and values.shape == (*size, 1):
        values = values[..., 0]
    wanted = size if channels == 1 else (*size, channels)
    if values.shape != wanted:
        raise UserError(
            f"{path}: the map is {_text(values.shape)} and is to be {_text(wanted)}, height × width"
            f"{'' if channels == 1 else ' × channels'}: {_OWN_SIZE}"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{path}: holds {values[~np.isfinite(values)][0]}: give -1 (classes) or 0 where there is no label")
    return values


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a single number"
