"""How an image becomes the input of a detector in an ONNX file: fitted into its size, in its layout, type and range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rpgmt.errors import UserError

OPEN_SIZE = 512
"""Height and width of inputs that leave them open, where nothing else is said: a multiple of what networks halve."""

_PADDING = 114  # grey, as detectors are trained with since YOLOv3
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
}
_RANGES: dict[str, tuple[Any, Any]] = {  # what is subtracted from 0…255, and what divides the rest
    "0..1": (0.0, 255.0),
    "0..255": (0.0, 1.0),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


@dataclass(frozen=True)
class InputForm:
    """What a detector's input looks like.

    Args:
        height, width: in pixels.
        axes: how many: 3, or 4 with a batch of one.
        channels_first: (3, H, W) rather than (H, W, 3).
        dtype: of the numbers.
        range: `0..1`, `0..255`, or `imagenet`: minus its mean, over its standard deviation.
    """

    height: int
    width: int
    axes: int
    channels_first: bool
    dtype: Any
    range: str

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the input for an image, and (4,) how many times as large as in the image corners are in it.

        The image keeps its shape, to half a pixel, and lies in the upper left corner; the rest is grey.
        """
        height, width = image.shape[:2]
        factor = min(self.height / height, self.width / width)
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        shrinks = factor < 1
        fitted = np.full((self.height, self.width, 3), _PADDING, np.uint8)
        fitted[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        array: np.ndarray = fitted
        if np.issubdtype(self.dtype, np.floating):
            mean, deviation = _RANGES[self.range]
            array = (fitted - np.float32(mean)) / np.float32(deviation)
        array = array.astype(self.dtype)
        array = np.ascontiguousarray(array.transpose(2, 0, 1)) if self.channels_first else array
        return array[None] if self.axes == 4 else array, np.tile((size[0] / width, size[1] / height), 2)


def read_input_form(path: Path, inputs: Sequence[Any], metadata: Mapping[str, str], size: int | None) -> InputForm:
    """What a detector's file says about its input.

    Args:
        path: of the file, for messages.
        inputs: onnxruntime's, with `name`, `shape` and `type`.
        metadata: the file's: `rpgmt.input` and `rpgmt.size` count.
        size: height and width, for inputs that leave them open; None for the metadata's.

    Raises:
        UserError: the input is not an image of a form that is known, or the size is fixed.
    """
    described = ", ".join(f"{found.name} {found.type.removeprefix('tensor')} {found.shape}" for found in inputs)
    wrong = UserError(
        f"{path}: its inputs are {described}: give a model with one, (1, 3, H, W) or (1, H, W, 3), of float, uint8 or int32"
    )
    shape: Sequence[Any] = inputs[0].shape if len(inputs) == 1 and inputs[0].type in _TYPES else ()
    batches = shape[:-3]  # a size that is open has a name, or None
    if len(shape) not in (3, 4) or 3 not in (shape[-3], shape[-1]) or any(isinstance(n, int) and n != 1 for n in batches):
        raise wrong
    channels_first = shape[-3] == 3
    sides = shape[-2:] if channels_first else shape[-3:-1]
    if size is not None and size < 1:
        raise UserError(f"`size` is {size}: give height and width in pixels, e.g. {OPEN_SIZE}")
    fixed = [side for side in sides if isinstance(side, int)]
    if size is not None and fixed:
        raise UserError(f"`size` is {size}: the input of {path} is fixed at {shape}: leave the size out")
    height, width = (size, size) if size else _size_of(path, metadata)
    height, width = (side if isinstance(side, int) else other for side, other in zip(sides, (height, width), strict=True))
    range = metadata.get("rpgmt.input", "0..1")
    if range not in _RANGES:
        raise UserError(f"{path}: `rpgmt.input` is {range}: give {', '.join(_RANGES)}")
    return InputForm(height, width, len(shape), channels_first, _TYPES[inputs[0].type], range)


def _size_of(path: Path, metadata: Mapping[str, str]) -> tuple[int, int]:
    written = metadata.get("rpgmt.size", f"{OPEN_SIZE},{OPEN_SIZE}")
    sides = written.split(",")
    if len(sides) != 2 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise UserError(f"{path}: `rpgmt.size` is {written}: give height and width in pixels, e.g. 480,640")
    return int(sides[0]), int(sides[1])
