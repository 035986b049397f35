"""The memory that a training step takes at its peak, by kind."""

from __future__ import annotations

import dataclasses
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.progress import track
from rich.table import Table

from rpgmt.errors import UserError
from tools.benchmarks.step.fresh_processes import run_all
from tools.benchmarks.step.networks import NONE

PROCESS = Path("/proc/self")
WARM_UP = 2
"""Steps before: index tables and the optimizer's state are made in the first one."""
STEPS = 5
"""That are measured."""
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""The C library gives memory back when it is freed, so that the peak is of what is in use and not of what was."""
MIB = 2**20


def check_memory(device: str) -> None:
    """Refuses devices whose peak cannot be read.

    Args:
        device: cpu, cuda or mps.

    Raises:
        UserError: It is none of CUDA and a CPU under Linux.
    """
    if device == "cpu" and not sys.platform.startswith("linux"):
        raise UserError("`--memory` reads a CPU's figures from /proc, which only Linux has: leave it out")
    if device not in ("cpu", "cuda"):
        raise UserError(f"`--memory` has no figures of {device}: leave it out, or give --device cpu")


def measure(config: Any, kinds: list[str], device: str) -> list[dict[str, Any]]:
    """The peak of one step of each kind, each in a process of its own.

    Returns:
        One row a kind: `peak_bytes` of the step, `held_bytes` after it, and `ratio`s of the peak to that of none. On a CPU
        it is resident memory less that of the process before the network was built, which repeats within some MiB; on CUDA
        what torch has allocated.
    """
    rows = []
    for kind in track(kinds, "memory", transient=True):
        ((peak, held),) = run_all(_step, [(config, kind, device)], RETURN_MEMORY)
        rows.append({"kind": kind, "peak_bytes": peak, "held_bytes": held})
    plain = next(row["peak_bytes"] for row in rows if row["kind"] == NONE)
    return [{**row, "ratio": row["peak_bytes"] / plain} for row in rows]


def _step(config: Any, kind: str, device: str) -> tuple[int, int]:
    """Bytes at the peak of a step and after it, medians of some steps."""
    import torch

    from tools.benchmarks.step.training_step import TimedStep

    place = torch.device(device)
    for other in (NONE, kind):  # what torch and the kinds load at their first step is no part of a network
        TimedStep(_small(config), other, place, batch_size=2).run()
    meter = _CudaMeter() if device == "cuda" else _ResidentMeter()
    step = TimedStep(config, kind, place)
    for _ in range(WARM_UP):
        step.run()
    peaks, held = [], []
    for _ in range(STEPS):
        meter.start()
        step.run()
        peaks.append(meter.peak())
        held.append(meter.held())
    return statistics.median_low(peaks), statistics.median_low(held)


def _small(config: Any) -> Any:
    """The config with the smallest network."""
    model = dataclasses.replace(
        config.model, trunk="residual", stages=1, channels=4, depth=1, rpg_size="50%", input_size=(16, 16)
    )
    train = dataclasses.replace(config.train, accumulate=1, compile=False)
    return dataclasses.replace(config, model=model, train=train)


class _ResidentMeter:
    """Resident memory of this process beyond what it has now."""

    def __init__(self) -> None:
        self._before = _status("VmRSS")

    def start(self) -> None:
        """The peak is of what follows."""
        (PROCESS / "clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        return _status("VmHWM") - self._before

    def held(self) -> int:
        return _status("VmRSS") - self._before


class _CudaMeter:
    """What torch has allocated on the GPU."""

    def start(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        import torch

        return torch.cuda.max_memory_allocated()

    def held(self) -> int:
        import torch

        return torch.cuda.memory_allocated()


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", (PROCESS / "status").read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise UserError(f"`--memory`: {PROCESS / 'status'} has no {name} on this machine")
    return 1024 * int(found[1])


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    """What `measure` found."""
    result = Table(title=f"memory of a {title}", title_justify="left")
    for column in ("kind", "MiB at the peak", "ratio to none", "MiB after the step"):
        result.add_column(column, justify="left" if column == "kind" else "right")
    for row in rows:
        result.add_row(row["kind"], f"{row['peak_bytes'] / MIB:.1f}", f"{row['ratio']:.3f}", f"{row['held_bytes'] / MIB:.1f}")
    return result
