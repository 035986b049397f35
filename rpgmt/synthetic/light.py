"""Light, and the sensor that sees it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpgmt.synthetic.colours import Colours
from rpgmt.synthetic.shapes import Array


class Light(NamedTuple):
    """Directional and ambient light, and the sensor.

    Args:
        direction: (3,) unit vector towards the light, camera frame.
        up: (3,) unit vector, camera frame; what faces up gets more of the ambient light.
        direct: (3,) and
        ambient: (3,) RGB strength.
        blur: share of the neighbours in a pixel.
        noise: standard deviation of the sensor's noise, in 0…1.
    """

    direction: Array
    up: Array
    direct: Array
    ambient: Array
    blur: float
    noise: float


def sample_light(rng: np.random.Generator, camera_rotation: Array) -> Light:
    """Light from above and mostly from the camera's side; `camera_rotation` turns world axes to the camera's."""
    toward = np.array([rng.uniform(-1, 1), -rng.uniform(0.25, 1), -rng.uniform(-0.2, 1)])
    tint = rng.uniform(0.88, 1.12, (2, 3))
    return Light(
        direction=camera_rotation @ (toward / np.sqrt(np.sum(toward * toward))),
        up=camera_rotation @ (0, -1, 0),
        direct=tint[0] * rng.uniform(0.35, 0.9),
        ambient=tint[1] * rng.uniform(0.45, 0.9),
        blur=float(rng.uniform(0, 0.25)),
        noise=float(rng.uniform(0, 0.02)),
    )


def shade(
    light: Light, colour: Colours, normal: Colours, brightness: Colours, size: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The image, uint8 (size, size, 3).

    Args:
        light: of the scene.
        colour: (3, size²) unlit colours.
        normal: (3, size²) unit normals.
        brightness: (size²,) factor for shadows.
        size: of the image, pixels.
        rng: for the sensor's noise.
    """
    direction, up, direct, ambient = (np.asarray(field, dtype=np.float32) for field in light[:4])
    facing = np.maximum(direction @ normal, 0) * brightness
    sky = (0.8 + 0.2 * (up @ normal)) * brightness
    image = colour * (ambient[:, None] * sky + direct[:, None] * facing)
    padded = np.pad(image.reshape(3, size, size), ((0, 0), (1, 1), (1, 1)), mode="edge")
    cross = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    result = padded[:, 1:-1, 1:-1] * (1 - light.blur) + cross * (light.blur / 4)
    result += rng.standard_normal(result.shape, dtype=np.float32) * light.noise
    return (np.clip(result, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
