from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.raycast_twin import walk

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.data.random_numbers import generator
from rpgmt.synthetic.body import PARTS
from rpgmt.synthetic.cache import load
from rpgmt.synthetic.parallel import render_many
from rpgmt.synthetic.render import LEAST_PIXELS, Scene, render
from rpgmt.synthetic.scene import sample_world

SIZE = 96
FIELDS = ("image", "keypoints", "boxes", "areas", "people", "parts", "depth", "normals")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render(0, index) for index in range(150)]


def equal(one: Scene, other: Scene) -> bool:
    return all(np.array_equal(getattr(one, field), getattr(other, field)) for field in FIELDS)


def people(scenes: list[Scene]):
    for scene in scenes:
        for i, keypoints in enumerate(scene.keypoints):
            yield scene, i + 1, keypoints


def test_shapes_and_types(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert (scene.image.shape, scene.image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert (scene.normals.shape, scene.normals.dtype) == ((SIZE, SIZE, 3), np.float32)
        assert (scene.depth.shape, scene.depth.dtype) == ((SIZE, SIZE), np.float32)
        assert scene.people.dtype == scene.parts.dtype == np.uint8
        assert scene.keypoints.shape == (len(scene.boxes), 17, 3)


def test_boxes_and_areas_are_those_of_the_masks(scenes: list[Scene]) -> None:
    for scene, person, _ in people(scenes):
        pixels = [(x, y) for y in range(SIZE) for x in range(SIZE) if scene.people[y, x] == person]
        assert scene.areas[person - 1] == len(pixels) > 0
        x, y, w, h = scene.boxes[person - 1]
        xs, ys = zip(*pixels, strict=True)
        assert (x, y, x + w - 1, y + h - 1) == (min(xs), min(ys), max(xs), max(ys))
    assert all(set(np.unique(scene.people)) - {0} == set(range(1, len(scene.areas) + 1)) for scene in scenes)


def test_parts_lie_on_people_and_every_person_has_a_body(scenes: list[Scene]) -> None:
    for scene in scenes:
        np.testing.assert_array_equal(scene.parts > 0, scene.people > 0)
        assert scene.parts.max() < len(PARTS)
    seen = np.bincount(np.concatenate([scene.parts.ravel() for scene in scenes]), minlength=len(PARTS))
    assert (seen > 500).all()


def test_key_points_are_inside_the_image_or_zero(scenes: list[Scene]) -> None:
    for scene, person, keypoints in people(scenes):
        labelled = keypoints[:, 2] > 0
        assert (keypoints[~labelled] == 0).all()
        assert (keypoints[labelled, :2] >= -0.5).all()
        assert (keypoints[labelled, :2] < SIZE - 0.5).all()
        assert set(keypoints[:, 2]) <= {0.0, 1.0, 2.0}
        assert scene.areas[person - 1] >= LEAST_PIXELS * SIZE**2 or not labelled.any()


def test_flags_agree_with_masks_and_depth(scenes: list[Scene]) -> None:
    """At the pixels round a visible point is its person at its depth; round a hidden one, something nearer."""
    for index, scene in enumerate(scenes):
        world = sample_world(generator(0, index))
        if len(world.people) != len(scene.areas):
            continue  # somebody is hidden altogether
        for i, keypoints in enumerate(scene.keypoints):
            for (x, y, v), point, reach in zip(keypoints, world.people[i].keypoints, world.people[i].reach, strict=True):
                if v == 0:
                    continue
                columns, rows = (slice(max(math.floor(p), 0), math.floor(p) + 2) for p in (x, y))
                depth = scene.depth[rows, columns]
                if v == 2:  # a thin limb may miss the four pixels round the point, but not those round them
                    window = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in (rows, columns))
                    own = scene.depth[window][scene.people[window] == i + 1]
                    assert (np.abs(own - point[2]) < reach + 0.1).any()
                elif depth.size == 4:
                    of_others = (scene.people[rows, columns] != i + 1).any()  # who may be nearer by less than the reach
                    assert depth.min() < point[2] - reach + 0.05 or of_others


def test_flags_equal_a_walk_along_the_rays() -> None:
    checked = np.zeros(3, dtype=int)
    for index in range(5):
        world, scene = sample_world(generator(7, index)), render(7, index)
        if len(world.people) != len(scene.areas):
            continue
        for i, body in enumerate(world.people):
            for k, (point, reach) in enumerate(zip(body.keypoints, body.reach, strict=True)):
                ray = point[:2] / point[2]
                steps = np.arange(0.5, point[2] + 0.05, 0.01)
                hits = np.array([walk(world.shapes, j, ray, steps) for j in range(len(world.owner))])
                first, margin = hits.min(), hits.min() - (point[2] - reach)
                if abs(margin) < 0.02 or not np.isfinite(first) or (np.sort(hits)[1] - first) < 0.02:
                    continue  # too close for the walk's steps
                expected = 2 if margin > 0 and world.owner[hits.argmin()] == i + 1 else 1
                if scene.keypoints[i, k, 2] > 0:
                    assert scene.keypoints[i, k, 2] == expected, (index, i, COCO_KEYPOINTS.names[k])
                    checked[expected] += 1
    assert (checked[1:] > 10).all()


def test_key_points_equal_a_scalar_camera(scenes: list[Scene]) -> None:
    for index, scene in enumerate(scenes[:40]):
        world = sample_world(generator(0, index))
        if len(world.people) != len(scene.areas):
            continue
        for body, keypoints in zip(world.people, scene.keypoints, strict=True):
            for (x, y, z), (u, v, flag) in zip(body.keypoints.tolist(), keypoints.tolist(), strict=True):
                column = SIZE * world.focal * x / z + (SIZE - 1) / 2
                row = SIZE * world.focal * y / z + (SIZE - 1) / 2
                if flag:
                    assert (u, v) == (pytest.approx(column, abs=6e-4), pytest.approx(row, abs=6e-4))
                else:
                    assert not (-0.499 <= column < SIZE - 0.501 and -0.499 <= row < SIZE - 0.501)


def test_normals_are_unit_and_face_the_camera(scenes: list[Scene]) -> None:
    for scene in scenes:
        rays = back_project(scene) / scene.depth[..., None]
        np.testing.assert_allclose(np.linalg.norm(scene.normals, axis=2), 1, atol=1e-5)
        assert (np.sum(scene.normals * rays, axis=2) < 1e-6).all()


def back_project(scene: Scene) -> np.ndarray:
    slopes = scene.camera.slopes(scene.camera.pixels()).reshape(SIZE, SIZE, 2)
    return np.concatenate((slopes, np.ones((SIZE, SIZE, 1))), axis=2) * scene.depth[..., None]


@pytest.mark.parametrize("axis", [0, 1])
def test_normals_agree_with_the_depth(scenes: list[Scene], axis: int) -> None:
    """The step between neighbouring surface points is square to the mean of their normals."""
    here, there = ((slice(None),) * axis + (s,) for s in (slice(None, -1), slice(1, None)))
    total = wrong = 0
    for scene in scenes:
        points, normal = back_project(scene), scene.normals.astype(np.float64)
        smooth = np.sum(normal[here] * normal[there], axis=2) > 0.98
        smooth &= (scene.people[here] == scene.people[there]) & (scene.parts[here] == scene.parts[there])
        step = points[there] - points[here]
        rise = np.abs(np.sum((normal[here] + normal[there]) / 2 * step, axis=2)) / np.linalg.norm(step, axis=2)
        total += smooth.sum()
        wrong += (smooth & (rise > 0.02)).sum()  # parallel surfaces of two things, one behind the other
    assert total > 100 * SIZE * SIZE
    assert wrong < 0.005 * total


def test_depth_is_finite_and_in_front_of_the_camera(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert np.isfinite(scene.depth).all()
        assert scene.depth.min() > 0.3


def test_left_is_left() -> None:
    seen = {True: 0, False: 0}
    for index in range(400):
        for body in sample_world(generator(2, index)).people:
            toes = body.shapes.frame[[PARTS.index("left_foot") == p or PARTS.index("right_foot") == p for p in body.part], 1]
            facing = toes[:, 2].mean() + (body.keypoints[0] - body.keypoints[3:5].mean(axis=0))[2] * 5
            if abs(facing) < 1.0:
                continue
            towards = facing < 0
            shoulders = body.keypoints[5, 0] / body.keypoints[5, 2] - body.keypoints[6, 0] / body.keypoints[6, 2]
            assert (shoulders > 0) == towards
            seen[towards] += 1
    assert min(seen.values()) > 15


def test_a_scene_is_a_function_of_seed_and_index(scenes: list[Scene]) -> None:
    for index in (149, 3, 70):
        assert equal(render(0, index), scenes[index])
    pictures = {scene.image.tobytes() for scene in scenes} | {render(1, index).image.tobytes() for index in range(10)}
    assert len(pictures) == len(scenes) + 10


def test_processes_make_the_same_scenes(scenes: list[Scene]) -> None:
    for i, scene in enumerate(render_many(0, 5, 50, processes=2)):
        assert equal(scene, scenes[5 + i])
    assert i == 49


def test_the_size_only_sets_the_resolution() -> None:
    for index in range(8):
        small, large = render(4, index, 64), render(4, index, 128)
        if len(small.areas) != len(large.areas):
            continue
        both = (small.keypoints[..., 2] > 0) & (large.keypoints[..., 2] > 0)
        np.testing.assert_allclose((small.keypoints[both][:, :2] + 0.5) * 2, large.keypoints[both][:, :2] + 0.5, atol=2e-3)
        np.testing.assert_array_equal(small.keypoints[both][:, 2], large.keypoints[both][:, 2])
        np.testing.assert_allclose(small.areas * 4, large.areas, rtol=0.2, atol=40)


def test_statistics(scenes: list[Scene]) -> None:
    counts = np.bincount([len(scene.areas) for scene in scenes], minlength=4) / len(scenes)
    assert counts[0] == 0
    assert (counts[1:4] > (0.4, 0.18, 0.05)).all()
    flags = np.concatenate([scene.keypoints[..., 2].ravel() for scene in scenes])
    share = np.bincount(flags.astype(int)) / len(flags)
    assert 0.005 < share[0] < 0.08
    assert 0.15 < share[1] < 0.4
    heights = np.concatenate([scene.boxes[:, 3] for scene in scenes]) / SIZE
    assert 0.6 < np.median(heights) < 0.85
    labelled = np.concatenate([scene.keypoints[..., 2] > 0 for scene in scenes])
    assert (labelled.mean(axis=0) > 0.85).all()
    brightness = [scene.image.mean() for scene in scenes]
    assert np.std(brightness) > 15
    assert 60 < np.mean(brightness) < 150


def test_the_document_is_coco_and_survives_json(tmp_path: Path, scenes: list[Scene]) -> None:
    data = load(tmp_path, count=30, progress=False)
    document = data.document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert [image["id"] for image in document["images"]] == list(range(30))
    annotations = iter(document["annotations"])
    for i, scene in enumerate(scenes[:30]):
        np.testing.assert_array_equal(data.read_image(document["images"][i]), scene.image)
        for box, area, keypoints in zip(scene.boxes, scene.areas, scene.keypoints, strict=True):
            annotation = next(annotations)
            assert annotation["image_id"] == i
            assert annotation["bbox"] == box.tolist()
            assert annotation["area"] == area
            assert annotation["iscrowd"] == 0
            assert annotation["keypoints"] == keypoints.ravel().tolist()
            assert annotation["num_keypoints"] == (keypoints[:, 2] > 0).sum()
            assert all(type(v) is int for v in annotation["keypoints"][2::3])
    assert next(annotations, None) is None
    found = CocoPeople(document, data.read_image, name="synthetic")
    assert found.keypoints == COCO_KEYPOINTS
    assert len(found.people) == sum(a["num_keypoints"] > 0 for a in document["annotations"])


def test_drawing_people_does_not_wait_for_torch() -> None:
    """Its import takes longer than the first scenes, in each of the processes that draw."""
    code = "import sys\nimport rpgmt.synthetic.labels, rpgmt.synthetic.parallel\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
