from __future__ import annotations

import numpy as np
import pytest
from helpers.raycast_twin import depth_inside

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.synthetic.body import MATERIALS, PARTS, pose_body, rotation
from rpgmt.synthetic.poses import LIMITS, Build, pick, sample_build, sample_pose

NAMES = COCO_KEYPOINTS.names
AVERAGE = Build(height=1.75, girth=1, limbs=1, head=1, legs=1, arms=1, shoulders=1, hips=1, long_hair=True)
STILL = dict.fromkeys(LIMITS, 0.0)


def points(build: Build = AVERAGE, **angles: float) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, pose_body(build, STILL | angles).keypoints, strict=True))


def test_poses_hold_the_limits_and_use_them() -> None:
    rng = np.random.default_rng(0)
    poses = [sample_pose(rng) for _ in range(600)]
    for name, (low, high) in LIMITS.items():
        values = np.array([pose[name] for pose in poses])
        assert low <= values.min() <= values.max() <= high, name
        assert values.std() > 2, name
        assert np.mean((values == low) | (values == high)) < 0.25, name
    assert all(set(pose) == set(LIMITS) for pose in poses)


def test_poses_have_no_preferred_side() -> None:
    rng = np.random.default_rng(1)
    poses = [sample_pose(rng) for _ in range(1500)]
    for name in LIMITS:
        if name.startswith("left_"):
            left, right = (np.array([pose[side + name[5:]] for pose in poses]) for side in ("left_", "right_"))
            assert abs(left.mean() - right.mean()) < 5 * np.hypot(left.std(), right.std()) / np.sqrt(len(poses)), name


def test_builds_vary() -> None:
    rng = np.random.default_rng(0)
    builds = [sample_build(rng) for _ in range(400)]
    heights = np.array([build.height for build in builds])
    assert heights.min() >= 1.1
    assert heights.max() <= 1.98
    assert heights.std() > 0.1
    assert 0.3 < np.mean([build.long_hair for build in builds]) < 0.5
    children, adults = ([b.head for b in builds if (b.height < 1.4) == young] for young in (True, False))
    assert np.mean(children) > np.mean(adults)


def test_an_upright_body() -> None:
    p = points()
    for name in NAMES:  # x to the person's left
        assert np.sign(p[name][0]) == (1 if "left" in name else -1 if "right" in name else 0)
    order = ("left_eye", "nose", "left_shoulder", "left_elbow", "left_hip", "left_knee", "left_ankle")
    heights = [p[name][1] for name in order]  # y down
    assert heights == sorted(heights)
    assert p["nose"][2] < p["left_eye"][2] < p["left_ear"][2]  # z to the back
    low, high = pose_body(AVERAGE, STILL).shapes.extent()
    assert (high - low)[1] == pytest.approx(AVERAGE.height, rel=0.04)


@pytest.mark.parametrize(
    ("angle", "degrees", "moved", "origin", "direction"),
    [
        ("left_shoulder_flexion", 90, "left_elbow", "left_shoulder", (0, 0, -1)),
        ("right_shoulder_flexion", 170, "right_wrist", "right_shoulder", (0, -0.98, -0.17)),
        ("left_shoulder_abduction", 90, "left_wrist", "left_shoulder", (1, 0, 0)),
        ("right_shoulder_abduction", 90, "right_wrist", "right_shoulder", (-1, 0, 0)),
        ("left_elbow_flexion", 90, "left_wrist", "left_elbow", (0, 0, -1)),
        ("left_hip_flexion", 90, "left_knee", "left_hip", (0, 0, -1)),
        ("right_hip_abduction", 30, "right_knee", "right_hip", (-0.5, 0.87, 0)),
        ("left_knee_flexion", 90, "left_ankle", "left_knee", (0, 0, 1)),
        ("spine_twist", 30, "left_shoulder", "right_shoulder", (0.87, 0, -0.5)),
        ("pelvis_flexion", 30, "nose", "left_hip", (None, None, -1)),
    ],
)
def test_angles_move_limbs_the_way_their_names_say(angle, degrees, moved, origin, direction) -> None:
    p = points(**{angle: degrees})
    way = p[moved] - p[origin]
    if direction[0] is None:
        assert way[2] < -0.3
    else:
        np.testing.assert_allclose(way / np.linalg.norm(way), direction, atol=0.01)


