"""Items made by another thread: their order, how far ahead it goes, errors and the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from rpgmt.prediction.ahead import made_ahead


def counted(made: list[int], end: int) -> Iterator[int]:
    for number in range(end):
        made.append(number)
        yield number


@pytest.mark.parametrize("ahead", [0, 1, 3, 50])
def test_the_items_come_in_their_order(ahead: int) -> None:
    assert list(made_ahead(counted([], 20), ahead)) == list(range(20))
    assert list(made_ahead(counted([], 0), ahead)) == []


def test_so_many_are_made_before_they_are_asked_for() -> None:
    made: list[int] = []
    items = made_ahead(counted(made, 100), 3)
    assert next(items) == 0
    until = time.monotonic() + 20
    while len(made) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2, 3]
    items.close()
    made.clear()
    assert next(made_ahead(counted(made, 100), 0)) == 0
    assert made == [0]


def test_an_error_comes_in_its_place() -> None:
    def some() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("broken")

    items = made_ahead(some(), 5)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="broken"):
        next(items)


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    items = made_ahead(counted([], 100), 5)
    next(items)
    assert threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before
