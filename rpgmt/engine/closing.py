"""The words around a training: what a program does before there is progress to show, and what to do with the results."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rpgmt.engine.run_folder import RunFolder

FEW_STEPS = 1000
"""A network that has made fewer steps, and finds nothing, may well be only untrained."""
PICTURES = ("predictions.png", "curves.png", "report.html")


class Phases:
    """Prints what begins now, with the seconds since the program began.

    Args:
        silent: in processes other than the first.
    """

    def __init__(self, *, silent: bool) -> None:
        self._start, self._silent = time.perf_counter(), silent

    def __call__(self, what: str) -> None:
        if not self._silent:
            print(f"{self.seconds():6.1f} s  {what}", flush=True)

    def seconds(self) -> float:
        return time.perf_counter() - self._start


def command(verb: str, prog: str, *words: str) -> str:
    """A command of this project that can be pasted into a shell, called as the user called this one.

    Args:
        verb: e.g. ``evaluate``.
        prog: the name of the running program: `train.py`, in tools/, or `rpgmt train`.
        words: its arguments.
    """
    if not prog.endswith(".py"):
        return shlex.join([*prog.split()[:-1], verb, *words])
    python = ["uv", "run"] if "UV" in os.environ else [sys.executable]  # uv sets it for what it runs
    return shlex.join([*python, str(Path(sys.argv[0]).with_name(f"{verb}.py")), *words])


def closing_lines(folder: RunFolder, prog: str) -> list[str]:
    """What a finished training says: how it ended, which file has which weights, what to look at, and what to do next.

    Args:
        folder: of the run, with its `metrics.json`.
        prog: as of `command`.
    """
    record = json.loads(folder.metrics.read_text(encoding="utf-8"))
    best, run = record["best"], str(folder.path)
    last = record["val"][best["metric"]]
    lines = []
    if record["ended"]["by"] == "patience":
        patience = record["ended"]["patience"]
        lines.append(f"ended early: {patience} validations without a better {best['metric']} (--patience {patience})")
    if hint := _hint(record, last):
        lines.append(hint)
    lines.append(f"{folder.model.name}: the last weights, {best['metric']} {_figure(last)}")
    better = best["value"] is not None and (last is None or best["value"] > last)
    if best["value"] is not None:
        which = "the best" if better else "the same" if best["step"] == record["steps"] else "no better"
        lines.append(f"{folder.best_model.name}: {which}, {best['metric']} {_figure(best['value'])} at step {best['step']}")
    pictures = [str(folder.path / name) for name in PICTURES if (folder.path / name).is_file()]
    lines += [f"look at:  {picture}" for picture in pictures]
    lines.append(f"evaluate: {command('evaluate', prog, run, *(['--weights', 'best'] if better else []))}")
    lines.append(f"predict:  {command('predict', prog, run, 'PICTURE.jpg')}")
    return lines


def _hint(record: Mapping[str, Any], score: float | None) -> str:
    """Why there is nothing to see, where the run was short."""
    if (score is not None and score >= 0.005) or record["steps"] >= FEW_STEPS:
        return ""
    metric, steps, limit = record["best"]["metric"], record["steps"], record["ended"]["max_steps"]
    longer = "--max-steps" if limit is not None and steps >= limit else "--epochs"
    return f"note: {metric} is {_figure(score)}: {steps} steps are few, give more {longer} for some hundreds"


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
