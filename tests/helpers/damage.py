"""Documents with something wrong in them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

_JUNK: list[Any] = [None, -1, 0, 3.5, "x", "", [], {}, [1], {"a": 1}, float("nan"), True, 10**12, [None]]


def damaged(document: Any, seed: int) -> Any:
    """A copy in which one to three values, anywhere, are missing or something else."""
    chance, result = random.Random(seed), copy.deepcopy(document)
    for _ in range(chance.randint(1, 3)):
        *path, last = chance.choice([path for path in _paths(result) if path])
        place = result
        for key in path:
            place = place[key]
        if chance.random() < 0.3:
            del place[last]
        else:
            place[last] = copy.deepcopy(chance.choice(_JUNK))
    return result


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))
