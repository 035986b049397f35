"""Shared fixtures of the tests."""

from __future__ import annotations

import csv
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Any

import pytest

# Before anything imports Triton, which decides then whether its kernels are compiled or interpreted on the CPU.
if os.environ.get("RPGMT_TEST_DEVICE") != "cuda":
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Several processes test at once, each with the cores that the others leave; those that tests start inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """Gives Python a folder of pytest's cache for bytecode, where it may write none beside the sources and torch has none.

    Each process, those that tests start included, would otherwise compile all that it imports, which takes as long again.
    """
    torch, cache = find_spec("torch"), getattr(config, "cache", None)
    if not sys.dont_write_bytecode or cache is None or not torch or not torch.origin:
        return
    if not Path(cache_from_source(torch.origin)).exists():
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(cache.mkdir("bytecode"))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that want it are skipped where it is missing."""
    return _folder("data", "real data")


@pytest.fixture(scope="session")
def shared_fixtures() -> Path:
    """The folder of published numbers beside the checkout; tests that want it are skipped where it is missing."""
    return _folder("fixtures", "published numbers")


def _folder(name: str, what: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"no {what}: {folder} is missing")
    return folder


@pytest.fixture(autouse=True)
def draw_each_kind_of_curves_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in this process draw `curves.png` of a table that is like one of before, and only once.

    Four fifths of a small training's time would be matplotlib's, for the same picture hundreds of times.
    """
    drawing = sys.modules.get("rpgmt.engine.drawing")
    if drawing is not None:
        monkeypatch.setattr(drawing, "plot_curves", functools.partial(_draw_once, drawing.plot_curves))


_drawn: dict[frozenset[str], Any] = {}
"""Pictures by the columns that hold values."""


def _draw_once(plot_curves: Callable[[Path, Path], None], metrics_csv: Path, path: Path) -> None:
    import cv2

    from rpgmt.visualize import save_png

    with metrics_csv.open(newline="", encoding="utf-8") as file:
        columns = frozenset(column for row in csv.DictReader(file) for column, cell in row.items() if column and cell)
    if columns in _drawn:
        save_png(path, _drawn[columns])
    else:
        plot_curves(metrics_csv, path)
        _drawn[columns] = cv2.imread(str(path))[:, :, ::-1]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a program that Ctrl-C reaches, also where the tests run in the background, in which programs ignore it.

    What still runs at the end of the test, because it failed, is killed, and its pipes are closed.
    """
    with ExitStack() as stack:

        def run(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
            heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
            process = stack.enter_context(subprocess.Popen(command, text=True, preexec_fn=heed, **options))
            stack.callback(process.kill)  # before its context waits for it
            return process

        yield run
