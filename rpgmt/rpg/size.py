"""The size of the banks as people write it (``1M``, ``250K``, ``36864``, ``25%``), and how banks share it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction

LIMIT = 2**31  # placement is 32-bit integer arithmetic

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_FORM = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?) ?([KMG%]?)", re.IGNORECASE)
_EXAMPLES = "e.g. 1M, 250K, 36864 or 25%"


def parse_size(text: str | int, generated: int | None = None, *, name: str = "size") -> int:
    """Return the number of parameters that ``text`` means.

    Args:
        text: a whole number, a number with K (thousand), M (million) or G (billion), or a percentage of ``generated``.
        generated: the number of generated weights; only a percentage needs it. A percentage is rounded to the nearest
            whole number (halves up) and gives at least 1. More than 100% is legal.
        name: what errors call the value.

    Returns:
        N with 1 <= N < 2**31.

    Raises:
        ValueError: ``text`` is no size, is below 1 or 2**31 and more, or is a percentage while ``generated`` is None.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError(f"`{name}` is {text!r}: give a size, {_EXAMPLES}")
    match = _FORM.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"`{name}` is {text!r}: not a size, {_EXAMPLES}")
    number, unit = Fraction(match[1]), match[2].upper()  # exact: 1.1M is 1,100,000, not 1,100,000.0000000001
    if number <= 0:
        raise ValueError(f"`{name}` is {text}: give at least 1, e.g. 250K")
    if unit == "%":
        if generated is None:
            raise ValueError(f"`{name}` is {text}: a percentage needs the number of generated weights, give e.g. 250K")
        size = max(1, math.floor(number * generated / 100 + Fraction(1, 2)))
    else:
        exact = number * _UNITS[unit]
        if exact.denominator != 1:
            raise ValueError(f"`{name}` is {text}: not a whole number of parameters, give e.g. 250K")
        size = int(exact)
    if size >= LIMIT:
        raise ValueError(f"`{name}` is {text}: must be below 2**31 = {LIMIT}")
    return size


def split(total: int, shares: Sequence[int]) -> list[int]:
    """Cuts `total` into whole parts in proportion to `shares`: largest remainder, at least 1 each.

    Raises:
        ValueError: There are more parts than units.
    """
    if total < len(shares):
        raise ValueError(f"`size` is {total}: {len(shares)} banks need at least 1 parameter each")
    whole = sum(shares)
    parts = [max(1, total * share // whole) for share in shares]
    # The units that rounding left over go where most was cut off; parts lifted to 1 may have taken too many.
    by_remainder = sorted(range(len(shares)), key=lambda i: -(total * shares[i] % whole))
    for i in by_remainder[: max(0, total - sum(parts))]:
        parts[i] += 1
    while sum(parts) > total:
        parts[parts.index(max(parts))] -= 1
    return parts
