"""Colours of the synthetic scenes: clothes, skin and hair, patterns, textured planes and light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpgmt.synthetic.body import MATERIALS, pick
from rpgmt.synthetic.raycast import CONE, Array, Index, Shapes

Colours = NDArray[np.float32]  # colours take single precision; geometry is in double

PLAIN, STRIPES, RINGS, CHECKER, DOTS = range(5)

_SKIN = np.array([(0.24, 0.14, 0.09), (0.44, 0.27, 0.17), (0.66, 0.45, 0.31), (0.82, 0.62, 0.47), (0.95, 0.79, 0.68)])
_HAIR = np.array([(0.05, 0.04, 0.04), (0.16, 0.10, 0.06), (0.36, 0.21, 0.10), (0.78, 0.62, 0.34), (0.66, 0.66, 0.66)])


class Paint(NamedTuple):
    """M paints.

    Args:
        colours: (M, 3, 3) main colour, second colour of the pattern, and bare colour; RGB in 0…1.
        pattern: (M,) PLAIN, STRIPES (around the local x axis' place), RINGS (along local y), CHECKER or DOTS.
        period: (M,) of the pattern, metres.
        cover: (M,) share of a cone's length, from its start, that is painted; the rest is bare (a sleeve's end).
    """

    colours: Array
    pattern: Index
    period: Array
    cover: Array


def join_paints(paints: list[Paint]) -> Paint:
    """All paints of several tables, in order."""
    return Paint(*(np.concatenate(fields) for fields in zip(*paints, strict=True)))


def _hsv(hue: Array, saturation: Array, value: Array) -> Array:
    """RGB (…, 3) of hue, saturation and value, all in 0…1."""
    k = (np.array([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    return value[..., None] * (1 - saturation[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def random_colours(rng: np.random.Generator, count: int) -> Array:
    """RGB colours (count, 3), grey to vivid and dark to bright."""
    hue, saturation, value = rng.random((3, count))
    return _hsv(hue, saturation**1.3 * 0.9, 0.12 + 0.85 * value)


def _along(ramp: Array, place: float) -> Array:
    """The colour at 0…1 of a ramp of colours."""
    i = min(int(place * (len(ramp) - 1)), len(ramp) - 2)
    share = place * (len(ramp) - 1) - i
    return ramp[i] * (1 - share) + ramp[i + 1] * share


def skin_colour(rng: np.random.Generator) -> Array:
    """A skin tone (3,)."""
    return np.clip(_along(_SKIN, rng.random()) * rng.uniform(0.92, 1.08, 3), 0, 1)


def sample_outfit(rng: np.random.Generator) -> Paint:
    """Paints of one person, one for each of MATERIALS."""
    skin = skin_colour(rng)
    cloth = random_colours(rng, 6)  # shirt, trousers, shoes, and the second colours of shirt and trousers; hat
    if rng.random() < 0.12:
        cloth[1] = cloth[0]
    hair = cloth[5] if rng.random() < 0.12 else _along(_HAIR, rng.random())
    shirt_pattern = pick(rng, (0.5, 0.1, 0.2, 0.1, 0.1))
    trousers_pattern = pick(rng, (0.8, 0.06, 0.06, 0.06, 0.02))
    sleeve, leg = rng.random(2) * (2.2, 2.6)  # 0…1 the upper part only, 1…2 the lower too, above: all
    upper, lower = min(sleeve + 0.15, 1.1), max(sleeve - 1, 0.0)
    thigh, shin = min(leg + 0.3, 1.1), max(leg - 1, 0.0)
    eye = np.array((0.07, 0.06, 0.06)) * rng.uniform(0.5, 2.5)
    lips = np.clip(skin * (0.95, 0.62, 0.62), 0, 1)
    table = {  # main colour, second colour, pattern, cover
        "skin": (skin, skin, PLAIN, 2.0),
        "hair": (hair, hair, PLAIN, 2.0),
        "eye": (eye, eye, PLAIN, 2.0),
        "lips": (lips, lips, PLAIN, 2.0),
        "shirt": (cloth[0], cloth[3], shirt_pattern, 2.0),
        "upper_sleeve": (cloth[0], cloth[3], shirt_pattern, upper),
        "lower_sleeve": (cloth[0], cloth[3], shirt_pattern, lower if lower < 0.9 else 2.0),
        "trousers": (cloth[1], cloth[4], trousers_pattern, 2.0),
        "thigh": (cloth[1], cloth[4], trousers_pattern, thigh),
        "shin": (cloth[1], cloth[4], trousers_pattern, shin if shin < 0.9 else 2.0),
        "shoe": (cloth[2], cloth[2], PLAIN, 2.0),
    }
    main, second, pattern, cover = zip(*(table[name] for name in MATERIALS), strict=True)
    return Paint(
        np.stack((np.array(main), np.array(second), np.broadcast_to(skin, (len(MATERIALS), 3))), axis=1),
        np.array(pattern),
        np.full(len(MATERIALS), rng.uniform(0.05, 0.18)),
        np.array(cover),
    )


def sample_paint(rng: np.random.Generator) -> Paint:
    """One paint for an object; every fifth has a colour of skin."""
    colours = random_colours(rng, 3)
    if rng.random() < 0.2:
        colours[0] = skin_colour(rng)
    return Paint(colours[None], rng.integers(0, 5, 1), rng.uniform(0.06, 0.4, 1), np.full(1, 2.0))


def paint_shapes(paint: Paint, rows: Index, shapes: Shapes, index: Index, local: Array) -> Array:
    """Unlit colours (n, 3) of surface points, given in the frames of their shapes.

    Args:
        rows: (S,) which paint each shape has.
        index: (n,) the shape of each point.
        local: (n, 3) the points, metres.
    """
    row = rows[index]
    wave = np.sin(local * (2 * np.pi / paint.period[row])[:, None])
    pattern = paint.pattern[row]
    second = (pattern == STRIPES) & (wave[:, 0] > 0)
    second |= (pattern == RINGS) & (wave[:, 1] > 0)
    second |= (pattern == CHECKER) & (wave[:, 0] * wave[:, 1] > 0)
    second |= (pattern == DOTS) & (wave[:, 0] * wave[:, 1] > 0.55)
    bare = (shapes.kind[index] == CONE) & (local[:, 1] > paint.cover[row] * shapes.size[index, 2])
    return paint.colours[row, np.where(bare, 2, second)]


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
