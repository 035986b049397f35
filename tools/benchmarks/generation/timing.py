"""The ways to make weights take turns, on one problem or on those of a sweep."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from rpgmt.rpg.layout import Segment
from rpgmt.tables import print_table
from tools.benchmarks.common.stopwatch import DeviceStopwatch
from tools.benchmarks.generation import report
from tools.benchmarks.generation.authors import NAME as AUTHORS
from tools.benchmarks.generation.authors import authors, check
from tools.benchmarks.generation.compiled import compiled
from tools.benchmarks.generation.floors import COPY, copy, copy_in_place, gather
from tools.benchmarks.generation.ours import ours
from tools.benchmarks.generation.problem import Kind, Problem
from tools.benchmarks.generation.setting import Setting

CHECKED, CHECKED_IN_SWEEP = 16_000_000, 1_000_000
"""Weights that are compared with the authors' formula before anything is timed: the first layers up to so many."""
AUTHORS_BYTES = 56
"""Memory that the authors' formula takes a weight: tables 12, weights and gradients, and what drawing the tables takes."""
POINT_SECONDS = 60.0
"""A sweep's point takes no more turns than that, but one of each kind."""


def compare(setting: Setting, generated: int, size: int) -> dict[str, Any]:
    """Measures one problem in all ways, and prints it.

    Args:
        setting: what holds for all.
        generated: M, weights that are made.
        size: N, the bank's entries.
    """
    point = _point(setting, generated, size, everything=True)
    title = report.title_of(setting, point)
    print_table(report.table(title, point["rows"]))
    return {"title": title, **report.facts(setting), **point}


def sweep(setting: Setting, generated: int, size: int, largest: int, figure: Path | None) -> dict[str, Any]:
    """Measures both series; prints and draws them."""
    series = {
        "generated": [(m, max(1, round(m * size / generated))) for m in _decades(largest)],
        "size": [(generated, max(1, generated // 4**k)) for k in reversed(range(6))],
    }
    record: dict[str, Any] = {"title": f"generation, {report.machine(setting)}", **report.facts(setting), "series": {}}
    for name, problems in series.items():
        points = record["series"][name] = []
        for m, n in problems:
            points.append(_point(setting, m, n, everything=False))
            print_table(report.table(report.title_of(setting, points[-1]), points[-1]["rows"]))
    if figure:
        from tools.benchmarks.generation.figure import draw

        draw(record["series"], record["title"], figure)
        print(f"written: {figure}")
    return record


def _decades(largest: int) -> list[int]:
    """`largest` and what is √10, 10, … times smaller, down to a million; but three at least."""
    numbers = [max(1, round(largest / 10 ** (k / 2))) for k in range(20)]
    return [number for k, number in enumerate(numbers) if k < 3 or number >= 1_000_000][::-1]


def _point(setting: Setting, generated: int, size: int, *, everything: bool) -> dict[str, Any]:
    """Measures one problem: all kinds, or those of a sweep."""
    segments = _segments(setting.layers, generated)
    checked = min(generated, CHECKED if everything else CHECKED_IN_SWEEP)
    for block in setting.blocks:
        check(Problem(size, _segments(setting.layers, checked), setting.dtype, setting.device), block)
    problem = Problem(size, segments, setting.dtype, setting.device)
    kinds = _kinds(problem, setting, everything)
    seconds = _time_all(kinds, setting, problem.device, float("inf") if everything else POINT_SECONDS)
    rows = [report.row_of(kind, seconds, generated) for kind in kinds]
    rounds = len(seconds[COPY]["total"])
    del problem, kinds  # before the next problem takes its memory
    _free(setting)
    return {"generated": generated, "size": size, "layers": len(segments), "rounds": rounds, "rows": rows}


def _kinds(problem: Problem, setting: Setting, everything: bool) -> list[Kind]:
    """The ways that are timed; the authors' formula where there is memory for it."""
    kinds = []
    need = AUTHORS_BYTES * problem.generated
    free = min(_free_bytes(device) for device in (problem.device, torch.device("cpu")))  # the tables are drawn on the CPU
    if need < free:
        kinds.append(authors(problem))
    else:
        print(
            f"{AUTHORS} is left out at {problem.generated:,} weights: it needs {need / 1e9:.0f} GB, free are {free / 1e9:.0f}"
        )
    kinds += [ours(problem, block) for block in setting.blocks]
    if setting.split:
        kinds += [ours(problem, block, split=True) for block in setting.blocks]
    if setting.compile:
        kinds.append(compiled(problem))
    if everything:
        kinds += [gather(problem, integer) for integer in (torch.int32, torch.int64)]
        kinds.append(copy_in_place(problem))
    return [*kinds, copy(problem)]


def _time_all(kinds: Sequence[Kind], setting: Setting, device: torch.device, limit: float) -> dict[str, dict[str, list[float]]]:
    """Seconds of each kind's parts in each turn; turns end early where they take longer than `limit` seconds."""
    pauses = {kind.name: 0 for kind in kinds}
    for kind in kinds:  # memory and kernels are made in the first turn
        _turn(kind, device)
        started = time.perf_counter()
        _turn(kind, device)
        if setting.queued:  # cycles of up to 2 GHz that outlast the calls of one turn
            pauses[kind.name] = int(2e9 * (2 * (time.perf_counter() - started) + 1e-3))
    seconds: dict[str, dict[str, list[float]]] = {kind.name: {part: [] for part in report.PARTS} for kind in kinds}
    started = time.perf_counter()
    for turn in track(range(setting.rounds), "generation", transient=True):
        if turn and time.perf_counter() - started > limit:
            break
        first = turn % len(kinds)
        for kind in (*kinds[first:], *kinds[:first]):
            for part, value in zip(report.PARTS, _turn(kind, device, pauses[kind.name]), strict=True):
                seconds[kind.name][part].append(value)
    return seconds


def _turn(kind: Kind, device: torch.device, pause: int = 0) -> tuple[float, float, float]:
    """Seconds of forward, backward, and both.

    Args:
        kind: what is timed.
        device: where.
        pause: on CUDA, cycles for which the device waits while the calls come in, which then cost the device's time alone.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        if pause:
            torch.cuda._sleep(pause)
    watch = DeviceStopwatch(device)
    weights = kind.forward()
    watch.mark("forward")
    kind.backward(weights)
    watch.mark("backward")
    seconds = watch.stop()
    forward, backward = seconds["forward"], seconds["backward"]
    return forward, backward, forward + backward


def _free_bytes(device: torch.device) -> float:
    """Memory that is free on a device; infinite where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if Path("/proc/meminfo").is_file():
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, AttributeError):
        return float("inf")


def _free(setting: Setting) -> None:
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()


def _segments(layers: Sequence[int], generated: int) -> list[Segment]:
    """Layers of these sizes, over and over, until there are `generated` weights; the last one is cut.

    A scale is what `Bank` gives a layer that Kaiming's initialiser fills with a deviation of √(2 / (weights / 256 inputs)).
    """
    segments = []
    for numel in itertools.cycle(layers):
        numel = min(numel, generated)
        segments.append(Segment(numel, (512 / numel) ** 0.5 / 0.05))
        generated -= numel
        if not generated:
            return segments
    raise AssertionError
