"""From a sampled scene to its image and labels, all from one ray-cast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.random_numbers import generator
from rpgmt.synthetic.appearance import paint_shapes
from rpgmt.synthetic.colours import Colours
from rpgmt.synthetic.light import shade
from rpgmt.synthetic.raycast import Camera, cast
from rpgmt.synthetic.scene import World, sample_world
from rpgmt.synthetic.shapes import Array, Index, local_points, normals
from rpgmt.synthetic.textures import paint_plane

LEAST_PIXELS = 0.004
"""Of the image: people with fewer visible pixels keep mask and box, but their key points are not labelled (v = 0)."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An image of P people and its labels. Arrays are (size, size, …), indexed [y, x].

    Args:
        image: uint8 RGB.
        keypoints: float64 (P, 17, 3): x and y in pixels (rounded to 1/1000), and v. v = 2: the ray through the point
            first meets the person's own surface, close to the point's depth; v = 1: something is in front, be it the
            person; v = 0 and x = y = 0: outside the image, or hardly anything of the person is visible.
        boxes: int64 (P, 4) x, y, w, h: columns x … x + w - 1 and rows y … y + h - 1 tightly hold the person's mask.
        areas: int64 (P,) pixels of the mask.
        people: uint8, 0 or 1 + the index of the visible person.
        parts: uint8, index into ``rpgmt.synthetic.body.PARTS``; 0 where no person is visible.
        depth: float32, z along the optical axis in metres; finite everywhere.
        normals: float32 (size, size, 3), unit, in the camera frame (x right, y down, z forward), towards the camera:
            its scalar product with the pixel's ray is negative.
        camera: the pin-hole camera; a pixel's surface point is ``depth · (u, v, 1)`` with its slopes (u, v).
    """

    image: NDArray[np.uint8]
    keypoints: Array
    boxes: Index
    areas: Index
    people: NDArray[np.uint8]
    parts: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    camera: Camera


def render(seed: int, index: int, size: int = 96) -> Scene:
    """Scene number ``index`` of ``seed``: the same whichever scenes are made before or beside it.

    The size only sets the resolution; what is seen stays.

    Raises:
        ValueError: seed or index is negative, or size is below 16.
    """
    if seed < 0:
        raise ValueError(f"`seed` is {seed}: give 0 or more")
    if index < 0:
        raise ValueError(f"`index` is {index}: give 0 or more")
    if size < 16:
        raise ValueError(f"`size` is {size}: give at least 16 pixels")
    rng = generator(seed, index)
    world = sample_world(rng)
    camera = Camera(size, world.focal * size)
    points = np.concatenate([body.keypoints for body in world.people])
    image_points = camera.project(points)
    depth, first = cast(world.shapes, camera, image_points)
    pixels = size * size
    point_depth, point_shape = depth[pixels:], first[pixels:]
    depth, first = depth[:pixels], first[:pixels]

    slopes = camera.slopes(camera.pixels())
    colour, normal = np.empty((3, pixels), dtype=np.float32), np.empty((pixels, 3))
    brightness = np.ones(pixels, dtype=np.float32)
    _fill_planes(world, slopes, depth, first, colour, normal, brightness)
    covered = np.flatnonzero(first >= 0)
    shape, distance = first[covered], depth[covered, None]
    local = local_points(world.shapes, shape, np.concatenate((slopes[covered] * distance, distance), axis=1))
    normal[covered] = normals(world.shapes, shape, local)
    colour[:, covered] = paint_shapes(world.paint, world.paint_row, world.shapes, shape, local).T
    normal32 = normal.astype(np.float32)
    image = shade(world.light, colour, normal32.T, brightness, size, rng)

    owner = np.append(world.owner, 0)[first]  # shape -1, nothing, belongs to nobody
    visible = point_shape >= 0
    own = np.repeat(np.arange(1, len(world.people) + 1), 17)
    reach = np.concatenate([body.reach for body in world.people])
    visible &= (np.append(world.owner, 0)[point_shape] == own) & (points[:, 2] - point_depth <= reach)
    keypoints, boxes, areas, people = _label(owner.reshape(size, size), image_points, visible)
    return Scene(
        image=image,
        keypoints=keypoints,
        boxes=boxes,
        areas=areas,
        people=people,
        parts=np.append(world.part, 0)[first].reshape(size, size).astype(np.uint8),
        depth=depth.reshape(size, size).astype(np.float32),
        normals=normal32.reshape(size, size, 3),
        camera=camera,
    )


def _fill_planes(
    world: World, slopes: Array, depth: Array, first: Index, colour: Colours, normal: Array, brightness: Colours
) -> None:
    """Depth, colour, normal and shadow, in place, of the rays that meet ground or wall before any shape."""
    u, v = slopes.T
    distances = []
    for plane in world.planes:
        x, y, z = plane.normal.tolist()
        slope = x * u + y * v + z
        distances.append(np.divide(plane.offset, slope, out=np.full_like(u, np.inf), where=slope < 0))
    ground = distances[0] < distances[1]
    nearest = np.where(ground, *distances)
    bare = nearest < depth  # objects may stick in the ground or the wall
    first[bare] = -1
    depth[bare] = nearest[bare]
    for plane, chosen in zip(world.planes, (ground, ~ground), strict=True):
        index = np.flatnonzero(bare & chosen)
        t = nearest[index]
        points = np.stack((u[index] * t, v[index] * t, t)).astype(np.float32)
        normal[index] = plane.normal
        colour[:, index] = paint_plane(
            plane.texture, plane.axes.astype(np.float32) @ points + plane.origin.astype(np.float32)[:, None]
        )
        if chosen is ground:
            for foot in world.feet.tolist():  # a soft spot on the ground instead of cast shadows
                x, y, z = (points[i] - foot[i] for i in range(3))
                brightness[index] *= 1 - 0.45 * np.exp((x * x + y * y + z * z) / np.float32(-0.12))


def _label(owner: Index, image_points: Array, visible: NDArray[np.bool_]) -> tuple[Array, Index, Index, NDArray[np.uint8]]:
    """Key points, boxes, areas and mask of the people of whom anything is visible, renumbered from 1."""
    size = len(owner)
    areas = np.bincount(owner.ravel(), minlength=len(visible) // 17 + 1)[1:]
    kept = np.flatnonzero(areas)
    places = np.round(image_points, 3).reshape(-1, 17, 2)[kept]
    inside = np.all((places >= -0.5) & (places < size - 0.5), axis=2)
    inside &= (areas[kept] >= LEAST_PIXELS * size * size)[:, None]
    flags = np.where(inside, 1 + visible.reshape(-1, 17)[kept], 0)
    keypoints = np.concatenate((np.where(inside[..., None], places, 0.0), flags[..., None]), axis=2)
    boxes = np.empty((len(kept), 4), dtype=np.int64)
    number = np.zeros(len(areas) + 1, dtype=np.uint8)
    for i, person in enumerate(kept):
        mask = owner == person + 1
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        boxes[i] = columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
        number[person + 1] = i + 1
    return keypoints, boxes, areas[kept], number[owner]
