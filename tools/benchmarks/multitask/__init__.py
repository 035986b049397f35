"""Single-task and multi-task networks, trained with equal care: accuracy, parameters, bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpgmt import cli
from rpgmt.config import to_dict
from rpgmt.errors import UserError
from tasks import multitask
from tools.benchmarks.common.comparison import Comparison, add_rows, add_seeds_and_jobs, exit_status, read_comparison
from tools.benchmarks.common.flags import add_json
from tools.benchmarks.multitask.networks import CONSTANT, ROWS, network_configs

if TYPE_CHECKING:
    from tools.benchmarks.common.trainings import Training

OUT = Path("runs/benchmark-multitask")


def main(argv: list[str], prog: str) -> int:
    """Trains single-task and multi-task networks with one schedule, and compares accuracy, parameters and bytes.

    Each network is a run folder in `--out`. What is finished there is not trained again, what was interrupted goes on.
    `--stages`, `--heads` and `--rpg-size` hold for all networks; what else makes the stages' weights is each network's own.
    """
    parser = cli.Parser(prog=prog, description=main.__doc__)
    add_seeds_and_jobs(parser)
    add_rows(parser, ROWS)
    add_json(parser)
    arguments, config = cli.parse_config(parser, argv, multitask.NAME, multitask.Config)
    if config.evaluation.stop_after is not None:
        raise UserError(f"`--stop-after` is {config.evaluation.stop_after}: all stages are compared, leave it out")
    asked, config = read_comparison(arguments, config, ROWS, OUT)

    print("loading torch …", flush=True)
    from rpgmt import models
    from rpgmt.engine.device import for_this_machine
    from tools.benchmarks.common.trainings import count_steps, train_all
    from tools.benchmarks.multitask.constants import constants
    from tools.benchmarks.multitask.report import Report

    config = for_this_machine(config)
    networks = network_configs(config, asked.rows)
    for network in networks.values():  # what is cheap to find wrong, before what takes long
        models.build(network.model)
    # For its data: the rows have networks of their own, and a bank that none of them has is not to be remarked on.
    task = multitask.build(dataclasses.replace(config, model=dataclasses.replace(config.model, sharing="none")))
    steps = count_steps(task.train_data, config.train)  # makes the data, which several trainings at once would all make
    trainings = {(row, seed): _training(networks[row], row, seed, asked, steps) for seed in asked.seeds for row in networks}
    asked.begin(trainings.values(), config, task.name)
    failed = train_all(list(trainings.values()), asked.jobs)

    runs: dict[str, dict[int, dict[str, Any]]] = {}
    if CONSTANT in asked.rows:
        runs[CONSTANT] = dict.fromkeys(asked.seeds, constants(task))
    for (row, seed), training in trainings.items():
        if result := training.result():
            runs.setdefault(row, {})[seed] = result
    label = f"{task.metric_label}; {config.model.stages} stages, {steps} steps of {config.train.batch_size}"
    report = Report(label, asked.seeds, task.heads, runs)
    report.print()
    report.write(asked.out, {"config": to_dict(config), "steps": steps}, arguments.json)
    return exit_status([training.name for training in failed])


def _training(config: multitask.Config, row: str, seed: int, asked: Comparison, steps: int) -> Training:
    from tools.benchmarks.common.trainings import Training

    return Training(multitask.NAME, asked.config_of(config, row, seed), steps, 1 + config.model.stages)
