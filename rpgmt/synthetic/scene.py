"""Sampling of synthetic scenes: who stands where, in front of what, seen by which camera."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rpgmt.synthetic.appearance import Paint, join_paints, sample_outfit, sample_paint
from rpgmt.synthetic.body import MATERIALS, Body, pose_body, rotation
from rpgmt.synthetic.light import Light, sample_light
from rpgmt.synthetic.poses import pick, sample_build, sample_pose
from rpgmt.synthetic.shapes import BOX, ELLIPSOID, Array, Index, Shapes, cones, join, solids
from rpgmt.synthetic.textures import Texture, sample_texture


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A textured plane ``normal · p = offset`` in the camera frame.

    Args:
        normal: (3,) unit, towards the camera.
        offset: metres; negative, as the camera is on the normal's side.
        axes: (2, 3) and
        origin: (2,) map a point p to its place in the texture: ``axes @ p + origin``, metres.
    """

    normal: Array
    offset: float
    axes: Array
    origin: Array
    texture: Texture


@dataclass(frozen=True, kw_only=True)
class World:
    """A scene in the camera frame (x right, y down, z forward, metres), before any image is made.

    Args:
        focal: focal length in widths of the image.
        people: their bodies, nobody twice.
        shapes: the S shapes of people and objects.
        owner: (S,) 0 for objects, i for shapes of ``people[i - 1]``.
        part: (S,) index into PARTS.
        paint: table of paints, and
        paint_row: (S,) which of them a shape has.
        planes: ground and wall; every ray in view meets one of them.
        feet: (P, 3) the points of the ground below the people.
        light: of the scene.
    """

    focal: float
    people: list[Body]
    shapes: Shapes
    owner: Index
    part: Index
    paint: Paint
    paint_row: Index
    planes: tuple[Plane, Plane]
    feet: Array
    light: Light


class _Figure(NamedTuple):
    """Somebody in the level frame (camera at the origin, y along gravity), moved so that only x and z are to be chosen.

    `low` and `high` (3,) are the corners of the box around the body; `seat` is what it sits on.
    """

    body: Body
    low: Array
    high: Array
    seat: list[Shapes]


def sample_world(rng: np.random.Generator) -> World:
    """A random scene: one to three people, zero to three objects before and behind them, ground and wall."""
    count = 1 + pick(rng, (0.72, 0.20, 0.08))
    eye_height = rng.uniform(0.4, 2.1)
    figures = [_sample_figure(rng, eye_height) for _ in range(count)]
    tallest = float(max(np.max((f.high - f.low) * (0.85, 1, 0)) for f in figures))
    share = rng.uniform(0.62, 0.95) - 0.07 * (count - 1)  # of the image's height
    shift = 0.08
    if rng.random() < 0.08:  # a close view that cuts people off
        share, shift = share * rng.uniform(1.1, 1.6), 0.2
    distance = max(rng.uniform(1.0, 1.9) * tallest / share, 2.2)
    focal = distance * share / tallest
    pitch = math.degrees(math.atan2(eye_height - tallest / 2, distance)) + math.degrees(rng.uniform(-shift, shift)) / focal
    camera = rotation(2, max(-8.0, min(8.0, rng.normal(0, 3)))) @ rotation(0, pitch)
    width = distance / focal  # metres in view
    places = _places(rng, count, width, distance)
    places[:, 0] += rng.uniform(-shift, shift) * width

    back = max(float(f.high[2] + place[2]) for f, place in zip(figures, places, strict=True))
    objects = [seat.moved(np.eye(3), place) for f, place in zip(figures, places, strict=True) for seat in f.seat]
    for _ in range(pick(rng, (0.6, 0.3, 0.1))):
        hidden = rng.integers(count)
        objects.append(_occluder(rng, figures[hidden].body.keypoints + places[hidden]))
    objects += [_clutter(rng, eye_height, back, width) for _ in range(pick(rng, (0.3, 0.3, 0.2, 0.2)))]
    people = [f.body.moved(camera, camera @ place) for f, place in zip(figures, places, strict=True)]
    nobody = np.zeros(len(objects), dtype=np.int64)
    paint_rows = [i * len(MATERIALS) + body.material for i, body in enumerate(people)]
    return World(
        focal=focal,
        people=people,
        shapes=join([*(body.shapes for body in people), *(thing.moved(camera, np.zeros(3)) for thing in objects)]),
        owner=np.concatenate([*(np.full(len(body.part), i) for i, body in enumerate(people, 1)), nobody]),
        part=np.concatenate([*(body.part for body in people), nobody]),
        paint=join_paints([*(sample_outfit(rng) for _ in people), *(sample_paint(rng) for _ in objects)]),
        paint_row=np.concatenate([*paint_rows, np.arange(len(objects)) + count * len(MATERIALS)]),
        planes=_planes(rng, camera, eye_height, back, width),
        feet=(places + np.array([0, eye_height, 0])) @ camera.T,
        light=sample_light(rng, camera),
    )


