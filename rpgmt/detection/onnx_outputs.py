"""What the outputs of a detector in an ONNX file mean: the forms that docs/detectors.md lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rpgmt.detection.detector import DEFAULT_THRESHOLD

FORMS = "boxes (N, 4), scores (N,), labels (N,); or (N, 5 or 6): x1, y1, x2, y2, score, label; or MoveNet's (1, 6, 56)"

_MOVENET_THRESHOLD = 0.15
"""Its scores are low: at 0.15 it finds 57 % of the annotated people of COCO photographs, at 0.5 14 % (docs/detectors.md)."""

_ROLES = {"boxes": ("box",), "scores": ("score", "conf"), "labels": ("label", "class")}
"""What a name of an output holds that has the role."""


@dataclass(frozen=True)
class Outputs:
    """Boxes of one image as a detector gives them.

    Args:
        corners: (N, 4), left, top, right, bottom, in pixels of the input or in parts of it.
        scores: (N,).
        labels: (N,), or None.
        person: the label of persons as detectors of this form number them.
        parts: whether the corners are parts of the input; None where the form leaves it open.
        threshold: the lowest score that counts where nothing else is said.
    """

    corners: np.ndarray
    scores: np.ndarray
    labels: np.ndarray | None
    person: int
    parts: bool | None = None
    threshold: float = DEFAULT_THRESHOLD

    def in_parts(self) -> bool:
        """Whether the corners are parts of the input: by the form, or as no box of pixels is as small as two parts."""
        return self.parts if self.parts is not None else bool(np.abs(self.corners).max(initial=0) <= 2)


def read_outputs(names: Sequence[str], arrays: Sequence[np.ndarray]) -> Outputs | None:
    """The outputs of a detector for one image; None if they fit no form.

    Args:
        names: of the outputs.
        arrays: theirs.
    """
    return _movenet(arrays) or _apart(names, arrays) or _in_rows(arrays)


def _movenet(arrays: Sequence[np.ndarray]) -> Outputs | None:
    """MoveNet's several people: rows of 17 × (y, x, score), then ymin, xmin, ymax, xmax, score."""
    if len(arrays) != 1 or arrays[0].ndim != 3 or arrays[0].shape[-1] != 56:
        return None
    rows = arrays[0].reshape(-1, 56)
    return Outputs(rows[:, [52, 51, 54, 53]], rows[:, 55], None, person=1, parts=True, threshold=_MOVENET_THRESHOLD)


def _apart(names: Sequence[str], arrays: Sequence[np.ndarray]) -> Outputs | None:
    """Boxes, scores and, where there are classes, labels: by their names, or by shapes and types."""
    by_name = {
        role: [array for name, array in zip(names, arrays, strict=True) if any(part in name.lower() for part in parts)]
        for role, parts in _ROLES.items()
    }
    if all(len(found) == 1 for found in by_name.values()):
        boxes, scores, labels = (found[0] for found in by_name.values())
        if _belong(boxes, scores) and _belong(boxes, labels):
            return _of_one_image(boxes, scores, labels)
    for boxes in arrays:
        if not _is_float(boxes):
            continue
        others = [array for array in arrays if array is not boxes]
        scores_found = [array for array in others if _is_float(array) and _belong(boxes, array)]
        labels_found = [array for array in others if not _is_float(array) and _belong(boxes, array)]
        if len(scores_found) == 1 and len(others) == 1 + len(labels_found) and len(labels_found) <= 1:
            return _of_one_image(boxes, scores_found[0], labels_found[0] if labels_found else None)
    return None


def _in_rows(arrays: Sequence[np.ndarray]) -> Outputs | None:
    """Rows of x1, y1, x2, y2, score and, in the sixth place or in an output of integers, the label."""
    rows = [array for array in arrays if _is_float(array) and array.ndim > 1 and array.shape[-1] in (5, 6)]
    others = [array for array in arrays if not _is_float(array)]
    if len(rows) != 1 or len(rows) + len(others) != len(arrays) or len(others) > 1:
        return None
    columns = rows[0].reshape(-1, rows[0].shape[-1])
    labels = columns[:, 5] if columns.shape[1] == 6 else None
    if others:
        if labels is not None or others[0].shape != rows[0].shape[:-1]:
            return None
        labels = others[0].reshape(-1)
    return Outputs(columns[:, :4], columns[:, 4], labels, person=0)


def _is_float(array: np.ndarray) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _belong(boxes: np.ndarray, others: np.ndarray) -> bool:
    """Whether these are boxes, and those something for each of them."""
    return boxes.ndim > 1 and boxes.shape == (*others.shape, 4)


def _of_one_image(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray | None) -> Outputs:
    return Outputs(boxes.reshape(-1, 4), scores.reshape(-1), None if labels is None else labels.reshape(-1), person=1)
