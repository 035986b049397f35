"""What the names of key points tell: side and part, mirror images, the upper body."""

from __future__ import annotations

import re
from collections import defaultdict

# Words of snake_case, camelCase and spaced names; "LShoulder" is L, Shoulder.
_WORDS = re.compile(r"[A-Z](?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_GLUED = re.compile(r"(left|right)(.*)|(.*?)(left|right)")


def name_words(name: str) -> list[str]:
    """The words of a name in snake_case, camelCase or with spaces, in lower case."""
    return [word.lower() for word in _WORDS.findall(name)]


def side_and_part(name: str) -> tuple[str, str]:
    """A name's side ("left", "right" or "") and the rest, in lower case without separators.

    `left_wrist`, `Left Wrist`, `l_wrist`, `wrist-L` and `LWrist` are all ("left", "wrist"). The letters l and r count as
    sides at either end of the name only, and a name with two sides has none.
    """
    words = name_words(name)
    sides, rest = [], []
    for place, word in enumerate(words):
        glued = _GLUED.fullmatch(word)
        if glued:
            sides.append(glued[1] or glued[4])
            rest.append(glued[2] or glued[3] or "")
        elif word in ("l", "r") and place in (0, len(words) - 1):
            sides.append("left" if word == "l" else "right")
        else:
            rest.append(word)
    return (sides[0], "".join(rest)) if len(sides) == 1 else ("", "".join(words))


def infer_flip_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Pairs of points whose names differ only in their side, e.g. left_eye and right_eye, or LEye and REye.

    A part with two points of one side has no pair: which is the mirror image of which could only be guessed.
    """
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: {"left": [], "right": [], "": []})
    for index, name in enumerate(names):
        side, part = side_and_part(name)
        found[part][side].append(index)
    both = (sides for sides in found.values() if len(sides["left"]) == len(sides["right"]) == 1)
    return tuple(sorted(((sides["left"][0], sides["right"][0]) for sides in both), key=lambda pair: pair[1]))


_UPPER = {"nose", "eye", "ear", "head", "headtop", "topofhead", "tophead", "neck", "upperneck", "thorax"}
_UPPER |= {"shoulder", "elbow", "wrist", "hand"}


def upper_body(names: tuple[str, ...]) -> tuple[int, ...]:
    """Indices of the points above the hips; empty where the names are not a person's, with shoulders and hips."""
    parts = [side_and_part(name)[1] for name in names]
    if not {"shoulder", "hip"} <= set(parts):
        return ()
    return tuple(index for index, part in enumerate(parts) if part in _UPPER)
