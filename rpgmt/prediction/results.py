"""What one head of a network finds: key points, a map, a class; plain NumPy arrays in pixels of the image."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.transforms import invert

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Poses:
    """Key points of P people.

    Attributes:
        keypoint_set: names, skeleton, mirror images and sigmas of the K points.
        points: (P, K, 2), x and y in pixels of the image, pixel centres at integers.
        scores: (P, K), as the codec gives them: from 0 to 1 for the default one.
        person_scores: (P,).
    """

    keypoint_set: KeypointSet
    points: Floats
    scores: Floats
    person_scores: Floats

    def select(self, chosen: NDArray[Any]) -> Poses:
        return dataclasses.replace(
            self, points=self.points[chosen], scores=self.scores[chosen], person_scores=self.person_scores[chosen]
        )


@dataclass(frozen=True, eq=False)
class DenseMap:
    """A class, a depth or a normal for each pixel of P crops.

    Attributes:
        label: what the map holds, and the names of its classes.
        values: of the crops: int16 (P, h, w) classes, float32 (P, h, w) depth in the unit of the data that was trained on
            (metres, as a rule), float32 (P, h, w, 3) unit normals in the camera's frame.
        to_image: (P, 2, 3), the affines from pixels of the crops to pixels of the image.
        image_size: (W, H) of the image in pixels.
    """

    label: LabelMap
    values: NDArray[Any]
    to_image: Floats
    image_size: tuple[int, int]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; none for depth and normals."""
        return self.label.classes

    @cached_property
    def image(self) -> NDArray[Any]:
        """The map of the whole image, (H, W) or (H, W, 3): where crops overlap, that of the crop in whose middle a pixel is.

        Where there is no crop: class -1, depth 0, normal (0, 0, 0).
        """
        width, height = self.image_size
        result = self.label.missing((height, width))
        nearest = np.full((height, width), np.inf, np.float32)
        for person, affine in enumerate(self.to_image):
            distance = self._distance_to_middle(affine)
            closer = (distance <= 1) & (distance < nearest)
            nearest[closer] = distance[closer]
            result[closer] = self._warped(person)[closer]
        return result

    def of_person(self, person: int) -> NDArray[Any]:
        """The map of one crop in the whole image, without values outside of the crop."""
        width, height = self.image_size
        inside = self._distance_to_middle(self.to_image[person]) <= 1
        result = self.label.missing((height, width))
        result[inside] = self._warped(person)[inside]
        return result

    def select(self, chosen: NDArray[Any]) -> DenseMap:
        return dataclasses.replace(self, values=self.values[chosen], to_image=self.to_image[chosen])

    def _warped(self, person: int) -> NDArray[Any]:
        """Between the centres of a crop's pixels depth and normals are interpolated, classes are the nearest one's."""
        categorical = self.label.categorical
        warped = cv2.warpAffine(
            self.values[person],
            self.to_image[person],
            self.image_size,
            flags=cv2.INTER_NEAREST if categorical else cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if self.label.kind == "normals":
            warped /= np.maximum(np.linalg.norm(warped, axis=-1, keepdims=True), 1e-12)
        return np.asarray(warped)

    def _distance_to_middle(self, to_image: Floats) -> NDArray[np.float32]:
        """Of each pixel of the image, (H, W): 0 in the middle of a crop, 1 on its edges, more outside."""
        (a, b, x), (c, d, y) = invert(to_image)
        height, width = self.values.shape[1:3]
        columns, rows = np.arange(self.image_size[0]), np.arange(self.image_size[1])[:, None]
        across = np.abs((a * columns + b * rows + x + 0.5) / width * 2 - 1)
        down = np.abs((c * columns + d * rows + y + 0.5) / height * 2 - 1)
        return np.maximum(across, down).astype(np.float32)


@dataclass(frozen=True, eq=False)
class ImageClass:
    """A class of each of P crops.

    Attributes:
        names: of the C classes.
        probabilities: (P, C).
    """

    names: tuple[str, ...]
    probabilities: Floats

    @property
    def labels(self) -> list[str]:
        """The likeliest class of each crop."""
        return [self.names[number] for number in self.probabilities.argmax(1)]

    def best(self, crop: int) -> dict[str, Any]:
        """`name` and `score`, its probability, of the likeliest class of a crop."""
        number = int(self.probabilities[crop].argmax())
        return {"name": self.names[number], "score": float(self.probabilities[crop, number])}

    def select(self, chosen: NDArray[Any]) -> ImageClass:
        return dataclasses.replace(self, probabilities=self.probabilities[chosen])


Result = Poses | DenseMap | ImageClass