def _sample_figure(rng: np.random.Generator, ground: float) -> _Figure:
    """Somebody whose lowest point is on the ground (or, jumping, a little above), with a seat if one is needed."""
    pose = sample_pose(rng)
    turn = rotation(1, rng.normal(0, 35) if rng.random() < 0.88 else rng.uniform(-180, 180))
    body = pose_body(sample_build(rng), pose).moved(turn, np.zeros(3))
    low, high = body.shapes.extent()
    lift = rng.uniform(0, 0.3) if rng.random() < 0.06 else 0.0
    drop = np.array([0, ground - lift - high[1], 0])
    body = body.moved(np.eye(3), drop)
    hips, knees = (pose[f"left_{name}"] + pose[f"right_{name}"] for name in ("hip_flexion", "knee_flexion"))
    seat = []
    if hips > 130 and knees < 200:
        top = float(body.keypoints[11:13, 1].mean()) + rng.uniform(0.06, 0.085)
        half = (rng.uniform(0.15, 0.3), max((ground - top) / 2, 0.02), rng.uniform(0.12, 0.2))
        centre = turn @ (0, 0, 0.06) + (0, (ground + top) / 2, 0)
        seat.append(solids(BOX, centre[None], turn.T[None], np.array([half])))
    return _Figure(body, low + drop, high + drop, seat)


def _places(rng: np.random.Generator, count: int, width: float, distance: float) -> Array:
    """Where the people are, level frame (count, 3), y = 0; `width` metres are in view at that distance."""
    x = (np.arange(count) - (count - 1) / 2) * min(rng.uniform(0.35, 0.8), 0.65 * width / count)
    x = rng.permutation(x) + rng.uniform(-0.08, 0.08, count) * (count > 1)
    z = distance + rng.uniform(-0.5, 0.5, count) * (count > 1)
    return np.column_stack((x, np.zeros(count), z))


def _orientation(rng: np.random.Generator) -> Array:
    """Upright and turned, or any orientation."""
    turn = rotation(1, rng.uniform(0, 180))
    return turn if rng.random() < 0.6 else rotation(0, rng.uniform(0, 180)) @ rotation(2, rng.uniform(0, 180)) @ turn


def _object(rng: np.random.Generator, centre: Array, radius: float) -> Shapes:
    """A box, an ellipsoid or a rod, about as large as a ball of that radius (rods are longer)."""
    kind = rng.integers(3)
    frame = _orientation(rng)
    if kind == 2:
        half = frame[1] * radius * rng.uniform(1.0, 3.0)
        radii = radius * rng.uniform(0.2, 0.5) * rng.uniform(0.7, 1.0, 2)
        return cones((centre - half)[None], (centre + half)[None], radii[None])
    return solids((BOX, ELLIPSOID)[kind], centre[None], frame[None], radius * rng.uniform(0.5, 1.1, (1, 3)))


def _occluder(rng: np.random.Generator, keypoints: Array) -> Shapes:
    """An object between the camera and somebody, near one of the key points (17, 3) in the image."""
    target = keypoints[rng.integers(5, 17)] + rng.normal(0, 0.12, 3)
    nearer = rng.uniform(0.55, 0.85)
    return _object(rng, target * nearer, rng.uniform(0.06, 0.2) * nearer)


def _clutter(rng: np.random.Generator, ground: float, back: float, width: float) -> Shapes:
    """An object behind the people, most often on the ground."""
    radius = rng.uniform(0.12, 0.55)
    y = ground - radius if rng.random() < 0.7 else ground - rng.uniform(0.3, 2.2)
    return _object(rng, np.array([rng.uniform(-0.6, 0.6) * width, y, back + radius * 3 + rng.uniform(0, 1.5)]), radius)


def _planes(rng: np.random.Generator, camera: Array, ground: float, back: float, width: float) -> tuple[Plane, Plane]:
    turn = math.radians(rng.uniform(-22, 22))
    distance = back + 0.2 + 0.8 * width * abs(math.tan(turn)) + math.exp(rng.uniform(-1.5, 2.2))
    down = np.array([0.0, 1.0, 0.0])
    into = np.array([-math.sin(turn), 0.0, math.cos(turn)])
    along = np.array([into[2], 0.0, -into[0]])
    floor = Plane(
        normal=camera @ -down,
        offset=-ground,
        axes=np.stack((along, into)) @ camera.T,
        origin=rng.uniform(-5, 5, 2),
        texture=sample_texture(rng, 0),
    )
    wall = Plane(
        normal=camera @ -into,
        offset=-distance * into[2],
        axes=np.stack((along, down)) @ camera.T,
        origin=np.array([0, -ground]),
        texture=sample_texture(rng, int(rng.integers(0, 7))),
    )
    return floor, wall
