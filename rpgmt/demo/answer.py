"""What the page is told: of a model once, of an image the findings of every stage, and maps as pictures."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.prediction.meaning import KeypointMaps, Meaning, PixelMap, Reading
from rpgmt.prediction.people import People
from rpgmt.prediction.results import DenseMap, ImageClass, Poses
from rpgmt.visualize import colorize, side_colours

LONGEST = 1280
"""Pixels of the longer side of a map's picture, at most: the page enlarges it to the image."""

_LIKELIEST = 5
"""Classes of an image that the page lists."""


def describe_heads(reading: Reading) -> list[dict[str, Any]]:
    """What the page needs to show each head's findings: names, limbs and colours."""
    return [{"name": name} | _describe(meaning) for name, meaning in reading.heads.items()]


def _describe(meaning: Meaning) -> dict[str, Any]:
    if isinstance(meaning, KeypointMaps):
        known = meaning.keypoints
        colour = side_colours(known.flip_pairs)
        points = [{"name": name, "colour": _css(colour(k))} for k, name in enumerate(known.names)]
        limbs = [{"ends": [a, b], "colour": _css(colour(a, b))} for a, b in known.skeleton]
        return {"kind": "keypoints", "points": points, "limbs": limbs}
    if isinstance(meaning, PixelMap):
        label = meaning.label
        if label.kind == "depth":
            return {"kind": "depth", "inverse": label.inverse, "ramp": _depth_colours()}
        return {"kind": label.kind, "classes": _class_colours(label)}
    return {"kind": "class"}


def _class_colours(label: LabelMap) -> list[dict[str, str]]:
    colours = colorize(np.arange(len(label.classes))[None], "labels")[0]
    return [{"name": name, "colour": _css(colour)} for name, colour in zip(label.classes, colours, strict=True)]


def _depth_colours() -> list[str]:
    """From the nearest to the farthest."""
    return [_css(colour) for colour in colorize(np.linspace(1, 2, 12)[None], "depth", (1, 2))[0]]


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What was found in an image, for the page.

    Attributes:
        people: with all stages.
        seconds: that finding took.
    """

    people: People
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Everything but the maps."""
        return {
            "width": self.people.image_size[0],
            "height": self.people.image_size[1],
            "seconds": self.seconds,
            "depths": self._depth_limits,
            "present": {name: sorted(self._present(name)) for name, label in self._labels.items() if label.categorical},
            "stages": [self._stage(stage) for stage in self.people.stages],
        }

    def picture(self, stage: int, head: str) -> bytes:
        """A map of the whole image as a PNG, transparent where nothing is known, and on a class map's background.

        Args:
            stage: from 0.
            head: of classes, depth or normals.

        Raises:
            KeyError: there is no such map.
        """
        if head not in self._labels or not 0 <= stage < len(self.people.stages):
            raise KeyError(head)
        label = self._labels[head]
        values = self._map(stage, head)
        if label.categorical:
            colours, known = colorize(np.maximum(values, 0), "labels"), values > 0
        elif label.kind == "depth":
            colours, known = colorize(values, "depth", self._depth_limits[head]), values > 0
        else:
            colours, known = colorize(values, "normals"), np.square(values).sum(-1) > 0
        pixels = np.dstack([colours[:, :, ::-1], np.where(known, 255, 0).astype(np.uint8)])  # OpenCV writes BGRA
        return bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])

    @property
    def _labels(self) -> dict[str, LabelMap]:
        return {name: result.label for name, result in self.people.results.items() if isinstance(result, DenseMap)}

    @cached_property
    def _depth_limits(self) -> dict[str, tuple[float, float]]:
        """The same colours for all stages: those of the middle 96 % of what the last one found."""
        limits = {}
        for name, label in self._labels.items():
            if label.kind == "depth":
                depths = self._map(-1, name)
                near, far = np.percentile(depths[depths > 0], (2, 98)) if (depths > 0).any() else (0, 1)
                limits[name] = (float(near), float(far))
        return limits

    def _present(self, head: str) -> set[int]:
        """The classes that some stage found, but for the first, the background."""
        found = {int(number) for stage in self.people.stages for number in np.unique(stage[head].values)}
        return {number for number in found if number > 0}

    def _map(self, stage: int, head: str) -> NDArray[Any]:
        """A map no larger than `LONGEST`; (H, W) or (H, W, 3)."""
        result: DenseMap = self.people.stages[stage][head]
        width, height = result.image_size
        scale = min(1.0, LONGEST / max(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        across, down = size[0] / width, size[1] / height
        # Pixel centres are at integers: x becomes (x + 1/2) · across - 1/2.
        to_size = np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5]])
        to_image = to_size[:, :2] @ result.to_image
        to_image[..., 2] += to_size[:, 2]
        return dataclasses.replace(result, to_image=to_image, image_size=size).image

    def _stage(self, found: People) -> dict[str, Any]:
        poses: dict[str, Any] = {}
        classes: dict[str, Any] = {}
        for name, result in found.results.items():
            if isinstance(result, Poses):
                poses[name] = _numbers(np.dstack([result.points, result.scores]))
            elif isinstance(result, ImageClass):
                classes[name] = [_likeliest(result.names, row) for row in result.probabilities]
        boxes, scores = _numbers(found.boxes), _numbers(found.scores)
        return {"boxes": boxes, "scores": scores, "poses": poses, "classes": classes, "coco": found.to_coco()}


def _likeliest(names: tuple[str, ...], probabilities: NDArray[np.float64]) -> list[dict[str, Any]]:
    order = np.argsort(-probabilities, kind="stable")[:_LIKELIEST]
    return [{"name": names[number], "probability": float(probabilities[number])} for number in order]


def _numbers(values: NDArray[Any]) -> list[Any]:
    """Nested lists of three decimals."""
    return list(np.round(np.asarray(values, np.float64), 3).tolist())


def _css(colour: Any) -> str:
    red, green, blue = (int(part) for part in colour)
    return f"#{red:02x}{green:02x}{blue:02x}"
