"""Functions run in fresh processes: all results, or one line about the first that failed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from rpgmt.errors import UserError


def run_all(
    function: Callable[..., Any], arguments: Sequence[Sequence[Any]], environment: Mapping[str, str] | None = None
) -> list[Any]:
    """Calls `function` with each of `arguments` at once, each in a process of its own that has imported nothing before.

    Args:
        function: Of a module's top level; what it returns can be pickled.
        arguments: Positional arguments, which can be pickled, for each process.
        environment: Variables of the processes beside those of this one.

    Raises:
        UserError: A call raised, or its process died; the others are ended then.
    """
    context = multiprocessing.get_context("spawn")
    results: dict[int, Any] = {}
    processes: list[SpawnProcess] = []
    places: dict[Connection, int] = {}
    try:
        with _environment(environment or {}):
            for place, values in enumerate(arguments):
                receiver, sender = context.Pipe(duplex=False)
                processes.append(context.Process(target=_call, args=(sender, function, tuple(values)), daemon=True))
                processes[-1].start()
                sender.close()  # so that a process that dies closes its pipe
                places[receiver] = place
        while places:
            for ready in wait(list(places)):
                receiver = cast("Connection", ready)
                place = places.pop(receiver)
                results[place] = _receive(receiver, processes[place])
    finally:
        for process in processes:
            if len(results) < len(processes):
                process.kill()
            process.join()
    return [results[place] for place in range(len(arguments))]


def _receive(receiver: Connection, process: SpawnProcess) -> Any:
    try:
        error, result = receiver.recv()
    except EOFError:
        process.join()
        raise UserError(f"a process of the benchmark died with status {process.exitcode}; is there enough memory?") from None
    if error is not None:
        raise UserError(error)
    return result


def _call(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the new process: the call, and (what went wrong, its result) to the one that waits."""
    answer: tuple[str | None, Any]
    try:
        answer = (None, function(*arguments))
    except UserError as error:
        answer = (str(error), None)
    except Exception as error:
        answer = (f"a process of the benchmark failed: {type(error).__name__}: {' '.join(str(error).split())}", None)
    sender.send(answer)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
