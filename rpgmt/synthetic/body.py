"""An articulated 3-D body: from build and joint angles to 17 COCO key points and the shapes to draw.

The body's frame is the camera frame of somebody who stands upright and faces the camera: x to the person's left,
y down, z to the back, metres, origin between the hips. Left and right are the person's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.synthetic.poses import LIMB_LIMITS, Build, Pose
from rpgmt.synthetic.shapes import ELLIPSOID, Array, Index, Shapes, cones, join, solids

PARTS = (
    "background",
    "head",
    "torso",
    "left_upper_arm",
    "left_forearm",
    "left_hand",
    "right_upper_arm",
    "right_forearm",
    "right_hand",
    "left_thigh",
    "left_shin",
    "left_foot",
    "right_thigh",
    "right_shin",
    "right_foot",
)

# What a shape is made of; the scene gives each person a table of these.
MATERIALS = (
    "skin",
    "hair",
    "eye",
    "lips",
    "shirt",
    "upper_sleeve",
    "lower_sleeve",
    "trousers",
    "thigh",
    "shin",
    "shoe",
)


@dataclass(frozen=True, kw_only=True)
class Body:
    """A posed body, in its own frame or in any frame that it was moved to.

    Args:
        keypoints: (17, 3) in COCO's order, metres.
        reach: (17,) how far the person's own surface may lie in front of a visible key point, metres.
        shapes: the S shapes it is made of.
        part: (S,) index into PARTS.
        material: (S,) index into MATERIALS.
    """

    keypoints: Array
    reach: Array
    shapes: Shapes
    part: Index
    material: Index

    def moved(self, rotation: Array, translation: Array) -> Body:
        """The body after ``p -> rotation @ p + translation``."""
        return Body(
            keypoints=self.keypoints @ rotation.T + translation,
            reach=self.reach,
            shapes=self.shapes.moved(rotation, translation),
            part=self.part,
            material=self.material,
        )


def rotation(axis: int, degrees: float) -> Array:
    """The right-handed rotation (3, 3) about axis 0, 1 or 2."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    result = np.zeros((3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    result[axis, axis] = 1
    result[i, i] = result[j, j] = cosine
    result[j, i], result[i, j] = sine, -sine
    return result


def pose_body(build: Build, pose: Pose) -> Body:
    """Forward kinematics: the key points and shapes of a body of this build in this pose (angles in degrees).

    Lengths are fractions of the height (segment lengths after Drillis and Contini, 1966). Hip angles are measured from
    the vertical: the trunk tilts over the legs.
    """
    assembly = _Assembly(build.height)
    pelvis = rotation(0, pose["pelvis_flexion"]) @ rotation(2, pose["pelvis_bend"])
    waist = pelvis @ (0, -0.10, 0)
    chest = pelvis @ (rotation(1, pose["spine_twist"]) @ rotation(0, pose["spine_flexion"]) @ rotation(2, pose["spine_bend"]))
    neck = waist + chest @ (0, -0.185, 0.008)
    head = chest @ (rotation(1, pose["neck_twist"]) @ rotation(0, pose["neck_flexion"]) @ rotation(2, pose["neck_bend"]))
    girth = build.girth
    assembly.ellipsoid("torso", "trousers", pelvis @ (0, -0.015, 0.005), pelvis, (0.086 * build.hips, 0.068, 0.064), girth)
    assembly.ellipsoid("torso", "shirt", waist, chest, (0.080, 0.095, 0.057), girth)
    assembly.ellipsoid("torso", "shirt", waist + chest @ (0, -0.09, 0), chest, (0.094 * build.shoulders, 0.12, 0.060), girth)
    _add_head(assembly, build, neck, head)
    for side, sign in (("left", 1), ("right", -1)):
        angles = {name: pose[f"{side}_{name}"] for name in LIMB_LIMITS}
        shoulder = waist + chest @ (sign * 0.106 * build.shoulders, -0.172, 0)
        assembly.cone("torso", "shirt", neck + chest @ (0, 0.02, 0), shoulder, 0.034 * girth, 0.032 * build.limbs)
        _add_arm(assembly, build, side, sign, chest, shoulder, angles)
        _add_leg(assembly, build, side, sign, pelvis @ (sign * 0.05 * build.hips, 0, 0), angles)
    return assembly.body()


def _add_head(assembly: _Assembly, build: Build, neck: Array, frame: Array) -> None:
    s = build.head
    centre = neck + frame @ (0, -0.062 - 0.048 * s, -0.014)
    assembly.cone("head", "skin", neck + frame @ (0, 0.02, 0), centre, 0.030 * build.limbs, 0.032 * s)
    assembly.ellipsoid("head", "skin", centre, frame, (0.046, 0.066, 0.055), s)
    assembly.ellipsoid("head", "hair", centre + frame @ (0, -0.014 * s, 0.012 * s), frame, (0.049, 0.062, 0.056), s)
    assembly.ellipsoid("head", "lips", centre + frame @ (0, 0.036 * s, -0.044 * s), frame, (0.017, 0.006, 0.006), s)
    assembly.ellipsoid("head", "skin", centre + frame @ (0, 0.012 * s, -0.056 * s), frame, (0.009, 0.015, 0.013), s)
    assembly.point("nose", centre + frame @ (0, 0.014 * s, -0.062 * s), 0.020)
    for side, sign in (("left", 1), ("right", -1)):
        eye = centre + frame @ (sign * 0.019 * s, -0.008 * s, -0.049 * s)
        ear = centre + frame @ (sign * 0.046 * s, 0.004 * s, 0.004 * s)
        assembly.ellipsoid("head", "eye", eye, frame, (0.0095, 0.0075, 0.0065), s)
        assembly.ellipsoid("head", "skin", ear, frame, (0.009, 0.018, 0.012), s)
        assembly.point(f"{side}_eye", eye, 0.022)
        assembly.point(f"{side}_ear", ear, 0.030)
    if build.long_hair:
        tip = centre + frame @ (0, 0.105 * s, 0.040 * s)
        assembly.cone("head", "hair", centre + frame @ (0, -0.01 * s, 0.028 * s), tip, 0.042 * s, 0.026 * s)


