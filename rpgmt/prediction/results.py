"""What a network finds in an image: people with key points, maps, classes; plain NumPy arrays in pixels of the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.transforms import invert

if TYPE_CHECKING:
    import supervision

Floats = NDArray[np.float64]
Image = NDArray[np.uint8]


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

    def select(self, chosen: NDArray[Any]) -> ImageClass:
        return dataclasses.replace(self, probabilities=self.probabilities[chosen])


Result = Poses | DenseMap | ImageClass
R = TypeVar("R", Poses, DenseMap, ImageClass)


@dataclass(frozen=True, eq=False, kw_only=True)
class People:
    """What is found in the boxes of one image: by the last stage, and by every stage in `stages`.

    A box is a person's, or the whole image. `people["depth"]` is what the head `depth` found: `Poses`, a `DenseMap` or an
    `ImageClass`.

    Attributes:
        image_size: (W, H) in pixels.
        boxes: (P, 4), x, y, w, h in pixels.
        box_scores: (P,), of the detector; 1 for boxes that were given.
        results: what each head found.
        stages: the same of each stage, the last one included; empty in a stage itself.
        ids: (P,), of people who are followed through a video; else None.
    """

    image_size: tuple[int, int]
    boxes: Floats
    box_scores: Floats
    results: Mapping[str, Result]
    stages: tuple[People, ...] = field(default=(), repr=False)
    ids: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """P."""
        return len(self.boxes)

    def __getitem__(self, head: str) -> Any:
        if head not in self.results:
            raise KeyError(f"{head!r}: the network predicts {', '.join(self.results)}")
        return self.results[head]

    @property
    def poses(self) -> Poses:
        """Of the head that finds key points.

        Raises:
            AttributeError: the network has none.
        """
        for result in self.results.values():
            if isinstance(result, Poses):
                return result
        raise AttributeError(f"there are no key points: the network predicts {', '.join(self.results)}")

    @property
    def has_poses(self) -> bool:
        return any(isinstance(result, Poses) for result in self.results.values())

    @property
    def keypoints(self) -> Floats:
        """(P, K, 2), x and y in pixels of the image, pixel centres at integers."""
        return self.poses.points

    @property
    def keypoint_scores(self) -> Floats:
        """(P, K)."""
        return self.poses.scores

    @property
    def scores(self) -> Floats:
        """(P,), of the poses; of the boxes where there are no key points."""
        return self.poses.person_scores if self.has_poses else self.box_scores

    @property
    def names(self) -> tuple[str, ...]:
        """Of the K key points."""
        return self.poses.keypoint_set.names

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """Pairs of key points to join, zero-based."""
        return self.poses.keypoint_set.skeleton

    def select(self, chosen: Sequence[int] | NDArray[Any]) -> People:
        """Some of the people, in all stages that have as many.

        Args:
            chosen: their numbers, or P booleans.
        """
        index = np.asarray(chosen)
        index = index if index.dtype == bool else index.astype(np.int64)
        return dataclasses.replace(
            self,
            boxes=self.boxes[index],
            box_scores=self.box_scores[index],
            results={name: result.select(index) for name, result in self.results.items()},
            stages=tuple(stage.select(index) for stage in self.stages),
            ids=None if self.ids is None else self.ids[index],
        )

    def with_ids(self, ids: NDArray[np.int64]) -> People:
        """The same people under the names by which they are followed, in all stages."""
        return dataclasses.replace(self, ids=ids, stages=tuple(stage.with_ids(ids) for stage in self.stages))

    def draw(self, image: Any, *, min_score: float = 0.2) -> Image:
        """A picture: skeletons, classes of pixels in colours, names of classes of the image, ids.

        Args:
            image: as for `Predictor`, the one in which they were found.
            min_score: key points that score less are not drawn.

        Returns:
            uint8 (H, W, 3), RGB.
        """
        from rpgmt.prediction.draw import draw_people

        return draw_people(self, image, min_score)

    def draw_stages(self, image: Any, *, min_score: float = 0.2) -> Image:
        """A picture of what every stage found, side by side, a row for each kind of prediction."""
        from rpgmt.prediction.draw import draw_stages

        return draw_stages(self, image, min_score)

    def to_coco(self, image_id: int | str = 0, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO's result format, one a person: `keypoints` where there are any, `bbox`, `score`; `track_id` in videos.

        Args:
            image_id: of the image.
            category_id: of persons; 1 in COCO.
        """
        rows = []
        for p in range(len(self)):
            row: dict[str, Any] = {"image_id": image_id, "category_id": category_id}
            if self.has_poses:
                pose = np.concatenate([self.keypoints[p], self.keypoint_scores[p, :, None]], axis=1)
                row["keypoints"] = pose.ravel().tolist()
            row |= {"bbox": self.boxes[p].tolist(), "score": float(self.scores[p])}
            rows.append(row if self.ids is None else row | {"track_id": int(self.ids[p])})
        return rows

    def to_supervision(self) -> supervision.KeyPoints:
        """The key points for the annotators of the package supervision.

        Raises:
            ModuleNotFoundError: it is not installed.
        """
        import supervision

        return supervision.KeyPoints(
            xy=self.keypoints.astype(np.float32),
            keypoint_confidence=self.keypoint_scores.astype(np.float32),
            detection_confidence=self.scores.astype(np.float32),
            class_id=np.zeros(len(self), int),
        )
