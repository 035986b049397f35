"""Trainings in several processes, started as a user starts them; long, for each process loads torch.

Short forms are in tests/engine: test_processes.py, test_agreement.py, test_lost_process.py, test_workers.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rpgmt.config.presets import ROOT

pytestmark = pytest.mark.slow

TINY = ["--channels", "16", "--depth", "2", "--stages", "2", "--batch-size", "4", "--workers", "0", "--device", "cpu"]
TINY += ["--train-images", "8", "--val-images", "6", "--max-steps", "2"]

KILLED_AT_ITS_START = """
import os
if os.environ.get("LOCAL_RANK") == "1":
    os.kill(os.getpid(), 9)
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.mark.slow
@pytest.mark.parametrize("what", ["missing data", "other learning rate", "other devices", "never comes"])
def test_two_machines(what: str, tmp_path: Path) -> None:
    """One process on each of two machines, started by hand: the second one is not as it should be."""
    words = {
        "missing data": ["--config", "coco_json", "--data-root", str(tmp_path / "none")],
        "other learning rate": ["--lr", "0.5"],
        "other devices": ["--devices", "2"],
        "never comes": ["--help"],
    }[what]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = []
    for node in (0, 1):
        own = ["pose", *TINY, "--nodes", "2", "--data-root", str(tmp_path), "--out", str(tmp_path / "run")]
        command = [sys.executable, "tools/train.py", *own, *(words if node else [])]
        environment = os.environ | place | {"NODE_RANK": str(node), "LOCAL_RANK": "0"}
        pipes: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        both.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    said = [process.communicate(timeout=240)[1] for process in both]
    status = [process.returncode for process in both]
    print(what, json.dumps({"status": status, "said": said}, indent=1))
    assert status[0] != 0
    assert "Traceback" not in "".join(said)
    assert ("process 2 of 2" if what == "other devices" else "process 1") in said[0]


@pytest.mark.slow
def test_killed_at_its_start(tmp_path: Path) -> None:
    """A second process that `--devices 2` started: out of memory, say, before it has loaded anything."""
    (tmp_path / "sitecustomize.py").write_text(KILLED_AT_ITS_START)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    own = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE", "RANK")}
    words = ["pose", *TINY, "--devices", "2", "--data-root", str(tmp_path), "--out", str(tmp_path / "run")]
    command = [sys.executable, "tools/train.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=own | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + 9
    assert re.fullmatch(r"train.py: process 1 of 2 .* was ended by signal 9, perhaps for want of memory, .*\n", done.stderr)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torchrun_ends_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(KILLED_AT_ITS_START)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = ["pose", *TINY, "--devices", "2", "--data-root", str(tmp_path), "--out", str(tmp_path / "run")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    command += ["tools/train.py", *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=240)
    print(done.stderr)
    assert done.returncode != 0
    assert re.search(r"rank\s*: 1 ", done.stderr)


def test_bits_of_a_pose_network_whatever_the_number_of_workers(tmp_path: Path) -> None:
    """With the synthetic preset's augmentation, and pixels changed besides; AP and weights."""
    found = set()
    for workers in (0, 1, 2, 4):
        out = tmp_path / str(workers)
        words = [*TINY, "--max-steps", "6", "--epochs", "3", "--pixels", "0.5", "--occlusion", "0.5", "--workers", str(workers)]
        command = [sys.executable, "tools/train.py", "pose", *words, "--data-root", str(tmp_path), "--out", str(out)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
        values = json.loads((out / "metrics.json").read_text())["val"]
        weights = torch.cat([tensor.flatten().double() for tensor in load_file(out / "model.safetensors").values()])
        found.add((json.dumps(values), weights.numpy().tobytes()))
    assert len(found) == 1


def test_memory_does_not_grow(tmp_path: Path) -> None:
    """3,000 steps of a small network with two workers: resident memory of all processes, once the first steps are over."""
    out, sizes = tmp_path / "run", []
    words = ["--channels", "16", "--depth", "2", "--stages", "2", "--batch-size", "2", "--train-images", "64"]
    words += ["--val-images", "8", "--device", "cpu", "--max-steps", "3000", "--epochs", "1000", "--workers", "2"]
    command = [sys.executable, "tools/train.py", "pose", *words, "--data-root", str(tmp_path), "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(1)
        rows = (out / "metrics.csv").read_text().splitlines() if (out / "metrics.csv").is_file() else []
        if len(rows) > 1:
            sizes.append((int(rows[-1].split(",")[1]), resident(process.pid)))
    assert process.returncode == 0
    after = {step: size for step, size in sizes if step >= 500 and size}
    for step, size in list(after.items())[:: max(1, len(after) // 10)]:
        print(f"step {step}: {size / 2**20:.0f} MiB")
    # By step 1000 the workers have made the pages their own that they write to.
    early = [size for step, size in after.items() if 1000 <= step < 2000]
    late = [size for step, size in after.items() if 2000 <= step < 3000]  # then pictures are drawn
    assert statistics.median(late) < 1.05 * statistics.median(early)


def resident(pid: int) -> int:
    """Bytes that a process and its children hold for themselves."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    total = 0
    for each in [str(pid), *found]:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += 1024 * int(re.search(r"^Pss: +(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return total
