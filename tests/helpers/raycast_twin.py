"""Slow, obvious twins of the ray-caster: what is inside a shape, and walking along a ray until it is."""

from __future__ import annotations

import numpy as np

from rpgmt.synthetic.shapes import BOX, CONE


def depth_inside(kind, centre, frame, size, points, balls=1201):
    """Positive inside the shape, negative outside, 0 on its surface; (n,) for points (n, 3). Of a cone, metres."""
    local = (points - centre) @ frame.T
    if kind == CONE:  # the union of all balls whose centre and radius lie between those of its two ends
        share = np.linspace(0, 1, balls)
        middles = np.outer(share, [0, size[2], 0])
        radii = size[0] + (size[1] - size[0]) * share
        return (radii - np.linalg.norm(local[:, None] - middles[None], axis=2)).max(axis=1)
    if kind == BOX:
        return (size - np.abs(local)).min(axis=1)
    return 1 - np.linalg.norm(local / size, axis=1)


def walk(shapes, i, ray, steps):
    """The first of the depths `steps` at which the ray (u, v) is inside shape `i`; infinite if none."""
    points = np.column_stack((steps * ray[0], steps * ray[1], steps))
    end = shapes.centre[i] + (shapes.frame[i, 1] * shapes.size[i, 2] if shapes.kind[i] == CONE else 0)
    reach = np.linalg.norm(end - shapes.centre[i]) + shapes.size[i].max() * 2
    near = np.linalg.norm(points - shapes.centre[i], axis=1) < reach
    inside = np.zeros(len(steps), dtype=bool)
    inside[near] = depth_inside(*(field[i] for field in shapes), points[near], balls=101) > 0
    return steps[np.argmax(inside)] if inside.any() else np.inf
