from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from rpgmt.data.dense.label_maps import LabelMap, warp_maps
from rpgmt.data.random_numbers import generator
from rpgmt.data.transforms import crop_affine, invert, transform_points
from rpgmt.synthetic.body import PARTS, rotation
from rpgmt.synthetic.labels import SWAPS
from rpgmt.synthetic.raycast import Camera, cast
from rpgmt.synthetic.render import Scene, render
from rpgmt.synthetic.scene import Plane, World, sample_world
from rpgmt.synthetic.shapes import Array, Index, local_points, normals

KINDS = {
    "classes": LabelMap(kind="classes", classes=("sky", "grass", "dog")),
    "parts": LabelMap(kind="parts", classes=("none", "left_hand", "right_hand", "head"), swaps=((1, 2),)),
    "depth": LabelMap(kind="depth"),
    "inverse": LabelMap(kind="depth", inverse=True),
    "normals": LabelMap(kind="normals"),
}


def _maps(rng: np.random.Generator, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Random labels, some of them missing, of an image of (width, height)."""
    shape = size[::-1]
    vectors = rng.normal(size=(*shape, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors[rng.random(shape) < 0.1] = 0
    return {
        "classes": rng.integers(-1, 3, shape),
        "parts": rng.integers(-1, 4, shape).astype(np.int8),
        "depth": (rng.uniform(0, 5, shape) * (rng.random(shape) > 0.1)).astype(np.float32),
        "inverse": rng.uniform(0, 0.5, shape).astype(np.float32),
        "normals": vectors,
    }


def _slow(maps: dict[str, np.ndarray], box: Any, size: tuple[int, int], change: dict[str, Any]) -> dict[str, np.ndarray]:
    """Pixel by pixel, with the rules written for turn, mirror image and enlargement one by one."""
    to_image = np.linalg.inv(np.vstack([crop_affine(box, size, **change), [0, 0, 1]]))
    enlarged = change["scale"] * size[0] / (change["padding"] * max(box[2], box[3] * size[0] / size[1]))
    angle = math.radians(change["rotation"])
    result = {name: KINDS[name].missing(size[::-1]) for name in KINDS}
    for y in range(size[1]):
        for x in range(size[0]):
            column, row = np.round((to_image @ (x, y, 1))[:2]).astype(int)
            height, width = maps["depth"].shape
            if not (0 <= column < width and 0 <= row < height):
                continue
            values = {name: values[row, column] for name, values in maps.items()}
            result["classes"][y, x] = values["classes"]
            result["parts"][y, x] = {1: 2, 2: 1}.get(values["parts"], values["parts"]) if change["flip"] else values["parts"]
            result["depth"][y, x] = values["depth"] / enlarged
            result["inverse"][y, x] = values["inverse"] * enlarged
            nx, ny, nz = values["normals"]
            nx, ny = nx * math.cos(angle) - ny * math.sin(angle), nx * math.sin(angle) + ny * math.cos(angle)
            result["normals"][y, x] = -nx if change["flip"] else nx, ny, nz
    return result


@pytest.mark.parametrize("seed", range(6))
def test_as_pixel_by_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = _maps(rng, (23, 17))
    box = (*rng.uniform(-4, 14, 2), *rng.uniform(3, 16, 2))
    change = {
        "padding": 1.25,
        "flip": bool(seed % 2),
        "scale": rng.uniform(0.7, 1.5),
        "rotation": rng.uniform(-180, 180),
        "shift": tuple(rng.uniform(-0.3, 0.3, 2)),
    }
    size = (12, 16)
    found = warp_maps(maps, KINDS, invert(crop_affine(box, size, **change)), size)
    expected = _slow(maps, box, size, change)
    assert list(found) == list(KINDS)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)
    assert (expected["depth"] > 0).any()


def test_a_mirror_image_of_a_mirror_image_is_the_image() -> None:
    size = (10, 7)
    maps = _maps(np.random.default_rng(0), size)
    mirror = invert(crop_affine((0, 0, *size), size, padding=1, flip=True))
    once = warp_maps(maps, KINDS, mirror, size)
    twice = warp_maps(once, KINDS, mirror, size)
    for name, values in maps.items():
        assert (twice[name] == values).all()
        assert (once[name] != values).any()
    np.testing.assert_array_equal(once["classes"], maps["classes"][:, ::-1])
    np.testing.assert_array_equal(once["normals"], maps["normals"][:, ::-1] * np.array([-1, 1, 1], np.float32))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_a_marked_pixel_goes_where_a_point_goes(flip: bool, rotation: float, scale: int) -> None:
    """A pixel becomes a block of `scale`² pixels round the place to which points are sent."""
    size = (24, 24)
    affine = crop_affine((0, 0, *size), size, padding=1, flip=flip, rotation=rotation, scale=scale, shift=(2 / 24, -3 / 24))
    for x, y in [(11, 9), (13, 12), (15, 8)]:
        classes = np.zeros(size[::-1], np.uint8)
        classes[y, x] = 2
        found = warp_maps({"classes": classes}, KINDS, invert(affine), size)["classes"]
        rows, columns = np.nonzero(found == 2)
        assert len(rows) == scale**2
        centre = transform_points(affine, np.array([[x, y]], dtype=float))[0]
        np.testing.assert_allclose([columns.mean(), rows.mean()], centre, atol=1e-9)


def test_the_rules_by_hand() -> None:
    """A quarter turn clockwise and a mirror image of one pixel, enlarged twice."""
    maps = {
        "parts": np.array([[1]]),
        "depth": np.array([[3.0]]),
        "inverse": np.array([[0.25]]),
        "normals": np.array([[[0.6, 0.0, -0.8]]]),
    }
    table: list[tuple[dict[str, Any], int, tuple[float, ...]]] = [
        ({}, 1, (0.6, 0, -0.8)),
        ({"rotation": 90}, 1, (0, 0.6, -0.8)),  # what looked right looks down
        ({"rotation": 180}, 1, (-0.6, 0, -0.8)),
        ({"flip": True}, 2, (-0.6, 0, -0.8)),
        ({"flip": True, "rotation": 90}, 2, (0, 0.6, -0.8)),  # turned, then mirrored
    ]
    for change, part, normal in table:
        found = warp_maps(maps, KINDS, invert(crop_affine((0, 0, 1, 1), (2, 2), padding=1, **change)), (2, 2))
        assert (found["parts"] == part).all()
        assert (found["classes"] == -1).all()  # the image has none
        np.testing.assert_allclose(found["depth"], 1.5)
        np.testing.assert_allclose(found["inverse"], 0.5)
        np.testing.assert_allclose(found["normals"], np.broadcast_to(normal, (2, 2, 3)), atol=1e-7)


def test_what_is_missing_or_outside_has_no_label() -> None:
    missing = warp_maps({}, KINDS, np.array([[1.0, 0, 0], [0, 1, 0]]), (3, 2))
    size = (5, 4)
    outside = warp_maps(_maps(np.random.default_rng(0), size), KINDS, np.array([[1.0, 0, 5], [0, 1, 0]]), (3, 2))
    for found in (missing, outside):
        assert {name: (values.shape, values.dtype) for name, values in found.items()} == {
            "classes": ((2, 3), np.int16),
            "parts": ((2, 3), np.int16),
            "depth": ((2, 3), np.float32),
            "inverse": ((2, 3), np.float32),
            "normals": ((2, 3, 3), np.float32),
        }
        assert (found["classes"] == -1).all()
        assert (found["parts"] == -1).all()
        assert not any(found[name].any() for name in ("depth", "inverse", "normals"))


def test_the_labels_stay_as_they_are() -> None:
    size = (6, 6)
    maps = _maps(np.random.default_rng(1), size)
    before = {name: values.copy() for name, values in maps.items()}
    for values in maps.values():
        values.flags.writeable = False  # as those of a file mapped into memory
    warp_maps(maps, KINDS, invert(crop_affine((0, 0, *size), size, flip=True, rotation=30)), size)
    for name, values in maps.items():
        np.testing.assert_array_equal(values, before[name])


# The synthetic people, seen again: what a camera would see is computed anew, ray by ray, from the shapes.

SCENE_KINDS = {
    "parts": LabelMap(kind="parts", classes=PARTS, swaps=SWAPS),
    "depth": LabelMap(kind="depth"),
    "normals": LabelMap(kind="normals"),
}
RESOLUTION = 320


class Seen(NamedTuple):
    """What K rays meet: depth (K,), normal (K, 3), body part (K,) and the number of the surface (K,)."""

    depth: Array
    normal: Array
    part: Index
    surface: Index


def _look(world: World, size: int, points: Array, zoom: float = 1.0) -> Seen:
    """The rays of image points (K, 2) of an image of size², by a camera whose focal length is `zoom` times the scene's."""
    # A camera of one pixel, whose optical axis goes through (0, 0), casts no rays besides.
    camera = Camera(1, world.focal * size * zoom)
    points = points - (size - 1) / 2
    depth, surface = (found[1:] for found in cast(world.shapes, camera, points))
    rays = np.column_stack((camera.slopes(points), np.ones(len(points))))
    covered = np.flatnonzero(surface >= 0)
    normal = np.zeros((len(points), 3))
    local = local_points(world.shapes, surface[covered], rays[covered] * depth[covered, None])
    normal[covered] = normals(world.shapes, surface[covered], local)
    part = np.append(world.part, 0)[surface]
    for number, plane in enumerate(world.planes):
        slope = rays @ plane.normal
        distance = np.divide(plane.offset, slope, out=np.full(len(slope), np.inf), where=slope < 0)
        nearer = distance < depth
        depth[nearer], normal[nearer], part[nearer], surface[nearer] = distance[nearer], plane.normal, 0, -1 - number
    return Seen(depth, normal, part, surface)


def _moved(world: World, matrix: Array) -> World:
    """The world turned or mirrored about the optical axis."""

    def move(plane: Plane) -> Plane:
        return Plane(
            normal=matrix @ plane.normal, offset=plane.offset, axes=plane.axes, origin=plane.origin, texture=plane.texture
        )

    return World(
        **{
            **world.__dict__,
            "shapes": world.shapes.moved(matrix, np.zeros(3)),
            "planes": (move(world.planes[0]), move(world.planes[1])),
        }
    )


def _grid(size: tuple[int, int]) -> Array:
    y, x = np.divmod(np.arange(size[0] * size[1]), size[0])
    return np.stack((x, y), axis=1).astype(float)


def _compare(found: dict[str, np.ndarray], seen: list[Seen], depth_factor: float, turn: Array) -> float:
    """Labels of a crop against what its rays meet, (the rays themselves, then others near by).

    Where all of them meet one surface, labels may differ from the truth by no more than the truth differs near by, as they
    are those of the nearest pixel. Returns the share of pixels that were compared.
    """
    truth = seen[0]
    parts, depth, normal = found["parts"].ravel(), found["depth"].ravel(), found["normals"].reshape(-1, 3)
    smooth = (depth > 0) & np.all([near.surface == truth.surface for near in seen], axis=0)
    spread = np.max([np.abs(near.depth - truth.depth) for near in seen], axis=0) * depth_factor
    bend = np.max([np.abs(near.normal - truth.normal).max(axis=1) for near in seen], axis=0)
    right = parts == truth.part
    right &= np.abs(depth - truth.depth * depth_factor) <= spread + 1e-4 * depth
    # Turned about the optical axis, the components that bend are others, by a factor of √2 at most.
    right &= np.abs(normal - truth.normal @ turn.T).max(axis=1) <= 1.5 * bend + 1e-3
    assert right[smooth].mean() > 0.999  # the corner of a surface fits between the rays, one time in some thousand
    return float(smooth.mean())


def _scene_maps(scene: Scene) -> dict[str, np.ndarray]:
    return {"parts": scene.parts, "depth": scene.depth, "normals": scene.normals}


NEAR = np.array([(0, 0), *((x / 4, y / 4) for x in range(-3, 4) for y in range(-3, 4))])
"""Steps from a ray to itself and to others near by, so close that little fits between them, in pixels of the image."""


@pytest.mark.parametrize("index", range(6))
def test_crops_of_the_synthetic_people_are_seen_again(index: int) -> None:
    rng = np.random.default_rng(index)
    scene, world = render(3, index, RESOLUTION), sample_world(generator(3, index))
    change = {
        "flip": bool(index % 2),
        "scale": rng.uniform(0.75, 1.3),
        "rotation": rng.uniform(-40, 40),
        "shift": tuple(rng.uniform(-0.2, 0.2, 2)),
    }
    size = (48, 64)
    affine = crop_affine(scene.boxes[0], size, **change)
    to_image = invert(affine)
    found = warp_maps(_scene_maps(scene), SCENE_KINDS, to_image, size)
    if change["flip"]:  # the surfaces are those of the world that is not mirrored
        swap = np.arange(len(PARTS))
        for left, right in SWAPS:
            swap[[left, right]] = right, left
        found["parts"] = np.where(found["parts"] < 0, -1, swap[found["parts"]])
    points = transform_points(to_image, _grid(size))
    enlarged = math.sqrt(abs(np.linalg.det(affine[:, :2])))
    turn = np.eye(3)
    turn[:2, :2] = affine[:, :2] / enlarged
    compared = _compare(found, [_look(world, RESOLUTION, points + step) for step in NEAR], 1 / enlarged, turn)
    assert compared > 0.3
    assert (found["parts"] > 0).sum() > 100


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("degrees", [-90.0, 17.0, 140.0])
def test_a_turned_crop_is_the_view_of_a_turned_world(index: int, degrees: float) -> None:
    scene = render(4, index, RESOLUTION)
    world = _moved(sample_world(generator(4, index)), rotation(2, degrees))
    size = (60, 60)
    affine = crop_affine((0, 0, RESOLUTION, RESOLUTION), size, padding=1, rotation=degrees)
    found = warp_maps(_scene_maps(scene), SCENE_KINDS, invert(affine), size)
    # The camera's own pixels of the crop's size: no place is mapped back.
    step = NEAR * size[0] / RESOLUTION
    seen = [_look(world, size[0], _grid(size) + shift) for shift in step]
    assert _compare(found, seen, RESOLUTION / size[0], np.eye(3)) > 0.3


@pytest.mark.parametrize("index", range(3))
def test_a_mirrored_crop_is_the_view_of_a_mirrored_world(index: int) -> None:
    scene = render(5, index, RESOLUTION)
    world = _moved(sample_world(generator(5, index)), np.diag([-1.0, 1, 1]))
    names = [name.replace("left", "?").replace("right", "left").replace("?", "right") for name in PARTS]
    world = World(**{**world.__dict__, "part": np.array([PARTS.index(name) for name in names])[world.part]})
    size = (60, 60)
    affine = crop_affine((0, 0, RESOLUTION, RESOLUTION), size, padding=1, flip=True)
    found = warp_maps(_scene_maps(scene), SCENE_KINDS, invert(affine), size)
    seen = [_look(world, size[0], _grid(size) + shift) for shift in NEAR * size[0] / RESOLUTION]
    assert _compare(found, seen, RESOLUTION / size[0], np.eye(3)) > 0.5


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("zoom", [1.5, 2.2])
def test_an_enlarged_crop_is_the_view_of_a_longer_lens(index: int, zoom: float) -> None:
    """It sees the same surfaces and normals; depth by the convention is that divided by `zoom`."""
    scene, world = render(6, index, RESOLUTION), sample_world(generator(6, index))
    size = (RESOLUTION // 5, RESOLUTION // 5)
    affine = crop_affine((0, 0, RESOLUTION, RESOLUTION), size, padding=1, scale=zoom)
    found = warp_maps(_scene_maps(scene), SCENE_KINDS, invert(affine), size)
    seen = [_look(world, size[0], _grid(size) + shift, zoom) for shift in NEAR * zoom / 5]
    assert _compare(found, seen, 5 / zoom, np.eye(3)) > 0.3
