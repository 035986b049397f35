#!/usr/bin/env python
"""Train a task, e.g. `pose --stages 4 --rpg-size 1M`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

import tasks as task_package
from rpgmt import cli
from rpgmt.config import ModelConfig
from rpgmt.engine import run_folder
from rpgmt.engine.closing import Phases, closing_lines, command
from rpgmt.errors import UserError
from rpgmt.process import is_first_process


def main(argv: list[str], prog: str = "train.py") -> int:
    """Trains, and prints where the results are and what to do with them."""
    first = is_first_process()  # this program is started once more for each further one
    tell = Phases(silent=not first)
    tasks = cli.find_tasks(task_package)
    name, config = cli.parse_train(argv, tasks, prog=prog)
    if first:  # what is cheap to find wrong, before what takes long
        folder = run_folder.choose(config.train, name)
        if config.train.resume:
            run_folder.check_same_run(folder, config)
            if run_folder.is_finished(folder, config) and run_folder.is_drawn(folder):
                print(run_folder.finished_line(folder, config.train, whole=config.train.accumulate == 1))
                return 0
    train = config.train
    if train.device not in ("auto", "cpu") or train.precision == "16" or train.devices * train.nodes > 1:
        tell("loading torch")
        from rpgmt.engine.device import check_machine
        from rpgmt.engine.joining import join

        check_machine(train)
        join(train)
    drawn = config.data.name == "synthetic"
    what = "people (drawn once, kept there)" if drawn else f"{config.data.name} data"
    tell(f"{name}: reading {what} in {config.data.root}")
    data = tasks[name].read(config, training=True)
    tell("loading torch")

    from rpgmt.engine.device import for_this_machine
    from rpgmt.engine.finite import NonFiniteError
    from rpgmt.engine.loop import fit
    from rpgmt.engine.model_file import load_weights, read_config
    from rpgmt.engine.signals import Interrupted
    from rpgmt.models.counting import count
    from rpgmt.models.resnet_trunk import load_trunk_weights
    from rpgmt.models.width import check_parameters
    from rpgmt.tables import counts_table, metrics_table, print_table

    config = for_this_machine(config)
    if first and config.train.resume:  # once more, with this machine's precision
        run_folder.check_same_run(folder, config)
    if config.train.init_from is not None and not config.train.resume:
        read_config(config.train.init_from)
    tell("building the network")
    if isinstance(config.model, ModelConfig) and not config.train.resume:
        check_parameters(data.config.model)  # with its heads
    task = tasks[name].build(config, data)
    if config.train.init_from is not None and not config.train.resume:
        fresh = load_weights(task.model, config.train.init_from, heads_may_differ=True)
        if first:
            print(f"weights from {config.train.init_from}" + (f", fresh: {', '.join(fresh)}" if fresh else ""))
    elif not config.train.resume:
        source = load_trunk_weights(task.model, config.train.trunk_weights)
        if first and source:
            print(f"trunk: weights from {source}")
    if task.teacher is not None and first:
        numbers = sum(parameter.numel() for parameter in task.teacher.parameters())
        print(f"teacher: {config.teacher}, of {numbers:,} weights, generated ones among them")
    counts = count(task.model, config.model.input_size)
    if first:
        print_table(counts_table(counts, f"{name}, {config.model.title}"))
    summary = {"parameters": counts["parameters"], "macs": counts["macs"], "data": task.data_summary()}
    try:
        out = fit(task, task.resolved(), summary=summary, command=command("train", prog, *argv), tell=tell)
    except Interrupted as stop:
        what = "results are" if (stop.folder / "metrics.json").is_file() else "the last checkpoint is"
        print(f"interrupted; {what} in {stop.folder}; go on with: {go_on(argv, stop.folder, prog)}", flush=True)
        raise
    except NonFiniteError as error:
        if error.folder is None:
            raise
        raise UserError(f"{error}: {start_again(name, error.folder, config.train.lr, prog)}") from error
    if not first:
        return 0  # the results are the first process's
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    print_table(metrics_table(metrics["val"], task.metric_label))
    for line in task.remarks:
        print(line)
    print(f"{metrics['steps']} steps, {tell.seconds():.0f} s in all; results: {out}")
    print(*closing_lines(run_folder.RunFolder(out), prog), sep="\n")
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
    return command("train", prog, *words, *folder, "--resume")


def start_again(task: str, out: Path, lr: float, prog: str = "train.py") -> str:
    """The command that makes a run anew with half the learning rate, in a folder beside its own.

    Args:
        task: e.g. `pose`.
        out: folder of the run whose loss was not finite.
        lr: its learning rate.
        prog: as in `main`.
    """
    number = 2
    while (folder := out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    return command("train", prog, task, "--config", str(out / "config.yaml"), "--lr", f"{lr / 2:g}", "--out", str(folder))


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "train.py"))
