"""ResNets with generated weights, and what else gives fewer parameters: accuracy, parameters, bytes, time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpgmt import cli
from rpgmt.config import TrainConfig, to_dict, to_yaml
from rpgmt.errors import UserError
from tasks import classification
from tasks.classification import ClassificationTask, Config
from tools.benchmarks import read_seeds
from tools.benchmarks.classification import rows as table
from tools.benchmarks.classification.rows import EQUILIBRIUM, EQUILIBRIUM_RECIPE, QUANTIZED, Row

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
    parser.add_argument("--rows", metavar="ROW,...", help=f"networks to compare, of {', '.join(table.ROWS)} (default: all)")
    parser.add_argument("--sizes", default=table.SIZES, help=f"N of the banks of ResNet-18 (default: {table.SIZES})")
    parser.add_argument("--block-size", help="the one of them for banks by block and for ResNet-34 (default: the middle one)")
    parser.add_argument("--seeds", metavar="K,...", help="train every network with each of these (default: that of --seed)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once; more than one have a thread each (default: 1)")
    parser.add_argument("--finetune-epochs", type=int, help="of networks that are pruned or projected (default: --epochs / 5)")
    parser.add_argument("--finetune-lr", type=float, help="their learning rate (default: --lr / 10)")
    parser.add_argument("--equilibrium-epochs", type=int, help="of the equilibrium network (default: --epochs)")
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write the figures here, too")
    arguments, config = cli.parse_config(parser, argv, ClassificationTask.name, Config)
    _refuse_own_flags(argv)
    seeds = read_seeds(arguments.seeds) if arguments.seeds else [config.train.seed]
    families = table.read_rows(arguments.rows)
    for flag in ("jobs", "finetune_epochs", "equilibrium_epochs"):
        if (value := getattr(arguments, flag)) is not None and value < 1:
            raise UserError(f"`--{flag.replace('_', '-')}` is {value}: give at least 1")
    if arguments.finetune_lr is not None and not arguments.finetune_lr > 0:
        raise UserError(f"`--finetune-lr` is {arguments.finetune_lr}: give more than 0")
    out = config.train.out or OUT
    if (out / "checkpoints").exists():
        raise UserError(f"`--out` is {out}: the folder of one run; give that of a comparison, or a new one")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, out=None, resume=False, seed=seeds[0]))

    print("loading torch …", flush=True)
    from rpgmt.engine.device import for_this_machine
    from tools.benchmarks.classification.report import Report

    config = for_this_machine(config)
    sizes = table.read_sizes(arguments.sizes, arguments.block_size, config)
    finetune = _finetune(config.train, arguments.finetune_epochs, arguments.finetune_lr)
    equilibrium = {**EQUILIBRIUM_RECIPE, "epochs": arguments.equilibrium_epochs or config.train.epochs}
    rows = table.plan(config, families, sizes, finetune, dataclasses.replace(config.train, **equilibrium))
    task = classification.build(config)
    data = task.data_summary()  # reads the images, which several trainings at once would all decode
    trainings = {(row.name, seed): _training(row, seed, out, task) for seed in seeds for row in rows}
    for training in trainings.values():
        training.check()
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text(to_yaml(config, task=task.name), encoding="utf-8")

    failed = _train(rows, trainings, arguments.jobs)
    results = _measure(rows, trainings, failed, task, out)
    recipes = {"fine-tuning": finetune, EQUILIBRIUM: dataclasses.replace(config.train, **equilibrium)}
    report = Report(task.metric_label, seeds, rows, results, failed, sizes, data["val_images"])
    report.print()
    about = {"config": to_dict(config), "data": data, "recipes": {name: to_dict(recipe) for name, recipe in recipes.items()}}
    report.write(out, about, arguments.json)
    if failed:
        print(f"failed: {', '.join(f'{name}-seed{seed}' for name, seed in failed)}; the same command tries them again")
    return 1 if failed else 0


def _refuse_own_flags(argv: Sequence[str]) -> None:
    for word in argv:
        if (flag := word.split("=")[0]) in OWN_FLAGS:
            raise UserError(f"`{flag}` is each row's own: leave it out; --rows and --sizes choose what is compared")


def _finetune(train: TrainConfig, epochs: int | None, lr: float | None) -> TrainConfig:
    """Further training: what a network has learnt would be lost at the rate that it began with."""
    return dataclasses.replace(train, epochs=epochs or max(1, train.epochs // 5), lr=lr or train.lr / 10, warmup_steps=0)


def _training(row: Row, seed: int, out: Path, task: ClassificationTask) -> Training:
    from tools.benchmarks.common.trainings import Training, count_steps

    train = dataclasses.replace(row.config.train, seed=seed, out=out / f"{row.name}-seed{seed}")
    program = None
    if row.derived:
        source = ["--source", str(out / f"{row.source}-seed{seed}")] if row.source else []
        parameters = ["--parameters", str(row.parameters)] if row.parameters else []
        program = (str(DERIVE), row.family, *source, *parameters)
    steps = 0 if row.family in QUANTIZED else count_steps(task.train_data, train)
    config = dataclasses.replace(row.config, train=train)
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


def _measure(
    rows: Sequence[Row],
    trainings: dict[tuple[str, int], Training],
    failed: dict[tuple[str, int], str],
    task: ClassificationTask,
    out: Path,
) -> dict[str, dict[int, dict[str, Any]]]:
    """The figures of all that is trained, by row and seed; each is written beside its run folder. Timed here, one by one."""
    from tools.benchmarks.classification import inference_time
    from tools.benchmarks.classification.derive import trained

    images = inference_time.images_to_time(task)
    by_name = {row.name: row for row in rows}
    results: dict[str, dict[int, dict[str, Any]]] = {}
    print("timing inference …", flush=True)
    for (name, seed), training in trainings.items():
        run = training.result()
        if run is None or (name, seed) in failed:
            continue
        row = by_name[name]
        before = trainings[row.source, seed] if row.source else None
        source = before.folder.path if before else None
        try:
            model = trained(row.family, training.config, training.folder.path, source, row.parameters)
            times = inference_time.inference(model, images)
        except Exception as error:  # one network that cannot be run does not take the others' figures away
            failed[name, seed] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            continue
        record = _record(run, times, _epochs(training, task))
        if before is not None:
            earlier = before.result() or {}
            record |= {"epochs_before": _epochs(before, task), "seconds_before": earlier.get("seconds")}
        results.setdefault(name, {})[seed] = record
        text = json.dumps({"row": name, "seed": seed, **record}, indent=2, allow_nan=False)
        (out / f"{name}-seed{seed}.json").write_text(text + "\n", encoding="utf-8")
    return results


def _record(run: dict[str, Any], times: dict[str, Any], epochs: float) -> dict[str, Any]:
    parameters = run["parameters"]
    return {
        **{name: run["val"][name] for name in ("top1", "top5")},
        **{name: parameters[name] for name in ("bank", "generated", "fixed", "trainable")},
        "remaining": parameters.get("remaining", parameters["trainable"]),
        "bytes": run["bytes"]["model_file"],
        # What a network with zeros in its weights would need is up to the library that runs it.
        "macs": run["macs"],
        **times,
        "seconds": run["seconds"],
        "epochs": epochs,
    }


def _epochs(training: Training, task: ClassificationTask) -> float:
    from tools.benchmarks.common.trainings import count_steps

    one = dataclasses.replace(training.config.train, epochs=1, max_steps=None)
    return round(training.steps / count_steps(task.train_data, one), 2)
