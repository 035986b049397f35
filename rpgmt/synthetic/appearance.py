"""What shapes are painted with: clothes, skin and hair of people, patterns of objects."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rpgmt.synthetic.body import MATERIALS
from rpgmt.synthetic.colours import CHECKER, DOTS, PLAIN, RINGS, STRIPES, along, random_colours, skin_colour
from rpgmt.synthetic.poses import pick
from rpgmt.synthetic.shapes import CONE, Array, Index, Shapes

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


def sample_outfit(rng: np.random.Generator) -> Paint:
    """Paints of one person, one for each of MATERIALS."""
    skin = skin_colour(rng)
    cloth = random_colours(rng, 6)  # shirt, trousers, shoes, and the second colours of shirt and trousers; hat
    if rng.random() < 0.12:
        cloth[1] = cloth[0]
    hair = cloth[5] if rng.random() < 0.12 else along(_HAIR, rng.random())
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
