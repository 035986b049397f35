"""JSON from outside, read within bounds: the one reader of annotation files, results, headers and a run's records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rpgmt.config.text_files import read_text
from rpgmt.errors import UserError

DEEPEST = 64
"""Lists and objects within one another. Formats in use have fewer than ten; Python copies and prints some hundred."""


def read_json(path: Path) -> Any:
    """Parse an annotation file.

    Raises:
        UserError: the file is missing, empty, not text, or as `parse_json`.
    """
    if not path.exists():
        raise UserError(f"{path}: no such annotation file")
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{path}: the annotation file is empty: give a COCO key-point document")
    return parse_json(text, str(path))


def parse_json(text: str, source: str) -> Any:
    """Parse JSON.

    NaN and Infinity, which are not JSON but which Python's programs write, are read: where a number is needed, they are none.

    Args:
        text: what is parsed.
        source: where it comes from, for messages.

    Raises:
        UserError: it is not JSON, a key stands twice in an object, lists and objects are more than `DEEPEST` deep, a number has
            more digits than Python reads, or text holds half of a surrogate pair.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except _TwiceError as error:
        raise UserError(f"{source}: the key {str(error)!r} stands twice in an object: keep one of them") from None
    except RecursionError:
        raise UserError(f"{source}: {_DEEP}") from None
    except ValueError as error:  # json.JSONDecodeError, and that of thousands of digits
        reason = str(error).partition(": value has")[0] if "int_max_str_digits" in str(error) else str(error)
        raise UserError(f"{source}: not JSON: {reason}") from None
    if _is_deeper(value, DEEPEST):
        raise UserError(f"{source}: {_DEEP}")
    # Only an escape can make half of a pair, and two halves, as of most emoji, are one character.
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{source}: not text: {error.object[error.start]!r} is half of a character") from None
    return value


_DEEP = f"lists and objects lie more than {DEEPEST} deep in one another, as in no format that is read here"


class _TwiceError(Exception):
    """A key stands twice in an object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for key in keys if keys.count(key) > 1))
    return found


def _is_deeper(value: Any, most: int) -> bool:
    """Whether lists and objects lie more than `most` deep, level by level: calls for each of millions would take long."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (list, dict))
        ]
        if not level:
            return False
    return True
