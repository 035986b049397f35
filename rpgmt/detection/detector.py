"""What every detector is: images in, boxes of persons out, in the project's own coordinates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rpgmt.errors import UserError

DEFAULT_THRESHOLD = 0.5
"""Lowest score that counts where nothing else is said."""


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image, the best first.

    Args:
        boxes: float64 (P, 4), x, y, w, h in pixels of the image; it covers the pixels x … x + w - 1, so that the box of a whole
            image of W×H pixels is (0, 0, W, H), as in `rpgmt.data.transforms`. Every box lies in its image and has an area.
        scores: float64 (P,), falling.
        labels: int64 (P,), classes as the detector numbers them; None where it has one class only.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        """P."""
        return len(self.boxes)


@dataclass(frozen=True)
class Corners:
    """What a network gave for one image, before anything is left out.

    Args:
        corners: (N, 4), left, top, right, bottom in pixels of the image where its first pixel spans 0 to 1, as torchvision
            and COCO count: the image spans 0 to W.
        scores: (N,).
        labels: (N,), or None.
    """

    corners: np.ndarray
    scores: np.ndarray
    labels: np.ndarray | None = None


class Detector(ABC):
    """Finds persons, or other classes, in images.

    Args:
        threshold: the lowest score that counts, from 0 to 1.
        classes: labels that count, as the detector numbers them; None for all.

    Raises:
        UserError: the threshold is not from 0 to 1.
    """

    def __init__(self, threshold: float, classes: Sequence[int] | None) -> None:
        if not 0 <= threshold <= 1:
            raise UserError(f"`threshold` is {threshold}: give a score from 0 to 1, e.g. 0.5")
        self.threshold = threshold
        self.classes = None if classes is None else tuple(classes)

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Return what is found in each image.

        Args:
            images: uint8 (H, W, 3), RGB, of any sizes.

        Raises:
            ValueError: an image is not such an array.
        """
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise ValueError(f"an image is {image.dtype} {image.shape}: give uint8 (H, W, 3), RGB")
        return [self._kept(image, found) for image, found in zip(images, self._detect(images), strict=True)]

    @abstractmethod
    def _detect(self, images: Sequence[np.ndarray]) -> list[Corners]:
        """What the network gives for each image, in any order."""

    def _kept(self, image: np.ndarray, found: Corners) -> Detections:
        height, width = image.shape[:2]
        corners = np.asarray(found.corners, np.float64).reshape(-1, 4)
        scores = np.asarray(found.scores, np.float64).reshape(-1)
        labels = None if found.labels is None else np.asarray(found.labels).reshape(-1).astype(np.int64)
        corners = np.clip(corners, 0, (width, height, width, height))
        sizes = corners[:, 2:] - corners[:, :2]
        good = (sizes > 0).all(1) & (scores >= self.threshold)  # neither is true of a NaN
        if labels is not None and self.classes is not None:
            good &= np.isin(labels, self.classes)
        order = np.flatnonzero(good)[np.argsort(-scores[good], kind="stable")]
        boxes = np.concatenate((corners[order, :2], sizes[order]), axis=1)
        return Detections(boxes, scores[order], None if labels is None else labels[order])
