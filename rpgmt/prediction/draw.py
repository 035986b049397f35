"""Pictures of what was found in an image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.prediction.results import DenseMap, ImageClass, People, Poses
from rpgmt.prediction.source import SourceImage
from rpgmt.visualize import colorize, contact_sheet, paint_pose

Image = NDArray[np.uint8]

_INK, _PAPER = (32, 32, 32), (255, 255, 255)


def draw_people(people: People, image: Any, min_score: float) -> Image:
    """The image with skeletons, classes of pixels in colours, names of classes and ids: see `People.draw`."""
    canvas = SourceImage.open(image).pixels.copy()
    for result in people.results.values():
        if isinstance(result, DenseMap) and result.label.categorical:
            _tint(canvas, result.image)
    for result in people.results.values():
        if isinstance(result, Poses):
            for person in range(len(people)):
                _skeleton(canvas, result, person, people.boxes[person], min_score)
    for person, box in enumerate(people.boxes):
        words = [] if people.ids is None else [f"{people.ids[person]}"]
        words += [result.labels[person] for result in people.results.values() if isinstance(result, ImageClass)]
        if words:
            _label(canvas, ", ".join(words), box)
    return canvas


def draw_map(result: DenseMap) -> Image:
    """A map in colours, of the size of the image: depth near bright, normals x, y, z as red, green, blue."""
    kind = "labels" if result.label.categorical else result.label.kind
    return colorize(result.image, kind)  # type: ignore[arg-type]  # the kinds that are left


def pictures(people: People, image: Any, min_score: float) -> dict[str, Image]:
    """`people` drawn on the image, and each map of depth or normals by its head's name."""
    drawn = {"people": draw_people(people, image, min_score)}
    for name, result in people.results.items():
        if isinstance(result, DenseMap) and not result.label.categorical:
            drawn[name] = draw_map(result)
    return drawn


def draw_stages(people: People, image: Any, min_score: float) -> Image:
    """What every stage found, side by side: see `People.draw_stages`."""
    source = SourceImage.open(image)
    columns = [pictures(stage, source, min_score) for stage in people.stages or (people,)]
    titles = [f"stage {k}" for k in range(1, len(columns) + 1)]
    return contact_sheet([[column[name] for column in columns] for name in columns[0]], titles)


def _tint(canvas: Image, classes: NDArray[Any]) -> None:
    """Half the colour of each pixel's class; the first class, the background, stays as it is."""
    tinted = classes > 0
    colours = colorize(np.maximum(classes, 0), "labels")
    canvas[tinted] = (canvas[tinted].astype(np.uint16) + colours[tinted]) // 2


def _skeleton(canvas: Image, poses: Poses, person: int, box: NDArray[np.float64], min_score: float) -> None:
    points = np.column_stack([poses.points[person], poses.scores[person]])
    points[:, 2] = np.where(points[:, 2] >= min_score, np.clip(points[:, 2], 1e-6, 1 - 1e-6), 0)  # scores, not visibilities
    known = poses.keypoint_set
    paint_pose(canvas, points, known.skeleton, flip_pairs=known.flip_pairs, extent=float(max(box[2:])))


def _label(canvas: Image, text: str, box: NDArray[np.float64]) -> None:
    """Words on a white band at a box's upper left corner, inside of the image."""
    size = max(0.4, min(canvas.shape[:2]) / 900)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    left = int(np.clip(box[0], 0, max(0, canvas.shape[1] - width - 4)))
    top = int(np.clip(box[1], 0, max(0, canvas.shape[0] - height - below - 4)))
    cv2.rectangle(canvas, (left, top), (left + width + 4, top + height + below + 4), _PAPER, -1)
    cv2.putText(canvas, text, (left + 2, top + height + 2), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
