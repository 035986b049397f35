"""The plain way to load a person for pose estimation, as the common repositories have it, for comparison.

The file is read and decoded whole, the person is cut out in one warp and turned in a second one, pixels become normalised
floats, and the target maps are drawn joint by joint in the loader.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rpgmt.data.coco.person import Person
from tools.benchmarks.common.stopwatch import ThreadStopwatch

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainCrops:
    """A map-style data set of normalised float images and heat maps.

    Args:
        people: who is cut out.
        folder: of the images.
        flip_pairs: of key points.
        input_size: (W, H) of the crop in pixels; the maps have a quarter of it.
        watch: gets the time of each step.
    """

    def __init__(
        self,
        people: list[Person],
        folder: Path,
        flip_pairs: tuple[tuple[int, int], ...],
        input_size: tuple[int, int],
        watch: ThreadStopwatch,
        *,
        flip: float = 0.5,
        scale: float = 0.25,
        rotation: float = 30.0,
        sigma: float = 2.0,
    ) -> None:
        self.people, self.folder, self.flip_pairs, self.input_size, self.watch = people, folder, flip_pairs, input_size, watch
        self.flip, self.scale, self.rotation, self.sigma = flip, scale, rotation, sigma
        self.rng = np.random.default_rng(0)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample of one person."""
        import torch

        person, (width, height), mark = self.people[index], self.input_size, self.watch.mark
        mark()
        image = cv2.imread(str(self.folder / person.image["file_name"]), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert image is not None
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        mark("decode")

        x, y, w, h = person.box
        joints, visible = person.keypoints.copy(), person.visibility.copy()
        factor = width / (1.25 * max(w, h * width / height)) * self.rng.uniform(1 - self.scale, 1 + self.scale)
        left, top = width / 2 - factor * (x + w / 2), height / 2 - factor * (y + h / 2)
        cut = np.array([[factor, 0, left], [0, factor, top]])
        angle = self.rng.uniform(-self.rotation, self.rotation)
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
        crop = cv2.warpAffine(image, cut, (width, height), flags=cv2.INTER_LINEAR)
        crop = cv2.warpAffine(crop, turn, (width, height), flags=cv2.INTER_LINEAR)
        for joint in range(len(joints)):
            if visible[joint]:
                joints[joint] = turn @ [*(cut @ [*joints[joint], 1.0]), 1.0]
        mark("warp")

        pixels = torch.from_numpy(crop).permute(2, 0, 1).contiguous().float().div_(255)
        pixels.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(DEVIATION)[:, None, None])
        mark("float")
        if self.rng.random() < self.flip:
            pixels = pixels.flip(-1)
            joints[:, 0] = width - 1 - joints[:, 0]
            for a, b in self.flip_pairs:
                joints[[a, b]], visible[[a, b]] = joints[[b, a]], visible[[b, a]]
        mark("augmentation")
        target, weight = _target(joints, visible, (width // 4, height // 4), self.sigma)
        mark("targets")
        return {"image": pixels, "target": torch.from_numpy(target), "weight": torch.from_numpy(weight), "index": index}


def _target(joints: np.ndarray, visible: np.ndarray, size: tuple[int, int], sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian patch of ± 3 sigma round each joint's cell, drawn one after another."""
    width, height = size
    target = np.zeros((len(joints), height, width), dtype=np.float32)
    weight = (visible > 0).astype(np.float32)
    reach = math.ceil(3 * sigma)
    side = np.arange(-reach, reach + 1, dtype=np.float32)
    for joint in range(len(joints)):
        column, row = int(joints[joint, 0] / 4 + 0.5), int(joints[joint, 1] / 4 + 0.5)
        left, right, top, bottom = column - reach, column + reach + 1, row - reach, row + reach + 1
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            weight[joint] = 0
        if weight[joint] == 0:
            continue
        patch = np.exp(-(side[None] ** 2 + side[:, None] ** 2) / (2 * sigma**2))
        inside = patch[max(0, -top) : height - top, max(0, -left) : width - left]
        target[joint, max(0, top) : min(bottom, height), max(0, left) : min(right, width)] = inside
    return target, weight
