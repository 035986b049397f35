"""Textures of ground and wall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rpgmt.synthetic.colours import CHECKER, DOTS, RINGS, STRIPES, Colours, random_colours, skin_colour
from rpgmt.synthetic.shapes import Array


@dataclass(frozen=True, kw_only=True)
class Texture:
    """A pattern over a plane.

    Args:
        colours: (2, 3) that it lies between.
        noise: (32, 32) in 0…1, repeated over the plane.
        pattern: PLAIN, STRIPES, RINGS, CHECKER or DOTS.
        period: of the pattern, metres.
        contrast: share of the pattern and of the noise between the two colours.
        patches: (n, 4) discs and rectangles: place along both axes, half width, half height (0: a disc), metres.
        patch_colours: (n, 3).
    """

    colours: Colours
    noise: Colours
    pattern: int
    period: float
    contrast: tuple[float, float]
    patches: Array
    patch_colours: Array


def sample_texture(rng: np.random.Generator, patches: int) -> Texture:
    """A random texture with so many patches."""
    places = rng.uniform((-2.5, -2.5, 0.08, 0.08), (2.5, 1.2, 0.6, 0.9), (patches, 4))
    places[rng.random(patches) < 0.4, 3] = 0
    colours = random_colours(rng, patches)
    colours[rng.random(patches) < 0.25] = skin_colour(rng)
    return Texture(
        colours=random_colours(rng, 2).astype(np.float32),
        noise=rng.random((32, 32), dtype=np.float32),
        pattern=int(rng.integers(0, 5)),
        period=float(np.exp(rng.uniform(np.log(0.15), np.log(2.0)))),
        contrast=(float(rng.uniform(0, 0.35)), float(rng.uniform(0.05, 0.45))),
        patches=places,
        patch_colours=colours,
    )


def paint_plane(texture: Texture, places: Colours) -> Colours:
    """Unlit colours (3, n) at places (2, n) of the plane, metres."""
    wave = np.sin(places * np.float32(2 * np.pi / texture.period))
    strong, rough = texture.contrast
    mix = (_smooth(texture.noise, places / texture.period) - 0.5) * rough + 0.5
    mix += (_smooth(texture.noise, places * (5.3 / texture.period)) - 0.5) * (0.5 * rough)
    if texture.pattern == STRIPES:
        mix += strong * ((wave[0] > 0) - np.float32(0.5))
    elif texture.pattern == RINGS:
        mix += strong * wave[1] * np.float32(0.5)
    elif texture.pattern in (CHECKER, DOTS):
        mix += strong * ((wave[0] * wave[1] > (0.4 if texture.pattern == DOTS else 0)) - np.float32(0.5))
    np.clip(mix, 0, 1, out=mix)
    colour = texture.colours[0][:, None] + (texture.colours[1] - texture.colours[0])[:, None] * mix
    for (x, y, width, height), shade in zip(texture.patches.tolist(), texture.patch_colours, strict=True):
        dx, dy = places[0] - x, places[1] - y
        inside = (np.abs(dx) < width) & (np.abs(dy) < height) if height else dx * dx + dy * dy < width * width
        colour[:, inside] = shade[:, None]
    return colour


def _smooth(grid: Colours, places: Colours) -> Colours:
    """Bilinear interpolation (n,) of a periodic square grid, its side a power of two, at places (2, n)."""
    side = len(grid)
    cell = np.floor(places)
    x, y = places - cell
    i, j = cell.astype(np.int32) & (side - 1)
    here, next_row = i * side, ((i + 1) & (side - 1)) * side
    after = (j + 1) & (side - 1)
    flat = grid.ravel()
    low = flat[here + j] * (1 - x) + flat[next_row + j] * x
    high = flat[here + after] * (1 - x) + flat[next_row + after] * x
    return low * (1 - y) + high * y
