"""Documents as other programs write them, made plain: whole numbers that were written as floats, entries that stand twice."""

from __future__ import annotations

import warnings
from typing import Any

_WHOLE = {
    "images": ("id", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "iscrowd"),
    "categories": ("id",),
}
"""What of an entry is a whole number; pandas writes 7.0 where a column has a gap."""


def tidy(document: Any, name: str = "annotations") -> Any:
    """The document with 7.0 as 7 where a number is whole, and with each entry once; a warning tells how many stood twice.

    Entries stand twice where all of them is the same. What is wrong stays, for the checks that follow; so does a document
    that is plain: it is the same object.

    Args:
        document: parsed, whatever it is; left as it is.
        name: of it, for messages.
    """
    if not isinstance(document, dict):
        return document
    changed = {}
    for key, fields in _WHOLE.items():
        entries = document.get(key)
        if isinstance(entries, list):
            whole = _whole(entries, fields)
            once = _once(whole)
            if twice := len(whole) - len(once):
                warnings.warn(f"{name}: {twice} of {len(whole)} entries of `{key}` stand twice and count once", stacklevel=3)
            if once is not entries:
                changed[key] = once
    return {**document, **changed} if changed else document


def _whole(entries: list[Any], fields: tuple[str, ...]) -> list[Any]:
    """Entries with whole numbers as integers; the same list where they are."""
    kinds = {type(entry.get(field)) for entry in entries if isinstance(entry, dict) for field in fields}
    return [_with_whole_numbers(entry, fields) for entry in entries] if kinds & {float, bool} else entries


def _with_whole_numbers(entry: Any, fields: tuple[str, ...]) -> Any:
    if not isinstance(entry, dict):
        return entry
    # Up to 2⁵³ a float holds every whole number. A flag may be true or false.
    whole = {
        key: int(value)
        for key in fields
        if (isinstance(value := entry.get(key), float) and value.is_integer() and abs(value) <= 2**53)
        or (key == "iscrowd" and isinstance(value, bool))
    }
    return {**entry, **whole} if whole else entry


def _once(entries: list[Any]) -> list[Any]:
    """Without those that have an `id` that was there before and are the same; the same list where there are none."""
    numbers = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
    if {int, str}.issuperset(map(type, numbers)) and len(set(numbers)) == len(numbers):
        return entries
    first: dict[Any, Any] = {}
    kept = []
    for number, entry in zip(numbers, entries, strict=True):
        known = isinstance(number, int | str) and number in first
        if isinstance(number, int | str):
            first.setdefault(number, entry)
        if not known or entry != first[number]:
            kept.append(entry)
    return kept if len(kept) < len(entries) else entries