def _add_arm(assembly: _Assembly, build: Build, side: str, sign: int, chest: Array, shoulder: Array, angles: Pose) -> None:
    r = build.limbs
    upper = (
        chest
        @ rotation(0, -angles["shoulder_flexion"])
        @ rotation(2, -sign * angles["shoulder_abduction"])
        @ rotation(1, sign * angles["shoulder_twist"])
    )
    elbow = shoulder + upper @ (0, 0.172 * build.arms, 0)
    lower = upper @ rotation(0, -angles["elbow_flexion"])
    wrist = elbow + lower @ (0, 0.142 * build.arms, 0)
    assembly.cone(f"{side}_upper_arm", "upper_sleeve", shoulder, elbow, 0.032 * r, 0.024 * r)
    assembly.cone(f"{side}_forearm", "lower_sleeve", elbow, wrist, 0.024 * r, 0.017 * r)
    assembly.cone(f"{side}_hand", "skin", wrist + lower @ (0, 0.015, 0), wrist + lower @ (0, 0.06, 0), 0.016 * r, 0.02 * r)
    assembly.point(f"{side}_shoulder", shoulder, 0.05 * r)
    assembly.point(f"{side}_elbow", elbow, 0.038 * r)
    assembly.point(f"{side}_wrist", wrist, 0.030 * r)


def _add_leg(assembly: _Assembly, build: Build, side: str, sign: int, hip: Array, angles: Pose) -> None:
    r = build.limbs
    thigh = (
        rotation(0, -angles["hip_flexion"])
        @ rotation(2, -sign * angles["hip_abduction"])
        @ rotation(1, -sign * angles["hip_twist"])
    )
    knee = hip + thigh @ (0, 0.245 * build.legs, 0)
    shin = thigh @ rotation(0, angles["knee_flexion"])
    ankle = knee + shin @ (0, 0.243 * build.legs, 0)
    foot = shin @ rotation(0, angles["ankle_flexion"])
    assembly.cone(f"{side}_thigh", "thigh", hip, knee, 0.052 * r, 0.034 * r)
    assembly.cone(f"{side}_shin", "shin", knee, ankle, 0.034 * r, 0.022 * r)
    heel, toe = ankle + foot @ (0, 0.018, 0.014), ankle + foot @ (0, 0.026, -0.09)
    assembly.cone(f"{side}_foot", "shoe", heel, toe, 0.025 * r, 0.019 * r)
    assembly.point(f"{side}_hip", hip, 0.09 * build.girth)
    assembly.point(f"{side}_knee", knee, 0.05 * r)
    assembly.point(f"{side}_ankle", ankle, 0.038 * r)


class _Assembly:
    """Collects shapes and key points in fractions of the height."""

    def __init__(self, height: float) -> None:
        self.height = height
        self.cones: list[tuple[Array, Array, float, float]] = []
        self.ellipsoids: list[tuple[Array, Array, Array]] = []
        self.labels: dict[bool, list[tuple[int, int]]] = {True: [], False: []}  # of cones, of ellipsoids
        self.points: dict[str, tuple[Array, float]] = {}

    def cone(self, part: str, material: str, start: Array, end: Array, first: float, second: float) -> None:
        self.cones.append((start, end, first, second))
        self.labels[True].append((PARTS.index(part), MATERIALS.index(material)))

    def ellipsoid(
        self, part: str, material: str, centre: Array, frame: Array, axes: tuple[float, float, float], scale: float
    ) -> None:
        self.ellipsoids.append((centre, frame.T, np.array(axes) * scale))
        self.labels[False].append((PARTS.index(part), MATERIALS.index(material)))

    def point(self, name: str, place: Array, reach: float) -> None:
        self.points[name] = place, reach

    def body(self) -> Body:
        h = self.height
        start, end, first, second = zip(*self.cones, strict=True)
        centre, frame, axes = (np.array(field) for field in zip(*self.ellipsoids, strict=True))
        labels = np.array(self.labels[True] + self.labels[False])
        points = [self.points[name] for name in COCO_KEYPOINTS.names]
        return Body(
            keypoints=np.array([place for place, _ in points]) * h,
            reach=np.array([reach for _, reach in points]) * h,
            shapes=join(
                (
                    cones(np.array(start) * h, np.array(end) * h, np.column_stack((first, second)) * h),
                    solids(ELLIPSOID, centre * h, frame, axes * h),
                )
            ),
            part=labels[:, 0],
            material=labels[:, 1],
        )
