"""What a tool sets for its whole process: how threads wait, how memory is kept, how a warning looks (docs/command-line.md)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rpgmt.errors import one_line

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of two settings in GNU's `malloc.h`."""
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 65536
"""Their values in a new process; `mallopt` sets them and cannot be asked for them."""


@contextmanager
def process_settings(prog: str) -> Iterator[None]:
    """Holds a tool's settings of the process while it runs, and takes them back afterwards.

    Two things stay for a caller that goes on, and change no result: an OpenMP library that was loaded meanwhile waits as it was
    told, and the C library no longer adapts its thresholds to what is freed.

    Args:
        prog: the name of the program, with which the line of a warning begins.
    """
    with _threads_that_sleep_soon(), _freed_memory_kept(), _warnings_as_notes(prog):
        yield


@contextmanager
def _threads_that_sleep_soon() -> Iterator[None]:
    """Sets how often GNU's OpenMP threads look for work before they sleep, unless the environment says how they wait.

    Its 300,000 times keep cores from other programs; threads that sleep at once are woken hundreds of times in a training step.
    It reads this when torch is loaded.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


@contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Tells the C library to keep freed memory for the next step's tensors, unless the environment sets it up.

    GNU's gives blocks over 32 MiB, and what is free at the end of the heap, back to the system, which clears every page before
    it hands it out again: for large tensors that takes longer than what is done with them.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        yield
        return
    _set_malloc(trim_threshold=-1, mmap_max=0)
    try:
        yield
    finally:
        _set_malloc(trim_threshold=DEFAULT_TRIM_THRESHOLD, mmap_max=DEFAULT_MMAP_MAX)


def _set_malloc(*, trim_threshold: int, mmap_max: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no mallopt
        c_library = ctypes.CDLL(None)
        c_library.mallopt(M_MMAP_MAX, mmap_max)
        c_library.mallopt(M_TRIM_THRESHOLD, trim_threshold)


@contextmanager
def _warnings_as_notes(prog: str) -> Iterator[None]:
    """Makes each warning one line, without the place in the source. Of a run's processes only the first gives notes."""
    written = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *_: f"{prog}: {_kind(category)}: {one_line(str(message))}\n"
    try:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            yield
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                yield
    finally:
        warnings.formatwarning = written


def _kind(category: type[Warning]) -> str:
    return "note" if category is UserWarning else category.__name__
