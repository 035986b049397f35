"""Analytic ray-casting of tapered capsules, ellipsoids and boxes in NumPy.

The camera sits at the origin and looks along +z: x right, y down, z forward, metres. The ray of image point (x, y) is
``t · (u, v, 1)`` with slopes ``u = (x - c) / focal`` and ``v = (y - c) / focal``, so that t *is* the depth z.

All (shape, ray) pairs of a scene are tested at once: a shape meets only the rays inside its exactly projected bounding
rectangle, and the pairs of all shapes of a kind lie behind each other in one flat array.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rpgmt.synthetic.shapes import BOX, CONE, ELLIPSOID, Array, Index, Shapes


class Camera(NamedTuple):
    """A square pin-hole camera. Pixel centres are at integers, the optical axis meets the image in its middle.

    Args:
        size: width and height in pixels.
        focal: focal length in pixels.
    """

    size: int
    focal: float

    @property
    def centre(self) -> float:
        return (self.size - 1) / 2

    def project(self, points: Array) -> Array:
        """Image points (…, 2) of the camera-frame points (…, 3)."""
        return points[..., :2] / points[..., 2:] * self.focal + self.centre

    def slopes(self, image_points: Array) -> Array:
        """Slopes (…, 2) of the rays through the image points (…, 2)."""
        return (image_points - self.centre) / self.focal

    def pixels(self) -> Array:
        """Image points (size², 2) of all pixels, row by row."""
        y, x = np.divmod(np.arange(self.size**2), self.size)
        return np.stack((x, y), axis=1).astype(np.float64)


def bounds(shapes: Shapes) -> Array:
    """Tight bounding rectangles (S, 4) in slopes: lowest u, lowest v, highest u, highest v.

    Every shape must lie wholly in front of the camera. The outline of an ellipsoid with dual quadric S - c·cᵀ is a
    conic whose extreme slopes are the roots of a quadratic (Hartley and Zisserman, Multiple View Geometry, 8.3); the
    hull of two spheres is bounded by theirs.
    """
    cone = (shapes.kind == CONE)[:, None]
    first = _outline(shapes.centre, shapes.frame, np.where(cone, shapes.size[:, :1], shapes.size))
    second = _outline(shapes.far_end(), shapes.frame, np.where(cone, shapes.size[:, 1:2], shapes.size))
    result = np.concatenate((np.minimum(first[:, :2], second[:, :2]), np.maximum(first[:, 2:], second[:, 2:])), axis=1)
    for box in np.flatnonzero(shapes.kind == BOX):
        corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * shapes.size[box]
        corners = corners @ shapes.frame[box] + shapes.centre[box]
        slopes = corners[:, :2] / corners[:, 2:]
        result[box] = np.concatenate((slopes.min(axis=0), slopes.max(axis=0)))
    return result


def _outline(centre: Array, frame: Array, half_axes: Array) -> Array:
    scaled = frame * half_axes[:, :, None]
    squares = np.sum(scaled * scaled, axis=1)  # diagonal of S
    mixed = np.sum(scaled[:, :, :2] * scaled[:, :, 2:], axis=1)  # S_xz, S_yz
    z = centre[:, 2:]
    a = z * z - squares[:, 2:]
    b = centre[:, :2] * z - mixed
    c = centre[:, :2] ** 2 - squares[:, :2]
    root = np.sqrt(np.maximum(b * b - a * c, 0))
    return np.concatenate((b - root, b + root), axis=1) / np.tile(a, 4)


def cast(shapes: Shapes, camera: Camera, image_points: Array) -> tuple[Array, Index]:
    """First shape that each ray meets.

    The rays are those of all pixels, row by row, followed by those of ``image_points`` (K, 2).

    Returns:
        depth (size² + K,): z of the first hit, infinite where nothing is hit.
        shape (size² + K,): index of the shape, -1 where nothing is hit.
    """
    slopes = camera.slopes(np.concatenate((camera.pixels(), image_points)))
    u, v = slopes[:, 0], slopes[:, 1]
    rectangle = bounds(shapes)
    depth = np.full(len(slopes), np.inf)
    hits: list[tuple[Index, Index, Array]] = []
    for kind, intersect in ((CONE, _cast_cones), (ELLIPSOID, _cast_ellipsoids), (BOX, _cast_boxes)):
        chosen = np.flatnonzero(shapes.kind == kind)
        if not len(chosen):
            continue
        counts, rays = _pairs(rectangle[chosen], camera, slopes[camera.size**2 :])
        some = Shapes(shapes.kind[chosen], shapes.centre[chosen], shapes.frame[chosen], shapes.size[chosen])
        distance = intersect(some, counts, u[rays], v[rays])
        hit = np.flatnonzero(np.isfinite(distance))
        rays, distance = rays[hit], distance[hit]
        np.minimum.at(depth, rays, distance)
        hits.append((np.repeat(chosen, counts)[hit], rays, distance))
    first = np.full(len(slopes), -1, dtype=np.int64)
    for shape, rays, distance in hits:
        nearest = distance == depth[rays]
        first[rays[nearest]] = shape[nearest]
    return depth, first


def _pairs(rectangle: Array, camera: Camera, extra: Array) -> tuple[Index, Index]:
    """How many rays each rectangle may meet (n,), and those rays' indices, rectangle by rectangle."""
    size = camera.size
    pixels = rectangle * camera.focal + camera.centre
    low = np.clip(np.ceil(pixels[:, :2] - 1e-9), 0, size).astype(np.int64)
    high = np.clip(np.floor(pixels[:, 2:] + 1e-9), -1, size - 1).astype(np.int64)
    width, height = np.maximum(high - low + 1, 0).T
    counts = width * height
    inside = (extra[None, :, 0] >= rectangle[:, None, 0]) & (extra[None, :, 0] <= rectangle[:, None, 2])
    inside &= (extra[None, :, 1] >= rectangle[:, None, 1]) & (extra[None, :, 1] <= rectangle[:, None, 3])
    extra_counts = inside.sum(axis=1)
    # Each rectangle's pixels are `counts` consecutive places, followed by its extra rays.
    both = counts + extra_counts
    place = np.arange(both.sum()) - np.repeat(np.cumsum(both) - both, both)
    row, column = np.divmod(place, np.repeat(np.maximum(width, 1), both))
    rays = (row * size + column) + np.repeat(low[:, 1] * size + low[:, 0], both)
    rays[place >= np.repeat(counts, both)] = np.nonzero(inside)[1] + size * size
    return both, rays


