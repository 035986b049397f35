"""Items that another thread makes before they are asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def made_ahead(items: Iterator[T], count: int) -> Generator[T]:
    """The items in their order; one other thread makes them, up to `count` of them before they are asked for.

    An error comes where its item would have come. When this iterator is closed, the thread ends after the item that it is at.

    Args:
        items: is advanced in one thread at a time.
        count: 0 makes each item here, when it is asked for.
    """
    if not count:
        yield from items
        return
    end: Any = object()
    thread = ThreadPoolExecutor(1)
    try:
        coming = deque(thread.submit(next, items, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, items, end))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
