"""Random colours, skin tones, and the names of patterns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rpgmt.synthetic.shapes import Array

Colours = NDArray[np.float32]  # colours take single precision; geometry is in double

PLAIN, STRIPES, RINGS, CHECKER, DOTS = range(5)

_SKIN = np.array([(0.24, 0.14, 0.09), (0.44, 0.27, 0.17), (0.66, 0.45, 0.31), (0.82, 0.62, 0.47), (0.95, 0.79, 0.68)])


def _hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """RGB (…, 3) of hue, saturation and value, all in 0…1."""
    k = (np.array([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    return value[..., None] * (1 - saturation[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def random_colours(rng: np.random.Generator, count: int) -> Array:
    """RGB colours (count, 3), grey to vivid and dark to bright."""
    hue, saturation, value = rng.random((3, count))
    return _hsv(hue, saturation**1.3 * 0.9, 0.12 + 0.85 * value)


def along(ramp: Array, place: float) -> Array:
    """The colour at 0…1 of a ramp of colours."""
    i = min(int(place * (len(ramp) - 1)), len(ramp) - 2)
    share = place * (len(ramp) - 1) - i
    return ramp[i] * (1 - share) + ramp[i + 1] * share


def skin_colour(rng: np.random.Generator) -> Array:
    """A skin tone (3,)."""
    return np.clip(along(_SKIN, rng.random()) * rng.uniform(0.92, 1.08, 3), 0, 1)
