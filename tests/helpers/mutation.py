"""Sound inputs with something changed in them, drawn by hypothesis: bytes, words of a text, values of a document."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 64.0, 3.5, -0.0, 1e-320, 1e18, 10**12, 2**63, -(2**64), 10**400, 9**999),
    *(float("nan"), float("inf"), -float("inf"), [], {}, [1], [None], {"a": 1}, [[[]]], [1, 2, 3, 4], [0, 0, 1e9, 1e9]),
    *("", "x", "1", "nan", "\u0661", "a\0b", "\ud800", "a\nb", "x" * 5000, "<script>alert(1)</script>", "{split}"),
    *("../../secret.png", "/etc/passwd", "a/../../secret.png", "no such.png", "C:\\x.png", ".", "..", "/"),
]
"""What stands in place of a value of a document."""

WORDS = [
    *("", "0", "-1", "1e999", "9" * 5000, "1000000000", "4000000", "nan", "null", "true", "~", "x", "x" * 5000, "\0", "\ud800"),
    *("&a [*a]", "!!int abc", "!!python/object/apply:os.system [id]", "[" * 300, "{" * 300, "]", "}", ":", "-", '"', "'", "<<"),
    *("../secret", "/etc/passwd", "..", "{split}", ",", "\t", "\r", "\ufeff", "<!DOCTYPE x>", "&lt;", "</image>", "<x>"),
]
"""What stands in place of a word of a text."""


_COUNTS = st.sampled_from([1, 1, 1, 2, 3])
"""Of changes: one alone passes the first checks."""
_LENGTHS = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0", b"\x7f\xff\xff\xff"]


@st.composite
def bytes_of(draw: st.DrawFn, sound: bytes) -> bytes:
    """The bytes of a file with one to three places changed: bits, bytes, pieces cut out, repeated or put in, the end gone."""
    data = bytearray(sound)
    for _ in range(draw(_COUNTS)):
        # Beginnings hold most of what a file says of itself.
        place = draw(st.one_of(st.integers(0, min(len(data), 200)), st.integers(0, max(0, len(data) - 1))))
        length = draw(st.sampled_from([1, 2, 4, 8, 100]))
        match draw(st.sampled_from(["bit", "byte", "number", "cut", "repeat", "insert", "end"])):
            case "bit" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "byte" if place < len(data):
                data[place] = draw(st.sampled_from([0, 1, 32, 48, 57, 127, 128, 255]))
            case "number":
                data[place : place + 4] = draw(
                    st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1\0\0"])
                )
            case "cut":
                del data[place : place + length]
            case "repeat":
                data[place:place] = data[place : place + length] * draw(st.sampled_from([1, 3, 100]))
            case "insert":
                data[place:place] = draw(st.binary(min_size=1, max_size=8))
            case "end":
                del data[place:]
    return bytes(data)


@st.composite
def text_of(draw: st.DrawFn, sound: bytes) -> bytes:
    """A text with one to three words, or what is between them, replaced, taken away or doubled; or its bytes changed."""
    if draw(st.integers(0, 4)) == 0:
        return draw(bytes_of(sound))
    parts = re.findall(r"\w+|[^\w]", sound.decode())
    for _ in range(draw(_COUNTS)):
        place = draw(st.integers(0, len(parts) - 1))
        match draw(st.sampled_from(["replace", "remove", "double", "swap"])):
            case "replace":
                parts[place] = draw(st.sampled_from(WORDS))
            case "remove":
                parts[place] = ""
            case "double":
                parts[place] *= 2
            case "swap":
                other = draw(st.integers(0, len(parts) - 1))
                parts[place], parts[other] = parts[other], parts[place]
    return "".join(parts).encode(errors="surrogatepass")


@st.composite
def json_of(draw: st.DrawFn, sound: bytes) -> bytes:
    """A document with one to three values missing, replaced, moved or doubled; or its text changed."""
    if draw(st.integers(0, 4)) == 0:
        return draw(text_of(sound))
    return json.dumps(draw(document_of(json.loads(sound)))).encode()


@st.composite
def document_of(draw: st.DrawFn, sound: Any) -> Any:
    document = copy.deepcopy(sound)
    for _ in range(draw(_COUNTS)):
        paths = [path for path in _paths(document) if path]
        if not paths:
            break
        depth = draw(st.integers(1, max(map(len, paths))))  # else nearly all changes were to the many numbers
        *path, last = draw(st.sampled_from([path for path in paths if len(path) == depth] or paths))
        place = document
        for key in path:
            place = place[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "double", "move", "nest", "scale", "scale"])):
            case "replace":
                place[last] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            case "remove":
                del place[last]
            case "double" if isinstance(place, list):
                place.insert(last, copy.deepcopy(place[last]))
            case "move":
                other = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
                place[last] = copy.deepcopy(place[other])
            case "scale" if type(place[last]) in (int, float):
                place[last] *= draw(st.sampled_from([-1, 0.5, 2, 100, 1e6, 1e300]))
            case "nest":
                for _ in range(draw(st.sampled_from([1, 30, 100]))):
                    place[last] = [place[last]]
    return document


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))
