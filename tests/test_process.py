"""What a tool sets for its process holds while it runs, and is gone afterwards."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import warnings

import pytest

from rpgmt import cli
from rpgmt.errors import UserError
from rpgmt.process import process_settings

OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "LOCAL_RANK")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OWN:
        monkeypatch.delenv(name, raising=False)


def test_threads_are_told_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    before = dict(os.environ)
    assert cli.run(lambda argv: seen.append(os.environ["GOMP_SPINCOUNT"]), []) == 0
    assert seen == ["10000"]
    assert dict(os.environ) == before


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "passive")])
def test_the_users_word_on_waiting_counts(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with process_settings("tool.py"):
        assert dict(os.environ) == before
    assert dict(os.environ) == before


@pytest.mark.parametrize("rank", [None, "1"])
def test_warnings_are_as_before_even_after_an_error(rank: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)

    def fail(argv: list[str]) -> None:
        changed.append((warnings.formatwarning is not written, warnings.filters != filters))
        raise RuntimeError

    changed: list[tuple[bool, bool]] = []
    written, filters = warnings.formatwarning, list(warnings.filters)
    with pytest.raises(RuntimeError):
        cli.run(fail, [])
    assert changed == [(True, rank is not None)]
    assert warnings.formatwarning is written
    assert warnings.filters == filters


MEMORY = """
import ctypes, sys

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

class Counts(ctypes.Structure):  # struct mallinfo2
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

library.mallinfo2.restype = Counts

def mapped():
    "Whether a block of 64 MiB is mapped on its own."
    before = library.mallinfo2().hblks
    block = library.malloc(64 << 20)
    after = library.mallinfo2().hblks
    library.free(block)
    return after > before

def kept():
    "Whether the heap keeps 100 blocks of 100 KB that are freed, which are too small to be mapped."
    blocks = [library.malloc(100_000) for _ in range(100)]
    for block in blocks:
        library.free(block)
    return library.mallinfo2().keepcost > 5_000_000

from rpgmt import cli
from rpgmt.errors import UserError
found = [(kept(), mapped())]
cli.run(lambda argv: found.append((kept(), mapped())), [])
found.append((kept(), mapped()))
print(*found, sep="\\n")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only GNU's C library has these thresholds")
@pytest.mark.parametrize("name", [None, "MALLOC_ARENA_MAX"])
def test_freed_memory_is_kept_while_the_tool_runs(name: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    environment |= {name: "2"} if name else {}  # then it is the user who sets it up
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    before, during, after = done.stdout.splitlines()
    assert before == after == "(False, True)"
    assert during == ("(False, True)" if name else "(True, False)")


def test_long_names_and_texts_are_shortened_in_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ends stay: what is wrong, and the way out."""
    for text in (f"/data/{'x' * 5000}.png: not an image: give another", f"`names` is {'a b ' * 5000}: give fewer"):

        def fail(_: list[str], text: str = text) -> int:
            raise UserError(text)

        assert cli.run(fail, [], "tool") == 2
        with process_settings("tool"):
            note = warnings.formatwarning(UserWarning(text), UserWarning, "file.py", 1)  # type: ignore[call-overload]
        for line in (*capsys.readouterr().err.splitlines(), note.rstrip("\n")):
            assert len(line) < 1100
            assert line.startswith("tool: ")
            assert text.split()[0][:20] in line
            assert line.endswith(text[-10:])
            assert "…" in line
