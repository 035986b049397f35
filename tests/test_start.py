"""The tests' own way to start programs: Ctrl-C reaches them, and none outlives its test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

INNER = """
import signal, subprocess, sys, time
from pathlib import Path

def test_leaves_a_program_running(start):
    process = start([sys.executable, "-c", "print('there', flush=True); import time; time.sleep(600)"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == "there\\n"
    Path(OUT).write_text(str(process.pid))
    raise AssertionError("as planned")

def test_ctrl_c_reaches_it(start):
    process = start([sys.executable, "-c", "print('there', flush=True); import time; time.sleep(600)"], stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
"""


def test_in_the_background_and_after_a_failure(tmp_path: Path) -> None:
    """The tests within run as behind `&`, where programs ignore SIGINT."""
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (tmp_path / "test_inner.py").write_text(f"OUT = {str(tmp_path / 'pid')!r}\n{INNER}")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "as planned" in done.stdout
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
