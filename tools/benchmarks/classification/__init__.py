"""ResNets with generated weights, and what else gives fewer parameters: accuracy, parameters, bytes, time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rpgmt import cli
from rpgmt.config import TrainConfig, to_dict
from rpgmt.errors import UserError
from tasks import classification
from tasks.classification import ClassificationTask, Config
from tools.benchmarks.classification import rows as table
from tools.benchmarks.classification.rows import EQUILIBRIUM, EQUILIBRIUM_RECIPE, QUANTIZED, ROWS, Row
from tools.benchmarks.common.comparison import Comparison, add_rows, add_seeds_and_jobs, exit_status, read_comparison
from tools.benchmarks.common.flags import add_json, check_positive

if TYPE_CHECKING:
    from tools.benchmarks.common.trainings import Training

OUT = Path("runs/benchmark-classification")
OWN_FLAGS = ("--network", "--sharing", "--rpg-size", "--rpg-scope")
DERIVE = Path(__file__).with_name("derive.py")


def main(argv: list[str], prog: str) -> int:
    """Trains ResNets whose weights are generated, independent, tied, pruned or quantised, and an equilibrium network.

    Each network is a run folder in `--out`. What is finished there is not trained again, what was interrupted goes on. Rows
    that start from a trained network train that one first, too. The comparison "projected" asks how far a trained network gets
    in a bank with little further training; fresh banks with the same further epochs are no row of their own.
    """
    parser = cli.Parser(prog=prog, description=main.__doc__)
    add_rows(parser, ROWS)
    parser.add_argument("--sizes", default=table.SIZES, help=f"N of the banks of ResNet-18 (default: {table.SIZES})")
    parser.add_argument("--block-size", help="the one of them for banks by block and for ResNet-34 (default: the middle one)")
    add_seeds_and_jobs(parser)
    parser.add_argument("--finetune-epochs", type=int, help="of networks that are pruned or projected (default: --epochs / 5)")
    parser.add_argument("--finetune-lr", type=float, help="their learning rate (default: --lr / 10)")
    parser.add_argument("--equilibrium-epochs", type=int, help="of the equilibrium network (default: --epochs)")
    add_json(parser)
    arguments, config = cli.parse_config(parser, argv, ClassificationTask.name, Config)
    _refuse_own_flags(argv)
    asked, config = read_comparison(arguments, config, ROWS, OUT)
    for flag in ("finetune_epochs", "equilibrium_epochs"):
        if (value := getattr(arguments, flag)) is not None:
            check_positive(f"--{flag.replace('_', '-')}", value)
    if arguments.finetune_lr is not None and not arguments.finetune_lr > 0:
        raise UserError(f"`--finetune-lr` is {arguments.finetune_lr}: give more than 0")

    print("loading torch …", flush=True)
    from rpgmt.engine.device import for_this_machine
    from tools.benchmarks.classification.report import Report
    from tools.benchmarks.classification.results import measure

    config = for_this_machine(config)
    sizes = table.read_sizes(arguments.sizes, arguments.block_size, config)
    finetune = _finetune(config.train, arguments.finetune_epochs, arguments.finetune_lr)
    equilibrium = {**EQUILIBRIUM_RECIPE, "epochs": arguments.equilibrium_epochs or config.train.epochs}
    rows = table.plan(config, asked.rows, sizes, finetune, dataclasses.replace(config.train, **equilibrium))
    # For its data: the rows have networks of their own, and a bank that none of them has is not to be remarked on.
    task = classification.build(dataclasses.replace(config, model=dataclasses.replace(config.model, sharing="none")))
    data = task.data_summary()  # reads the images, which several trainings at once would all decode
    trainings = {(row.name, seed): _training(row, seed, asked, task) for seed in asked.seeds for row in rows}
    asked.begin(trainings.values(), config, task.name)

    failed = _train(rows, trainings, asked.jobs)
    results = measure(rows, trainings, failed, task, asked.out)
    recipes = {"fine-tuning": finetune, EQUILIBRIUM: dataclasses.replace(config.train, **equilibrium)}
    report = Report(task.metric_label, asked.seeds, rows, results, failed, sizes, data["val_images"])
    report.print()
    about = {"config": to_dict(config), "data": data, "recipes": {name: to_dict(recipe) for name, recipe in recipes.items()}}
    report.write(asked.out, about, arguments.json)
    return exit_status([f"{name}-seed{seed}" for name, seed in failed])


def _refuse_own_flags(argv: Sequence[str]) -> None:
    for word in argv:
        if (flag := word.split("=")[0]) in OWN_FLAGS:
            raise UserError(f"`{flag}` is each row's own: leave it out; --rows and --sizes choose what is compared")


def _finetune(train: TrainConfig, epochs: int | None, lr: float | None) -> TrainConfig:
    """Further training: what a network has learnt would be lost at the rate that it began with."""
    return dataclasses.replace(train, epochs=epochs or max(1, train.epochs // 5), lr=lr or train.lr / 10, warmup_steps=0)


def _training(row: Row, seed: int, asked: Comparison, task: ClassificationTask) -> Training:
    from tools.benchmarks.common.trainings import Training, count_steps

    program = None
    if row.derived:
        source = ["--source", str(asked.folder(row.source, seed))] if row.source else []
        parameters = ["--parameters", str(row.parameters)] if row.parameters else []
        program = (str(DERIVE), row.family, *source, *parameters)
    config = asked.config_of(row.config, row.name, seed)
    steps = 0 if row.family in QUANTIZED else count_steps(task.train_data, config.train)
    return Training(task.name, config, steps, row.cost * steps or 1.0, program)


def _train(rows: Sequence[Row], trainings: dict[tuple[str, int], Training], jobs: int) -> dict[tuple[str, int], str]:
    """Trains what is not finished, first what others start from; why which failed."""
    from tools.benchmarks.common.trainings import train_all

    source = {row.name: row.source for row in rows}
    failed: dict[tuple[str, int], str] = {}
    for later in (False, True):
        turn = {key: training for key, training in trainings.items() if bool(source[key[0]]) == later}
        for name, seed in list(turn):
            if (str(source[name]), seed) in failed:
                failed[name, seed] = f"{source[name]}, from which it starts, failed"
                del turn[name, seed]
        # The longest first: the others fill the time that it takes.
        ended = set(train_all(sorted(turn.values(), key=lambda training: -training.cost), jobs))
        failed |= {key: _reason(training.log) for key, training in turn.items() if training in ended}
    return failed


def _reason(log: Path) -> str:
    """The last line that a training wrote."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
