#!/usr/bin/env python
"""Train a task, e.g. `pose --stages 4 --rpg-size 1M`."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

import tasks as task_package
from rpgmt import cli


def main(argv: list[str], prog: str = "train.py") -> int:
    """Trains, and prints where the results are."""
    started = time.perf_counter()
    tasks = cli.find_tasks(task_package)
    name, config = cli.parse_train(argv, tasks, prog=prog)
    # Lightning starts this program once more for each further process; the first one speaks.
    first = all(os.environ.get(rank, "0") == "0" for rank in ("LOCAL_RANK", "NODE_RANK"))
    if first:
        print(f"{name}: loading torch …", flush=True)  # some seconds on a slow disk

    from rpgmt.engine import run_folder
    from rpgmt.engine.device import for_this_machine
    from rpgmt.engine.loop import Interrupted, fit

    config = for_this_machine(config)
    if first:  # what is cheap to find wrong, before what takes long
        folder = run_folder.choose(config.train, name)
        if config.train.resume:
            run_folder.check_same_run(folder, config)

    from rpgmt.engine.model_file import load_weights, read_config
    from rpgmt.models.counting import count
    from rpgmt.models.resnet_trunk import load_trunk_weights
    from rpgmt.tables import counts_table, metrics_table, print_table

    if config.train.init_from is not None and not config.train.resume:
        read_config(config.train.init_from)
    task = tasks[name].build(config)
    if config.train.init_from is not None and not config.train.resume:
        fresh = load_weights(task.model, config.train.init_from, heads_may_differ=True)
        if first:
            print(f"weights from {config.train.init_from}" + (f", fresh: {', '.join(fresh)}" if fresh else ""))
    elif not config.train.resume:
        source = load_trunk_weights(task.model, config.train.trunk_weights)
        if first and source:
            print(f"trunk: weights from {source}")
    counts = count(task.model, config.model.input_size)
    if first:
        print_table(counts_table(counts, f"{name}, {config.model.title}"))
    summary = {"parameters": counts["parameters"], "macs": counts["macs"], "data": task.data_summary()}
    try:
        out = fit(task, task.resolved(), summary=summary, command=shlex.join([*program(prog), *argv]))
    except Interrupted as stop:
        what = "results are" if (stop.folder / "metrics.json").is_file() else "the last checkpoint is"
        print(f"interrupted; {what} in {stop.folder}; go on with: {go_on(argv, stop.folder, prog)}", flush=True)
        raise
    if not first:
        return 0  # the results are the first process's
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    print_table(metrics_table(metrics["val"], task.metric_label))
    print(f"{metrics['steps']} steps, {time.perf_counter() - started:.0f} s in all; results: {out}")
    if (out / "report.html").is_file():
        print(f"report: {out / 'report.html'}")
    return 0


def go_on(argv: Sequence[str], out: Path, prog: str = "train.py") -> str:
    """The command that goes on with an interrupted run, which can be pasted into a shell.

    Args:
        argv: the arguments with which the run was started, or gone on with.
        out: its folder, which the arguments need not name.
        prog: as in `main`.
    """
    words = [word for word in argv if word != "--resume"]
    folder = [] if any(word.partition("=")[0] == "--out" for word in words) else ["--out", str(out)]
    return shlex.join([*program(prog), *words, *folder, "--resume"])


def program(prog: str) -> list[str]:
    """The words of a command before its arguments; `prog` is as in `main`."""
    python = ["uv", "run"] if "UV" in os.environ else [sys.executable]  # uv sets it for what it runs
    return [*python, sys.argv[0]] if prog.endswith(".py") else prog.split()


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "train.py"))
