"""Tapered capsules, ellipsoids and boxes, many of them in a few arrays: what bodies and objects are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

CONE, ELLIPSOID, BOX = 0, 1, 2


class Shapes(NamedTuple):
    """S convex shapes, each with a frame of its own.

    Args:
        kind: (S,) CONE, ELLIPSOID or BOX.
        centre: (S, 3) origin of the frame, metres. Of a cone it is the centre of the first sphere.
        frame: (S, 3, 3) rows are the frame's axes. A cone's axis is its local +y.
        size: (S, 3) of an ellipsoid or box its half axes; of a cone (first radius, second radius, length): the convex
            hull of two spheres, also called a tapered capsule. No sphere of a cone contains the other.
    """

    kind: Index
    centre: Array
    frame: Array
    size: Array

    def moved(self, rotation: Array, translation: Array) -> Shapes:
        """The shapes after ``p -> rotation @ p + translation``."""
        return Shapes(self.kind, self.centre @ rotation.T + translation, self.frame @ rotation.T, self.size)

    def far_end(self) -> Array:
        """(S, 3) centre of a cone's second sphere; the centre of any other shape."""
        reach = np.where(self.kind == CONE, self.size[:, 2], 0.0)
        return self.centre + self.frame[:, 1] * reach[:, None]

    def extent(self) -> tuple[Array, Array]:
        """Lowest and highest coordinates (3,) of the box around all shapes, along the axes of the outer frame."""
        ellipsoid = np.sqrt(np.sum((self.frame * self.size[:, :, None]) ** 2, axis=1))
        box = np.sum(np.abs(self.frame * self.size[:, :, None]), axis=1)
        cone = (self.kind == CONE)[:, None]
        half = np.where(cone, self.size[:, :1], np.where((self.kind == BOX)[:, None], box, ellipsoid))
        half_end = np.where(cone, self.size[:, 1:2], half)
        end = self.far_end()
        low = np.minimum(self.centre - half, end - half_end).min(axis=0)
        return low, np.maximum(self.centre + half, end + half_end).max(axis=0)


def cones(start: Array, end: Array, radii: Array) -> Shapes:
    """Tapered capsules around the segments ``start`` to ``end`` (n, 3), with ``radii`` (n, 2) at either end."""
    axis = end - start
    length = np.sqrt(np.sum(axis * axis, axis=1))
    axis = axis / length[:, None]
    side = _cross(axis, np.eye(3)[np.argmin(np.abs(axis), axis=1)])
    side /= np.sqrt(np.sum(side * side, axis=1))[:, None]
    frame = np.stack((side, axis, _cross(side, axis)), axis=1)
    return Shapes(np.full(len(axis), CONE), start, frame, np.column_stack((radii, length)))


def _cross(a: Array, b: Array) -> Array:
    """Cross products (n, 3); `np.cross` takes four times as long for a few vectors."""
    return a[:, (1, 2, 0)] * b[:, (2, 0, 1)] - a[:, (2, 0, 1)] * b[:, (1, 2, 0)]


def solids(kind: int, centre: Array, frame: Array, half_axes: Array) -> Shapes:
    """Ellipsoids or boxes: ``centre`` (n, 3), ``frame`` (n, 3, 3) with the axes as rows, ``half_axes`` (n, 3)."""
    return Shapes(np.full(len(centre), kind), centre, frame, half_axes)


def join(groups: Sequence[Shapes]) -> Shapes:
    """All shapes of several groups, in order."""
    return Shapes(*(np.concatenate(parts) for parts in zip(*groups, strict=True)))


def local_points(shapes: Shapes, index: Index, points: Array) -> Array:
    """Points (n, 3) in the frames of the shapes ``index`` (n,)."""
    return np.sum(shapes.frame[index] * (points - shapes.centre[index])[:, None, :], axis=2)


def normals(shapes: Shapes, index: Index, local: Array) -> Array:
    """Outward unit normals (n, 3), in the outer frame, of surface points given in their shapes' frames."""
    kind, size = shapes.kind[index], shapes.size[index]
    result = local / size**2  # of an ellipsoid
    cone = np.flatnonzero(kind == CONE)
    if len(cone):
        first, second, length = size[cone].T
        sine = (first - second) / length
        away = np.hypot(local[cone, 0], local[cone, 2])
        foot = np.clip(local[cone, 1] - away * sine / np.sqrt(1 - sine**2), 0, length)  # of the normal, on the axis
        result[cone] = local[cone]
        result[cone, 1] -= foot
    box = np.flatnonzero(kind == BOX)
    if len(box):
        face = np.argmax(np.abs(local[box]) / size[box], axis=1)
        result[box] = 0
        result[box, face] = np.sign(local[box, face])
    result /= np.sqrt(np.sum(result * result, axis=1))[:, None]
    return np.sum(shapes.frame[index] * result[:, :, None], axis=1)
