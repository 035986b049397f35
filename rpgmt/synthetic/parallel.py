"""Many scenes, drawn by several processes: the same as by one."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from rpgmt.errors import UserError
from rpgmt.process import end_with_parent
from rpgmt.synthetic.render import Scene, render

_STARTS = {"train": 0, "val": 1_000_000}
_CHUNK = 16


def split_start(split: str, count: int) -> int:
    """Index of the split's first scene: the splits are far-apart ranges of one seed's scenes.

    Raises:
        ValueError: no such split, or so many scenes would reach into the next one.
    """
    if split not in _STARTS:
        raise ValueError(f"`split` is {split!r}: give one of {', '.join(_STARTS)}")
    if not 1 <= count <= _STARTS["val"]:
        raise ValueError(f"`count` is {count}: give 1 to {_STARTS['val']} scenes")
    return _STARTS[split]


def render_many(
    seed: int, start: int, count: int, size: int = 96, *, processes: int | None = None, progress: str | None = None
) -> Iterator[Scene]:
    """Scenes ``start`` … ``start + count - 1`` of ``seed``, in order; the same from any number of processes.

    Args:
        seed, size: as of ``render``.
        start: index of the first scene.
        count: how many.
        processes: how many to use; default: all cores, one for few scenes. More than one start as new interpreters, so
            that a script that calls this needs ``if __name__ == "__main__":``.
        progress: a title shows a progress bar with rate and time left on standard error.
    """
    if processes is None:
        processes = _default_processes(count)
    scenes = _in_order(seed, start, count, size, processes)
    return scenes if progress is None else _with_bar(scenes, count, progress)


def _default_processes(count: int) -> int:
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script and not os.path.exists(script):  # `python < script`: a new interpreter cannot import it
        return 1
    return min(os.cpu_count() or 1, -(-count // (4 * _CHUNK)))


def _in_order(seed: int, start: int, count: int, size: int, processes: int) -> Iterator[Scene]:
    if processes <= 1:
        yield from (render(seed, index, size) for index in range(start, start + count))
        return
    chunks = ((seed, first, min(_CHUNK, start + count - first), size) for first in range(start, start + count, _CHUNK))
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        waiting: deque[Future[list[Scene]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_render_chunk, *chunk))
            if len(waiting) > 3 * processes:  # never hold many finished scenes
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that draws people was killed, perhaps for lack of memory: try again, or, in a script of your own, put "
            "its main part under `if __name__ == '__main__':`, or give `processes=1`"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _render_chunk(seed: int, start: int, count: int, size: int) -> list[Scene]:
    return [render(seed, index, size) for index in range(start, start + count)]


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    end_with_parent()


def _with_bar(scenes: Iterator[Scene], count: int, title: str) -> Iterator[Scene]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.0f} images/s")

    rate = Rate(table_column=Column(no_wrap=True))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, Remaining())
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(title, total=count)
        for scene in scenes:
            yield scene
            bar.advance(task)
