from __future__ import annotations

import numpy as np
import pytest
from helpers.raycast_twin import depth_inside, walk

from rpgmt.synthetic.body import rotation
from rpgmt.synthetic.raycast import Camera, bounds, cast
from rpgmt.synthetic.shapes import BOX, CONE, ELLIPSOID, Shapes, cones, join, local_points, normals, solids

CAMERA = Camera(size=24, focal=30.0)


def some_shapes(seed: int, count: int = 3) -> Shapes:
    """Of each kind so many, in front of the camera, in any orientation."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform((-0.9, -0.9, 2.5), (0.9, 0.9, 4), (3 * count, 3))
    frames = [rotation(0, a) @ rotation(1, b) @ rotation(2, c) for a, b, c in rng.uniform(0, 360, (3 * count, 3))]
    frame = np.array(frames)
    half = rng.uniform(0.1, 0.6, (3 * count, 3))
    radii = rng.uniform(0.05, 0.3, (count, 2))
    step = rng.standard_normal((count, 3))
    step *= rng.uniform(0.35, 1.0, (count, 1)) / np.linalg.norm(step, axis=1, keepdims=True)
    return join(
        [
            cones(centre[:count], centre[:count] + step, radii),
            solids(ELLIPSOID, centre[count : 2 * count], frame[count : 2 * count], half[count : 2 * count]),
            solids(BOX, centre[2 * count :], frame[2 * count :], half[2 * count :]),
        ]
    )


def one(shapes: Shapes, i: int) -> Shapes:
    return Shapes(*(field[i : i + 1] for field in shapes))


@pytest.mark.parametrize("seed", range(3))
def test_depth_is_where_a_walk_along_the_ray_first_gets_inside(seed: int) -> None:
    shapes = some_shapes(seed)
    steps = np.arange(1.0, 6.0, 0.005)
    rays = np.random.default_rng(seed).uniform(-0.35, 0.35, (40, 2))
    hits = 0
    for i in range(len(shapes.kind)):
        depth, first = cast(one(shapes, i), CAMERA, rays * CAMERA.focal + CAMERA.centre)
        for ray, t, shape in zip(rays, depth[CAMERA.size**2 :], first[CAMERA.size**2 :], strict=True):
            walked = walk(shapes, i, ray, steps)
            if np.isfinite(walked):  # the walk may miss a grazed shape, never find one that is not there
                assert shape == 0
                assert t == pytest.approx(walked - 0.0025, abs=0.0035)
            if shape == 0:
                hits += 1
                point = np.array([[ray[0] * t, ray[1] * t, t]])
                assert abs(depth_inside(*(field[i] for field in shapes), point)[0]) < 1e-6
    assert hits > 20


@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_shape_of_many_wins_and_pixels_are_rays_too(seed: int) -> None:
    shapes = some_shapes(seed)
    pixels = CAMERA.pixels()
    depth, first = cast(shapes, CAMERA, pixels)
    alone = np.array([cast(one(shapes, i), CAMERA, pixels)[0] for i in range(len(shapes.kind))])
    np.testing.assert_array_equal(depth, alone.min(axis=0))
    np.testing.assert_array_equal(first, np.where(np.isfinite(depth), alone.argmin(axis=0), -1))
    half = CAMERA.size**2
    np.testing.assert_array_equal(depth[:half], depth[half:])  # a pixel's ray is that of the point at its centre
    assert 0.1 < np.isfinite(depth).mean() < 0.95


def test_a_ball_on_the_axis_by_hand() -> None:
    ball = solids(ELLIPSOID, np.array([[0, 0, 5.0]]), np.eye(3)[None], np.full((1, 3), 2.0))
    capsule = cones(np.array([[-1.0, 0, 5]]), np.array([[1.0, 0, 5]]), np.array([[0.5, 0.5]]))
    box = solids(BOX, np.array([[0, 0, 5.0]]), np.eye(3)[None], np.array([[1.0, 2, 3]]))
    middle = np.full((1, 2), CAMERA.centre)
    for shape, expected in ((ball, 3.0), (capsule, 4.5), (box, 2.0)):
        assert cast(shape, CAMERA, middle)[0][-1] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(bounds(ball)[0], np.array([-1, -1, 1, 1]) * 2 / np.sqrt(21), rtol=1e-12)
    np.testing.assert_allclose(bounds(box)[0], [-0.5, -1, 0.5, 1])


@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold_every_hit_and_are_tight(seed: int) -> None:
    shapes = some_shapes(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 500)] * 2), axis=-1).reshape(-1, 2)
    for i in range(len(shapes.kind)):
        box = bounds(one(shapes, i))[0]
        wide = (box[:2] + box[2:]) / 2 + grid * (box[2:] - box[:2]) * 0.6  # a fifth larger than the bounds
        points = np.column_stack((wide, np.ones(len(wide)))) * cast_wide(one(shapes, i), wide)[:, None]
        slopes = points[np.isfinite(points[:, 2])]
        slopes = slopes[:, :2] / slopes[:, 2:]
        low, high = slopes.min(axis=0), slopes.max(axis=0)
        assert (low >= box[:2] - 1e-9).all()
        assert (high <= box[2:] + 1e-9).all()
        assert np.abs(np.concatenate((low, high)) - box).max() < 0.02 * np.abs(box[2:] - box[:2]).max()


def cast_wide(shape: Shapes, rays: np.ndarray) -> np.ndarray:
    return cast(shape, CAMERA, rays * CAMERA.focal + CAMERA.centre)[0][CAMERA.size**2 :]


@pytest.mark.parametrize("seed", range(3))
def test_normals_are_square_to_the_surface_and_face_the_camera(seed: int) -> None:
    shapes = some_shapes(seed)
    rays = np.random.default_rng(seed).uniform(-0.35, 0.35, (300, 2))
    tiny = 1e-5
    places = [rays + shift for shift in ((0, 0), (tiny, 0), (0, tiny))]
    depth, first = cast(shapes, CAMERA, np.concatenate(places) * CAMERA.focal + CAMERA.centre)
    depth, first = depth[CAMERA.size**2 :].reshape(3, -1), first[CAMERA.size**2 :].reshape(3, -1)
    same = (first[0] >= 0) & (first[0] == first[1]) & (first[0] == first[2])
    points = np.stack([np.column_stack((p, np.ones(300))) * t[:, None] for p, t in zip(places, depth, strict=True)])
    points, index = points[:, same], first[0][same]
    normal = normals(shapes, index, local_points(shapes, index, points[0]))
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, rtol=1e-12)
    assert (np.sum(normal * points[0], axis=1) < 0).all()
    expected = np.cross(points[2] - points[0], points[1] - points[0])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    steep = np.abs(np.sum(normal * points[0], axis=1)) / np.linalg.norm(points[0], axis=1) < 0.1
    edges = (np.sum(normal * expected, axis=1) < 0.9999) & ~steep  # finite differences across a box's edge
    assert same.sum() > 80
    assert edges.sum() <= 1


def test_moving_shapes_moves_their_points() -> None:
    shapes = some_shapes(0)
    turn, shift = rotation(1, 30) @ rotation(0, -70), np.array([0.3, -0.2, 0.5])
    moved = shapes.moved(turn, shift)
    points = np.random.default_rng(1).uniform((-1, -1, 2), (1, 1, 4), (40, 3))
    for i in range(len(shapes.kind)):
        before = depth_inside(*(field[i] for field in shapes), points)
        after = depth_inside(*(field[i] for field in moved), points @ turn.T + shift)
        np.testing.assert_allclose(before, after, atol=1e-12)


@pytest.mark.parametrize("kind", [CONE, ELLIPSOID, BOX])
def test_extent_is_the_box_around_the_shapes(kind: int) -> None:
    shapes = some_shapes(4)
    chosen = Shapes(*(field[shapes.kind == kind][:1] for field in shapes))
    low, high = chosen.extent()
    points = np.random.default_rng(0).uniform(low - 0.1, high + 0.1, (10_000, 3))
    inside = points[depth_inside(*(field[0] for field in chosen), points, balls=101) > 0]
    assert (inside >= low).all()
    assert (inside <= high).all()
    assert np.concatenate((inside.min(axis=0) - low, high - inside.max(axis=0))).max() < 0.12
