"""Random changes of crops: what may change, and what is drawn for a sample."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

from rpgmt.data.random_numbers import uniforms

UPPER_BODY = 0.7
"""Probability of the upper body when a body is cut down to a half of it."""


@dataclass(frozen=True)
class Changes:
    """What changes a crop: the arguments of `crop_affine`, and what crops do besides."""

    flip: bool = False
    scale: float = 1.0
    rotation: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    half_body: Literal["upper", "lower"] | None = None
    pixel_seed: int | None = None
    occlusion_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of a crop, all uniform and independent.

    Args:
        flip: probability of a mirror image; left and right points are swapped.
        scale: the box is enlarged by a factor from [1 - scale, 1 + scale], as the field has it: the person shrinks or grows.
        rotation: the crop is turned by up to ± this many degrees.
        rotation_probability: of being turned at all.
        shift: the crop's centre moves by up to ± this part of the crop, along either axis.
        shift_probability: of being moved at all.
        half_body: probability that a person with more than half of the key points labelled (9 of COCO's 17) is cut down
            to the upper body (in 7 of 10 cases) or the rest. Of the half, 3 points are to be labelled, or it is the
            other one (Sun et al., HRNet, arXiv 1902.09212, section 4.1, after Wang et al., MSCOCO Keypoints Challenge 2018).
        zooms: the crop shows a part of the box, of 1/zoom its width and height and anywhere in it; one of these by chance, all
            as likely (Liu et al., MTAN, arXiv 1803.10704, public code: 1, 1.2 and 1.5).
        pixels: probability of other colours, sharpness or noise, see `rpgmt.data.pixels.change_pixels`.
        occlusion: probability of a box over a part of the crop, see `rpgmt.data.pixels.hide_part`.

    Raises:
        ValueError: a value is out of range.
    """

    flip: float = 0.5
    scale: float = 0.25
    rotation: float = 30.0
    rotation_probability: float = 1.0
    shift: float = 0.0
    shift_probability: float = 1.0
    half_body: float = 0.0
    zooms: tuple[float, ...] = (1.0,)
    pixels: float = 0.0
    occlusion: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "rotation_probability", "shift_probability", "half_body", "pixels", "occlusion"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}: give a probability from 0 to 1")
        if not 0 <= self.scale < 1:
            raise ValueError(f"`scale` is {self.scale}: give a number from 0 to below 1, e.g. 0.25")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"`rotation` is {self.rotation}: give degrees from 0 to 180")
        if not self.zooms or min(self.zooms) < 1:
            raise ValueError(f"`zooms` is {self.zooms}: give at least one number, each from 1, e.g. 1, 1.2, 1.5")
        if not 0 <= self.shift <= 1:
            raise ValueError(f"`shift` is {self.shift}: give a part of the crop from 0 to 1, e.g. 0.1")

    def draw(self, seed: int, epoch: int, index: int, stream: int = 0) -> Changes:
        """The changes of a sample: a function of (seed, epoch, index, stream) alone."""
        # One number for each question, asked or not: switching one change on leaves the others as they were.
        numbers = uniforms(seed, epoch, index, stream, 16)
        flip, scale, angle, right, down, turn, move, halve, half, pixels, occlusion, pixel_seed, occlusion_seed = numbers[:13]
        zoom = self.zooms[int(numbers[13] * len(self.zooms))]
        free = 1 - 1 / zoom  # of the box, which the crop may move in
        rotation = self.rotation if turn < self.rotation_probability else 0.0
        shift = self.shift if move < self.shift_probability else 0.0
        return Changes(
            flip=flip < self.flip,
            scale=zoom / (1 + self.scale * (2 * scale - 1)),
            rotation=rotation * (2 * angle - 1),
            shift=(shift * (2 * right - 1) + free * (numbers[14] - 0.5), shift * (2 * down - 1) + free * (numbers[15] - 0.5)),
            half_body=("upper" if half < UPPER_BODY else "lower") if halve < self.half_body else None,
            pixel_seed=int(pixel_seed * 2**32) if pixels < self.pixels else None,
            occlusion_seed=int(occlusion_seed * 2**32) if occlusion < self.occlusion else None,
        )

    def warn_without_halves(self, name: str) -> None:
        """Warn that the samples of the data set `name` have no halves, where bodies are to be cut down to them."""
        if self.half_body:
            text = f"{name}: no key points are known as the upper body, so `half_body` {self.half_body} has no effect"
            warnings.warn(text, stacklevel=3)
