"""Single-task and multi-task networks, trained with equal care: accuracy, parameters, bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpgmt import cli
from rpgmt.config import BalanceConfig, to_dict, to_yaml
from rpgmt.errors import UserError
from rpgmt.fields import did_you_mean
from tasks import multitask
from tools.benchmarks import read_seeds

if TYPE_CHECKING:
    from rpgmt.heads.task import StagedTask
    from tools.benchmarks.common.trainings import Training

NETWORKS: dict[str, dict[str, Any]] = {
    "one-stage": {"stages": 1, "sharing": "none"},
    "tied": {"sharing": "tied"},
    "rpg-stage": {"sharing": "rpg", "rpg_scope": "stage"},
    "rpg-block": {"sharing": "rpg", "rpg_scope": "block"},
    "rpg-global": {"sharing": "rpg", "rpg_scope": "global"},
    "none": {"sharing": "none"},
}
"""What each multi-task network changes in the model's config."""
CONSTANT, SINGLE = "constant", "single"
ROWS = (CONSTANT, SINGLE, *NETWORKS)
OUT = Path("runs/benchmark-multitask")
CONSTANT_SAMPLES = 2000
"""Of the training data, evenly spread, that the constants are made from."""


def main(argv: list[str], prog: str) -> int:
    """Trains single-task and multi-task networks with one schedule, and compares accuracy, parameters and bytes.

    Each network is a run folder in `--out`. What is finished there is not trained again, what was interrupted goes on.
    `--stages`, `--heads` and `--rpg-size` hold for all networks; what else makes the stages' weights is each network's own.
    """
    parser = cli.Parser(prog=prog, description=main.__doc__)
    parser.add_argument("--seeds", metavar="K,...", help="train every network with each of these (default: that of --seed)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once; more than one have a thread each (default: 1)")
    parser.add_argument("--rows", metavar="ROW,...", help=f"networks to compare, of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write the figures here, too")
    arguments, config = cli.parse_config(parser, argv, multitask.NAME, multitask.Config)
    seeds = read_seeds(arguments.seeds) if arguments.seeds else [config.train.seed]
    rows = _rows(arguments.rows) if arguments.rows else list(ROWS)
    if arguments.jobs < 1:
        raise UserError(f"`--jobs` is {arguments.jobs}: give at least 1")
    if config.evaluation.stop_after is not None:
        raise UserError(f"`--stop-after` is {config.evaluation.stop_after}: all stages are compared, leave it out")
    out = config.train.out or OUT
    if (out / "checkpoints").exists():
        raise UserError(f"`--out` is {out}: the folder of one run; give that of a comparison, or a new one")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, out=None, resume=False, seed=seeds[0]))

    print("loading torch …", flush=True)
    from rpgmt import models
    from rpgmt.engine.device import for_this_machine
    from tools.benchmarks.common.trainings import count_steps, train_all
    from tools.benchmarks.multitask import report as multitask_report

    config = for_this_machine(config)
    networks = _networks(config, rows)
    for network in networks.values():  # what is cheap to find wrong, before what takes long
        models.build(network.model)
    task = multitask.build(config)
    steps = count_steps(task.train_data, config.train)  # makes the data, which several trainings at once would all make
    trainings = {(row, seed): _training(networks[row], row, seed, out, steps) for seed in seeds for row in networks}
    for training in trainings.values():
        training.check()
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text(to_yaml(config, task=task.name), encoding="utf-8")
    failed = train_all(list(trainings.values()), arguments.jobs)

    runs: dict[str, dict[int, dict[str, Any]]] = {}
    if CONSTANT in rows:
        runs[CONSTANT] = dict.fromkeys(seeds, _constant(task))
    for (row, seed), training in trainings.items():
        if result := training.result():
            runs.setdefault(row, {})[seed] = result
    label = f"{task.metric_label}; {config.model.stages} stages, {steps} steps of {config.train.batch_size}"
    report = multitask_report.Report(label, seeds, task.heads, runs)
    report.print()
    report.write(out, {"config": to_dict(config), "steps": steps}, arguments.json)
    if failed:
        print(f"failed: {', '.join(training.name for training in failed)}; the same command tries them again")
    return 1 if failed else 0


def _networks(config: multitask.Config, rows: list[str]) -> dict[str, multitask.Config]:
    """The config of each network by its row; `single` is one a task."""
    networks = {}
    for row in rows:
        if row == SINGLE:
            for head, channels in config.model.heads.items():
                model = dataclasses.replace(config.model, heads={head: channels}, sharing="none")
                networks[f"{SINGLE}-{head}"] = dataclasses.replace(config, model=model, balancing=BalanceConfig())
        elif row in NETWORKS:
            networks[row] = dataclasses.replace(config, model=dataclasses.replace(config.model, **NETWORKS[row]))
    return networks


def _training(config: multitask.Config, row: str, seed: int, out: Path, steps: int) -> Training:
    from tools.benchmarks.common.trainings import Training

    train = dataclasses.replace(config.train, seed=seed, out=out / f"{row}-seed{seed}")
    return Training(multitask.NAME, dataclasses.replace(config, train=train), steps, 1 + config.model.stages)


def _constant(task: StagedTask) -> dict[str, Any]:
    """What one prediction for all crops reaches: most frequent class, mean depth, mean normal, mean pose.

    The crop itself is known: depth in metres follows its magnification, and the pose its box.
    """
    import torch
    from torch import Tensor, nn

    from rpgmt.data.loader import validation_loader
    from rpgmt.engine.evaluate import evaluate
    from rpgmt.models import STRIDE

    class Constants(nn.Module):
        def forward(self, images: Tensor, stop_after: int | None = None) -> list[dict[str, Tensor]]:
            size = (images.shape[2] // STRIDE, images.shape[3] // STRIDE)
            return [{name: value.to(images).expand(len(images), -1, *size) for name, value in constants.items()}]

    print("constants …", flush=True)
    every = -(-len(task.train_data) // CONSTANT_SAMPLES)
    train = task.config.train
    batches = validation_loader(task.train_data, train.batch_size, world_size=every)  # every so many-th sample
    with torch.no_grad():
        constants = {name: head.constant(batches) for name, head in task.heads.items()}
    return {"val": evaluate(task, Constants(), batch_size=train.batch_size, device=train.device).metrics}


def _rows(text: str) -> list[str]:
    chosen = [row.strip() for row in text.split(",")]
    for row in chosen:
        if row not in ROWS:
            raise UserError(f"`--rows` is {text!r}: {did_you_mean(row, ROWS)}rows: {', '.join(ROWS)}")
    return [row for row in ROWS if row in chosen]
