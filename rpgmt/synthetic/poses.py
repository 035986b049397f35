"""Who a body is and how it stands: proportions and joint angles, drawn at random within limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Joint angles in degrees and their limits; roughly the active ranges of adults. `left_…` and `right_…` limb angles are
# the same by mirror image. Flexion moves a limb or the trunk forward (knees: the shin backward), abduction away from
# the body, twist inward.
LIMB_LIMITS = {
    "shoulder_flexion": (-45.0, 170.0),
    "shoulder_abduction": (-15.0, 150.0),
    "shoulder_twist": (-85.0, 75.0),
    "elbow_flexion": (0.0, 145.0),
    "hip_flexion": (-25.0, 115.0),
    "hip_abduction": (-10.0, 45.0),
    "hip_twist": (-35.0, 35.0),
    "knee_flexion": (0.0, 140.0),
    "ankle_flexion": (-20.0, 40.0),
}
LIMITS: dict[str, tuple[float, float]] = {
    "pelvis_flexion": (-15.0, 60.0),
    "pelvis_bend": (-12.0, 12.0),
    "spine_flexion": (-20.0, 45.0),
    "spine_bend": (-25.0, 25.0),
    "spine_twist": (-35.0, 35.0),
    "neck_flexion": (-35.0, 35.0),
    "neck_bend": (-25.0, 25.0),
    "neck_twist": (-65.0, 65.0),
    **{f"{side}_{name}": limit for side in ("left", "right") for name, limit in LIMB_LIMITS.items()},
}

Pose = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Build:
    """Height in metres, and factors on the proportions of an average adult (1 = average)."""

    height: float
    girth: float
    limbs: float
    head: float
    legs: float
    arms: float
    shoulders: float
    hips: float
    long_hair: bool


def pick(rng: np.random.Generator, weights: Iterable[float]) -> int:
    """A random index, with these weights (`Generator.choice`, many times as fast); they sum to 1."""
    place = rng.random()
    for i, weight in enumerate(weights):
        place -= weight
        if place < 0:
            return i
    return i


def sample_build(rng: np.random.Generator) -> Build:
    """Children from 1.1 m (with larger heads) to tall adults, thin to stout."""
    height = rng.uniform(1.1, 1.55) if rng.random() < 0.15 else float(np.clip(rng.normal(1.71, 0.1), 1.5, 1.98))
    girth, limbs, head, legs, arms, shoulders, hips = np.clip(rng.standard_normal(7), -2, 2)
    return Build(
        height=height,
        girth=1.25 + 0.12 * girth,
        limbs=(1.42 + 0.12 * limbs) * (1 + 0.05 * girth),
        head=(1.05 + 0.03 * head) * (1 + 0.35 * max(0.0, 1.65 - height)),
        legs=1 + 0.03 * legs,
        arms=1 + 0.03 * arms,
        shoulders=1 + 0.06 * shoulders,
        hips=1 + 0.06 * hips,
        long_hair=bool(rng.random() < 0.4),
    )


# Weight, and means and spreads (degrees), of the styles of legs and arms; other angles keep a small default spread.
# "swing" is added to the left hip and taken from the right one, and arms that hang swing against the legs.
Style = tuple[float, dict[str, tuple[float, float]]]
_LEGS: dict[str, Style] = {
    "stand": (0.30, {"hip_abduction": (4, 4), "knee_flexion": (4, 6)}),
    "walk": (0.24, {"swing": (24, 8), "knee_flexion": (12, 8)}),
    "run": (0.10, {"swing": (42, 10), "knee_flexion": (40, 22), "pelvis_flexion": (10, 5)}),
    "wide": (0.10, {"hip_abduction": (20, 8), "knee_flexion": (8, 10), "hip_flexion": (6, 8)}),
    "sit": (0.09, {"hip_flexion": (84, 8), "hip_abduction": (8, 8), "knee_flexion": (85, 15)}),
    "squat": (
        0.06,
        {"hip_flexion": (90, 14), "hip_abduction": (14, 8), "knee_flexion": (112, 14), "pelvis_flexion": (22, 8)},
    ),
    "lunge": (0.06, {"hip_flexion": (30, 8), "swing": (38, 8), "knee_flexion": (62, 15)}),
    "bow": (0.05, {"pelvis_flexion": (36, 12), "spine_flexion": (18, 10), "knee_flexion": (10, 8)}),
}
_ARMS: dict[str, Style] = {
    "hang": (0.36, {"shoulder_abduction": (12, 6), "elbow_flexion": (16, 12), "shoulder_twist": (15, 20)}),
    "bent": (0.14, {"shoulder_flexion": (15, 15), "elbow_flexion": (85, 22), "shoulder_twist": (15, 25)}),
    "hip": (
        0.10,
        {
            "shoulder_flexion": (-20, 6),
            "shoulder_abduction": (46, 7),
            "elbow_flexion": (88, 10),
            "shoulder_twist": (52, 10),
        },
    ),
    "forward": (0.12, {"shoulder_flexion": (70, 18), "shoulder_abduction": (8, 10), "elbow_flexion": (30, 25)}),
    "side": (0.12, {"shoulder_abduction": (85, 16), "elbow_flexion": (25, 25), "shoulder_twist": (-30, 35)}),
    "wave": (0.07, {"shoulder_abduction": (80, 14), "elbow_flexion": (80, 25), "shoulder_twist": (-75, 10)}),
    "raised": (0.09, {"shoulder_flexion": (155, 14), "shoulder_abduction": (14, 12), "elbow_flexion": (22, 20)}),
}
_SPREADS = {"neck_twist": 12.0, "neck_flexion": 7.0, "hip_twist": 10.0, "elbow_flexion": 12.0, "pelvis_bend": 2.5}


def sample_pose(rng: np.random.Generator) -> Pose:
    """A random pose: a style of the legs and one of each arm, spread, and cut to the limits."""
    legs = _choose(rng, _LEGS)
    left = _choose(rng, _ARMS)
    arms = {"left": left, "right": left if rng.random() < 0.5 else _choose(rng, _ARMS)}
    noise = rng.standard_normal(len(LIMITS) + 1).tolist()
    mean, spread = _LEGS[legs][1].get("swing", (0.0, 2.0))
    swing = (mean + spread * noise.pop()) * (1 if rng.random() < 0.5 else -1)
    pose = {}
    for (name, (low, high)), deviation in zip(LIMITS.items(), noise, strict=True):
        side, _, angle = name.partition("_")
        style = _LEGS[legs][1]
        if side not in arms:
            angle = name
        elif angle.startswith(("shoulder", "elbow")):
            style = _ARMS[arms[side]][1]
        mean, spread = style.get(angle, (0.0, _SPREADS.get(angle, 5.0)))
        value = mean + spread * deviation
        ahead = swing if side == "left" else -swing
        if angle == "hip_flexion":
            value += ahead
        elif angle == "shoulder_flexion" and arms[side] == "hang":
            value -= 0.9 * ahead
        elif angle == "knee_flexion" and ahead < 0:  # the leg behind lifts its foot
            value -= 0.5 * ahead
        pose[name] = min(max(value, low), high)
    return pose


def _choose(rng: np.random.Generator, styles: dict[str, Style]) -> str:
    return list(styles)[pick(rng, (weight for weight, _ in styles.values()))]
