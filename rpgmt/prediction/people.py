"""What a network finds in one image: people, or the whole image, by every head and stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rpgmt.errors import UserError
from rpgmt.prediction.draw import draw_found, pictures
from rpgmt.prediction.results import Floats, ImageClass, Poses, Result
from rpgmt.prediction.source import ImageLike, SourceImage
from rpgmt.visualize import contact_sheet

if TYPE_CHECKING:
    import supervision

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
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
    stages: tuple[People, ...] = ()
    ids: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """P."""
        return len(self.boxes)

    def __repr__(self) -> str:
        width, height = self.image_size
        stages = f"; {len(self.stages)} stage{'s' if self.stages[1:] else ''}" if self.stages else ""
        return f"People({len(self)} in {width}×{height}: {', '.join(self.results)}{stages})"

    def __getitem__(self, head: str) -> Any:
        if not isinstance(head, str):
            raise TypeError(f"people[{head!r}]: give the name of a head; some of the people are people.select([0, 2])")
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
            stages=tuple(stage.select(index) if len(stage) == len(self) else stage for stage in self.stages),
            ids=None if self.ids is None else self.ids[index],
        )

    def with_ids(self, ids: NDArray[np.int64]) -> People:
        """The same people under the names by which they are followed, in all stages that have as many."""
        stages = tuple(stage.with_ids(ids) if len(stage) == len(self) else stage for stage in self.stages)
        return dataclasses.replace(self, ids=ids, stages=stages)

    def draw(self, image: ImageLike | SourceImage, *, min_score: float = 0.2) -> Image:
        """A picture: skeletons, classes of pixels in colours, names of classes of the image, ids.

        Args:
            image: as for `Predictor`, the one in which they were found.
            min_score: key points that score less are not drawn.

        Returns:
            uint8 (H, W, 3), RGB.
        """
        return draw_found(self._pixels(image), self.results, self.boxes, self.ids, min_score)

    def pictures(self, image: ImageLike | SourceImage, *, min_score: float = 0.2) -> dict[str, Image]:
        """Pictures by name: `people` as `draw` makes it, and each map of depth or normals by its head's name."""
        return pictures(self._pixels(image), self.results, self.boxes, self.ids, min_score)

    def draw_stages(self, image: ImageLike | SourceImage, *, min_score: float = 0.2) -> Image:
        """A picture of what every stage found, side by side, a row for each of `pictures`."""
        source = SourceImage.open(image)
        columns = [stage.pictures(source, min_score=min_score) for stage in self.stages or (self,)]
        titles = [f"stage {k}" for k in range(1, len(columns) + 1)]
        return contact_sheet([[column[name] for column in columns] for name in columns[0]], titles)

    def _pixels(self, image: ImageLike | SourceImage) -> Image:
        """Of the image in which they were found.

        Raises:
            UserError: it has another size.
        """
        pixels = SourceImage.open(image).pixels
        height, width = pixels.shape[:2]
        if (width, height) != self.image_size:
            found = "×".join(map(str, self.image_size))
            raise UserError(f"the image is {width}×{height}: these people were found in one of {found}, draw them on that")
        return pixels

    def to_coco(self, image_id: int | str = 0, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO's result format, one a person: `keypoints` where there are any, `bbox`, `score`; `track_id` in videos.

        A head that tells a class adds `classes`: its name → the likeliest class's `name` and `score`.

        Args:
            image_id: of the image.
            category_id: of persons; 1 in COCO.
        """
        image_id = image_id if isinstance(image_id, str) else int(image_id)  # NumPy's integers are not JSON's
        category_id = int(category_id)
        rows = []
        for p in range(len(self)):
            row: dict[str, Any] = {"image_id": image_id, "category_id": category_id}
            if self.has_poses:
                pose = np.concatenate([self.keypoints[p], self.keypoint_scores[p, :, None]], axis=1)
                row["keypoints"] = pose.ravel().tolist()
            row |= {"bbox": self.boxes[p].tolist(), "score": float(self.scores[p])}
            if classes := {name: of.best(p) for name, of in self.results.items() if isinstance(of, ImageClass)}:
                row["classes"] = classes
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