def _quadric(matrix: Array, vector: Array, constant: Array) -> Array:
    """Coefficients (10, n) of ``t² dᵀMd + 2t dᵀb + c`` for rays ``d = (u, v, 1)``."""
    m = matrix
    return np.stack((m[:, 0, 0], m[:, 1, 1], m[:, 2, 2], 2 * m[:, 0, 1], 2 * m[:, 0, 2], 2 * m[:, 1, 2], *vector.T, constant))


def _terms(quadric: Array, counts: Index, u: Array, v: Array) -> tuple[Array, Array, Array, Array]:
    """a, b, c and the square root of the discriminant (NaN without a hit) of every pair's quadratic."""
    q = np.repeat(quadric, counts, axis=1)
    a = (q[0] * u + q[4] + q[3] * v) * u + (q[1] * v + q[5]) * v + q[2]
    b = q[6] * u + q[7] * v + q[8]
    c = q[9]
    discriminant = b * b - a * c
    return a, b, c, np.sqrt(discriminant, out=np.full_like(discriminant, np.nan), where=discriminant >= 0)


def _cast_ellipsoids(shapes: Shapes, counts: Index, u: Array, v: Array) -> Array:
    scaled = shapes.frame / shapes.size[:, :, None]
    matrix = np.matmul(scaled.transpose(0, 2, 1), scaled)
    return _near(matrix, shapes.centre, 1.0, counts, u, v)


def _near(matrix: Array, centre: Array, level: Array | float, counts: Index, u: Array, v: Array) -> Array:
    """First root of ``(p - centre)ᵀ M (p - centre) = level``; the camera is outside, so b < 0 < c there."""
    vector = -np.sum(matrix * centre[:, None, :], axis=2)
    constant = -np.sum(vector * centre, axis=1) - level
    _, b, c, root = _terms(_quadric(matrix, vector, constant), counts, u, v)
    return _missed(c / (root - b))


def _missed(distance: Array) -> Array:
    return np.where(np.isnan(distance), np.inf, distance)


def _cast_cones(shapes: Shapes, counts: Index, u: Array, v: Array) -> Array:
    """The first of: entry into either end sphere, and the lateral cone between the circles where it touches them.

    At height y along the axis and distance q from it, the lateral surface is ``q cos α = r₁ - y sin α`` with
    ``sin α = (r₁ - r₂) / length``; it touches the spheres at ``y = r₁ sin α`` and ``length + r₂ sin α``.
    All candidates lie on or in the convex hull and its entry is one of them, so the nearest is the entry.
    """
    first, second, length = shapes.size.T
    unit = np.broadcast_to(np.eye(3), (len(first), 3, 3))
    distance = np.minimum(
        _near(unit, shapes.centre, first**2, counts, u, v), _near(unit, shapes.far_end(), second**2, counts, u, v)
    )
    axis, start = shapes.frame[:, 1], shapes.centre
    sine = (first - second) / length
    cosine2 = 1 - sine**2
    height = -np.sum(start * axis, axis=1)  # of the camera, along the axis
    matrix = cosine2[:, None, None] * unit - axis[:, :, None] * axis[:, None, :]
    vector = -cosine2[:, None] * start + (first * sine - height)[:, None] * axis
    constant = cosine2 * np.sum(start * start, axis=1) - height**2 + 2 * first * height * sine - first**2
    a, b, c, root = _terms(_quadric(matrix, vector, constant), counts, u, v)
    along = np.repeat(np.stack((*axis.T, height, first * sine, length + second * sine)), counts, axis=1)
    climb = along[0] * u + along[1] * v + along[2]
    q = -b - np.copysign(root, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        for t in (q / a, c / q):
            y = along[3] + t * climb
            valid = (y >= along[4]) & (y <= along[5]) & (t > 0)
            distance = np.where(valid & (t < distance), t, distance)
    return distance


def _cast_boxes(shapes: Shapes, counts: Index, u: Array, v: Array) -> Array:
    enter, leave = np.full(len(u), -np.inf), np.full(len(u), np.inf)
    for i in range(3):
        axis = shapes.frame[:, i]
        offset = np.sum(axis * shapes.centre, axis=1)
        x, y, z, middle, half = np.repeat(np.stack((*axis.T, offset, shapes.size[:, i])), counts, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / (x * u + y * v + z)
            one, two = (middle - half) * inverse, (middle + half) * inverse
        enter, leave = np.fmax(enter, np.fmin(one, two)), np.fmin(leave, np.fmax(one, two))
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)
