"""Checks of image files: each is read whole, by the reader that training uses."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rpgmt.data.check.findings import Findings
from rpgmt.data.image_headers import read_file, stored_header
from rpgmt.errors import UserError

Case = tuple[bool, str, str]
"""Whether it is refused, what it is, an example."""
Digests = dict[bytes, Path]


def check_images(
    files: Sequence[tuple[Path, Callable[[], Any]]], findings: Findings, title: str, *, progress: bool = True
) -> Digests:
    """Reads every image; returns the digests of those that are there.

    Args:
        files: of each image the file, and what reads it as training does.
        findings: gets what is wrong.
        title: of the progress bar.
        progress: shows it, where a person looks on.
    """
    digests: Digests = {}
    with _silent() as terminal, _threads() as pool:
        results = pool.map(lambda file: _look(*file), files)
        for (path, _), (digest, cases) in zip(files, tracked(results, len(files), title, terminal, progress), strict=True):
            for refused, what, example in cases:
                (findings.refuse if refused else findings.note)(what, example)
            if digest is None:
                continue
            first = digests.setdefault(digest, path)
            if first != path:
                findings.note("images that occur twice in a split", f"{first} and {path}")
    return digests


def compare_splits(digests: dict[str, Digests], findings: Findings) -> None:
    """Notes of images that are trained on and validated on."""
    first, *others = digests
    for other in others:
        for digest in digests[first].keys() & digests[other].keys():
            example = f"{digests[first][digest]} and {digests[other][digest]}"
            findings.note(f"images that are in {first} and in {other}", example)


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """A pool that an exception, Ctrl-C above all, does not have to wait for."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _look(path: Path, read: Callable[[], Any]) -> tuple[bytes | None, list[Case]]:
    try:
        data = read_file(path)
    except UserError as error:
        return None, [(True, "images that are missing or cannot be read", str(error))]
    cases: list[Case] = []
    short = "image files that end too early" if _cut_short(data) else ""
    try:
        read()
    except UserError as error:
        size = "images of another size than their entry" if "annotations are for" in str(error) else ""
        cases.append((True, short or size or "images that cannot be decoded", str(error)))
    else:
        cases += [(False, what, str(path)) for what in (*([short] if short else []), *_peculiarities(data))]
    return hashlib.blake2b(data, digest_size=16).digest(), cases


def _cut_short(data: bytes) -> bool:
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-4096:]  # some programs write a little after the end
    return data.startswith(b"\x89PNG") and b"IEND" not in data[-4096:]


def _peculiarities(data: bytes) -> Iterator[str]:
    if data.startswith(b"\x89PNG") and len(data) > 25:
        if data[24] == 16:
            yield "images of 16 bits (training sees the upper 8)"
        if data[25] in (4, 6):
            yield "images with transparency (training does not see it)"
    header = stored_header(io.BytesIO(data))
    if header is not None and header.orientation != 1:
        yield "images that their camera says to turn (they are, unless only the size as stored is that of their entry)"


@contextmanager
def _silent() -> Iterator[IO[str]]:
    """Keeps image libraries from writing to standard error; gives what still reaches it."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except OSError:  # there is none
        yield sys.stderr
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        with os.fdopen(os.dup(kept), "w") as terminal:
            yield terminal
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def tracked(items: Iterable[Any], count: int, title: str, terminal: IO[str], shown: bool) -> Iterator[Any]:
    """The items, with a bar of progress, rate and time left on a terminal."""
    if not shown or not terminal.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.0f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=terminal), transient=True) as bar:
        number = bar.add_task(title, total=count)
        for item in items:
            yield item
            bar.advance(number)
