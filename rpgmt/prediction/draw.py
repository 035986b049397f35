"""Pictures of what was found in an image."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.prediction.results import DenseMap, Floats, ImageClass, Poses, Result
from rpgmt.visualize import colorize, paint_pose

Image = NDArray[np.uint8]

_INK, _PAPER = (32, 32, 32), (255, 255, 255)


def draw_found(
    image: Image, results: Mapping[str, Result], boxes: Floats, ids: NDArray[np.int64] | None, min_score: float
) -> Image:
    """The image with skeletons, classes of pixels in colours, names of classes and ids.

    Args:
        image: uint8 (H, W, 3), RGB.
        results: of each head, of P people.
        boxes: (P, 4), x, y, w, h.
        ids: (P,), written at the boxes; None: none.
        min_score: key points that score less are not drawn.
    """
    canvas = image.copy()
    for result in results.values():
        if isinstance(result, DenseMap) and result.label.categorical:
            _tint(canvas, result.image)
    for result in results.values():
        if isinstance(result, Poses):
            for person, box in enumerate(boxes):
                _skeleton(canvas, result, person, box, min_score)
    classes = [result.labels for result in results.values() if isinstance(result, ImageClass)]
    for person, box in enumerate(boxes):
        words = ([] if ids is None else [str(ids[person])]) + [labels[person] for labels in classes]
        if words:
            _label(canvas, ", ".join(words), box)
    return canvas


def pictures(
    image: Image, results: Mapping[str, Result], boxes: Floats, ids: NDArray[np.int64] | None, min_score: float
) -> dict[str, Image]:
    """`people` as `draw_found` makes it, and each map of depth (near bright) or normals (x, y, z are red, green, blue)."""
    drawn = {"people": draw_found(image, results, boxes, ids, min_score)}
    for name, result in results.items():
        if isinstance(result, DenseMap) and (kind := result.label.kind) in ("depth", "normals"):
            drawn[name] = colorize(result.image, kind)
    return drawn


def _tint(canvas: Image, classes: NDArray[np.int16]) -> None:
    """Half the colour of each pixel's class; the first class, the background, stays as it is."""
    tinted = classes > 0
    colours = colorize(np.maximum(classes, 0), "labels")
    canvas[tinted] = (canvas[tinted].astype(np.uint16) + colours[tinted]) // 2


def _skeleton(canvas: Image, poses: Poses, person: int, box: Floats, min_score: float) -> None:
    points = np.column_stack([poses.points[person], poses.scores[person]])
    points[:, 2] = np.where(points[:, 2] >= min_score, np.clip(points[:, 2], 1e-6, 1 - 1e-6), 0)  # scores, not visibilities
    known = poses.keypoint_set
    paint_pose(canvas, points, known.skeleton, flip_pairs=known.flip_pairs, extent=float(max(box[2:])))


def _label(canvas: Image, text: str, box: Floats) -> None:
    """Words on a white band at a box's upper left corner, inside of the image."""
    size = max(0.4, min(canvas.shape[:2]) / 900)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    left = int(np.clip(box[0], 0, max(0, canvas.shape[1] - width - 4)))
    top = int(np.clip(box[1], 0, max(0, canvas.shape[0] - height - below - 4)))
    cv2.rectangle(canvas, (left, top), (left + width + 4, top + height + below + 4), _PAPER, -1)
    cv2.putText(canvas, text, (left + 2, top + height + 2), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