def test_inward_twist_brings_the_forearm_before_the_body() -> None:
    p = points(left_elbow_flexion=90, left_shoulder_twist=70, right_elbow_flexion=90, right_shoulder_twist=70)
    assert p["left_wrist"][0] < p["left_elbow"][0]
    assert p["right_wrist"][0] > p["right_elbow"][0]


@pytest.mark.parametrize("seed", range(5))
def test_a_mirrored_pose_is_the_mirrored_body(seed: int) -> None:
    rng = np.random.default_rng(seed)
    build, pose = sample_build(rng), sample_pose(rng)
    swap = {"left": "right", "right": "left"}
    mirrored = {}
    for name, angle in pose.items():
        side, _, rest = name.partition("_")
        name = f"{swap[side]}_{rest}" if side in swap else name
        mirrored[name] = -angle if side not in swap and rest in ("bend", "twist") else angle
    expected = pose_body(build, pose).keypoints[list(COCO_KEYPOINTS.flip_order)] * (-1, 1, 1)
    np.testing.assert_allclose(pose_body(build, mirrored).keypoints, expected, atol=1e-12)


def test_bones_keep_their_lengths_in_every_pose() -> None:
    rng = np.random.default_rng(2)
    build = sample_build(rng)
    bones = [(5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16), (11, 12), (5, 6), (0, 3), (1, 2)]
    lengths = []
    for _ in range(20):
        p = pose_body(build, sample_pose(rng)).keypoints
        lengths.append([np.linalg.norm(p[a] - p[b]) for a, b in bones])
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[0], np.shape(lengths)), rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_joints_are_inside_the_parts_that_they_belong_to(seed: int) -> None:
    rng = np.random.default_rng(seed)
    body = pose_body(sample_build(rng), sample_pose(rng))
    owners = {"shoulder": "upper_arm", "elbow": "forearm", "wrist": "forearm", "hip": "thigh", "knee": "shin"}
    for name, point, reach in zip(NAMES, body.keypoints, body.reach, strict=True):
        side, _, joint = name.partition("_")
        part = f"{side}_{owners[joint]}" if joint in owners else f"{side}_shin" if joint == "ankle" else "head"
        depths = [
            depth_inside(*(field[i] for field in body.shapes), point[None])[0]
            for i in np.flatnonzero(body.part == PARTS.index(part))
        ]
        assert max(depths) > 0, name
        assert part == "head" or reach > max(depths), name  # the own surface does not hide the joint


def test_labels_and_rotations() -> None:
    body = pose_body(AVERAGE, STILL)
    assert set(body.part) == set(range(1, len(PARTS)))
    assert set(body.material) == set(range(len(MATERIALS)))
    ends = (body.shapes.centre + body.shapes.far_end()) / 2
    for side, sign in (("left", 1), ("right", -1)):
        chosen = [i for i, part in enumerate(body.part) if PARTS[part].startswith(side)]
        assert (np.sign(ends[chosen, 0]) == sign).all()
    np.testing.assert_allclose(rotation(2, 90) @ (1, 0, 0), (0, 1, 0), atol=1e-15)
    np.testing.assert_allclose(rotation(0, 90) @ (0, 1, 0), (0, 0, 1), atol=1e-15)
    np.testing.assert_allclose(rotation(1, 90) @ (0, 0, 1), (1, 0, 0), atol=1e-15)


def test_pick_follows_the_weights() -> None:
    rng = np.random.default_rng(0)
    counts = np.bincount([pick(rng, (0.5, 0.2, 0.3)) for _ in range(4000)]) / 4000
    np.testing.assert_allclose(counts, (0.5, 0.2, 0.3), atol=0.03)
