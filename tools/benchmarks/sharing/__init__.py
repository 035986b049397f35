"""Ways of sharing weights between stages, compared at equal parameters: paired by seed, each with a rate of its own."""

from __future__ import annotations

import dataclasses
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasks as task_package
from rpgmt import cli
from rpgmt.config import to_dict
from rpgmt.errors import UserError
from rpgmt.rpg.size import parse_size
from tools.benchmarks.common.comparison import add_rows, add_seeds_and_jobs, exit_status, read_comparison
from tools.benchmarks.common.flags import add_json, check_positive, read_numbers
from tools.benchmarks.sharing.archive import check_name, pack
from tools.benchmarks.sharing.measure import DRAWS
from tools.benchmarks.sharing.rows import ROWS, plan

if TYPE_CHECKING:
    from tools.benchmarks.sharing.grid import Grid

TASKS = ("pose", "multitask")
REPORT = "report"
OWN_FLAGS = ("--sharing", "--rpg-size", "--rpg-scope", "--rpg-block", "--tied-sets", "--parameters", "--lr", "--stage-weights")
HELD_OUT = 0.1
"""Part of the training images by which rates are chosen, where --hold-out does not say it."""


def main(argv: list[str], prog: str) -> int:
    """Trains networks whose stages share weights in different ways, and compares them at equal numbers of parameters.

    `pose` or `multitask` and the flags of its training come first; `report --out DIR` makes tables and figures again from what
    is stored. All networks of a seed see the same samples in the same order. A part of the training images is held out: by it
    each network's learning rate is chosen. The validation set is for the final figure alone, of the last weights.
    """
    if not argv or argv[0] not in (*TASKS, REPORT):
        if argv and argv[0] in ("-h", "--help"):
            print(f"usage: {prog} {{{','.join((*TASKS, REPORT))}}} [flags]\n\n{main.__doc__}")
            raise SystemExit(0)
        raise UserError(f"the task comes first: `{prog} TASK [flags]` with one of {', '.join(TASKS)}, or `{prog} {REPORT}`")
    if argv[0] == REPORT:
        return _report(argv[1:], f"{prog} {REPORT}")
    grid, also = read_grid(argv, prog)

    from tools.benchmarks.common.trainings import train_all
    from tools.benchmarks.sharing.grid import Measurement

    try:
        failed = train_all(
            grid.jobs(),
            grid.asked.jobs,
            what="trainings and measurements",
            ended=grid.ended,
            decisive=lambda job: isinstance(job, Measurement),  # what cannot be measured need not be trained, for days
        )
    except KeyboardInterrupt:
        _show(grid.asked.out, also)
        raise
    _show(grid.asked.out, also)
    return exit_status([job.name for job in failed])


def read_grid(argv: Sequence[str], prog: str) -> tuple[Grid, Path | None]:
    """What a command line asks for, noted in its folder, and where else the figures are to be written.

    Args:
        argv: begins with the task.
        prog: the program's name.

    Raises:
        UserError: a flag has no such value, or the folder holds another comparison.
    """
    module = cli.find_tasks(task_package)[argv[0]]
    parser = cli.Parser(prog=f"{prog} {argv[0]}", description=main.__doc__)
    add_rows(parser, ROWS)
    parser.add_argument("--sizes", default="25%", help="of the banks, of the generated weights, e.g. 25%%,50%% (default: 25%%)")
    parser.add_argument("--stage-counts", metavar="T,...", help="stages of each comparison (default: that of --stages)")
    parser.add_argument(
        "--rates", metavar="LR,...", help="learning rates to choose from for each row (default: that of the task)"
    )
    parser.add_argument("--tuning-seed", type=int, help="of the runs that try the rates (default: the first of --seeds)")
    parser.add_argument("--tuning-epochs", type=int, help="of these runs (default: --epochs, so that they count as runs, too)")
    parser.add_argument("--draws", type=int, help=f"of the bootstrap over images (default: the folder's, or {DRAWS})")
    add_seeds_and_jobs(parser)
    add_json(parser)
    arguments, config = cli.parse_config(parser, argv[1:], argv[0], module.Config)
    return _grid(argv, prog, arguments, config, module), arguments.json


def _grid(argv: Sequence[str], prog: str, arguments: Namespace, config: Any, module: Any) -> Grid:
    """What is asked for, checked before anything is trained, and noted in the folder."""
    for word in argv:
        if (flag := word.split("=")[0]) in OWN_FLAGS:
            raise UserError(f"`{flag}` is each row's own: leave it out; --rows, --sizes, --rates and --stages choose")
    if config.evaluation.stop_after is not None:
        raise UserError(f"`--stop-after` is {config.evaluation.stop_after}: all stages are compared, leave it out")
    if config.train.max_steps is not None or config.train.patience is not None:
        raise UserError("`--max-steps` and `--patience` end runs early: leave them out, --epochs says how long all are trained")
    if arguments.draws is not None:
        check_positive("--draws", arguments.draws, least=2)  # of which there is a deviation
    stages = [config.model.stages]
    if arguments.stage_counts:
        stages = read_numbers("--stage-counts", arguments.stage_counts, "numbers of stages, e.g. 4,8", least=1)
    sizes = _sizes(arguments.sizes)
    rates = _rates(arguments.rates, config.train.lr)
    out = Path(f"runs/benchmark-sharing-{argv[0]}")
    asked, config = read_comparison(arguments, config, ROWS, out)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, hold_out=config.data.hold_out or HELD_OUT),
        train=dataclasses.replace(config.train, seed=0),  # each training has its own
    )

    print("loading torch …", flush=True)
    from rpgmt.engine.device import for_this_machine
    from tools.benchmarks.common.trainings import Training, count_steps
    from tools.benchmarks.sharing.grid import Grid, Tuning
    from tools.benchmarks.sharing.store import read_grid_file, stored_draws, stored_tunings, write_grid

    config = for_this_machine(config)
    tuning_epochs = arguments.tuning_epochs or config.train.epochs
    check_positive("--tuning-epochs", tuning_epochs)
    seed = asked.seeds[0] if arguments.tuning_seed is None else arguments.tuning_seed
    tuning = Tuning(tuple(rates), seed, tuning_epochs)
    # For its data: the rows have networks of their own.
    task = module.build(dataclasses.replace(config, model=dataclasses.replace(config.model, sharing="none", parameters=None)))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, heads=task.config.model.heads))
    rows, notes = plan(config.model, asked.rows, stages, sizes)
    given = {"--rates": arguments.rates, "--tuning-seed": arguments.tuning_seed, "--tuning-epochs": arguments.tuning_epochs}
    before = read_grid_file(asked.out)
    _check_teacher(task, config, asked.out, before)
    stored = stored_tunings(before)
    tunings = {
        row.name: tuning.kept(name, stored[name], given, asked.out) if (name := row.source or row.name) in stored else tuning
        for row in rows
    }
    for note in notes:
        print(f"note: {note}", flush=True)
    draws = stored_draws(asked.out, before) or arguments.draws or DRAWS
    if arguments.draws not in (None, draws):
        raise UserError(
            f"`--draws` is {arguments.draws}: the networks in {asked.out} are measured with {draws}; leave it out, or give "
            "another --out"
        )
    steps = {
        epochs: count_steps(task.train_data, dataclasses.replace(config.train, epochs=epochs))
        for epochs in {config.train.epochs, *(of.epochs for of in tunings.values())}
    }
    final = module.build(dataclasses.replace(task.config, data=dataclasses.replace(config.data, hold_out=0.0)))
    samples = len(task.train_data), len(final.val_data)
    grid = Grid(argv[0], config, asked, tunings, {row.name: row for row in rows}, task.monitor, steps, samples, draws)

    whole = dataclasses.replace(config, train=dataclasses.replace(config.train, out=asked.out))
    asked.begin([Training(argv[0], whole, 0, 0.0), *grid.all_trainings()], config, argv[0])
    about = {"task": argv[0], "monitor": task.monitor, "chosen_by": task.metric_label, "measured_on": final.metric_label}
    about |= {"epochs": config.train.epochs, "steps": steps[config.train.epochs], "batch_size": config.train.batch_size}
    about |= {"train_samples": samples[0], "val_samples": samples[1], "draws": draws, "config": to_dict(config)}
    about |= {"fingerprints": dict(task.fingerprints)}
    entries = {
        row.name: {
            **{key: getattr(row, key) for key in ("kind", "stages", "size", "bits", "source", "channels", "parameters")},
            "seeds": asked.seeds,
            "rates": list(tunings[row.name].rates),
            "tuning_seed": tunings[row.name].seed,
            "tuning_epochs": tunings[row.name].epochs,
        }
        for row in rows
    }
    write_grid(asked.out, about, entries, shlex.join([*prog.split(), *argv]))
    return grid


def _check_teacher(task: Any, config: Any, out: Path, before: dict[str, Any]) -> None:
    """Raises UserError where a teacher does not fit or is another one than before; a note where it may know held-out images."""
    from rpgmt.engine.model_file import read_config

    if before["rows"] and before.get("fingerprints", task.fingerprints) != task.fingerprints:
        raise UserError(f"`teacher`: another network taught those in {out}: give that one, or another --out")
    if task.teacher is None:
        return
    held_out = read_config(config.teacher).get("data", {}).get("hold_out", 0.0)
    if held_out != config.data.hold_out:
        print(
            f"note: `teacher` was trained with hold_out {held_out}, these are with {config.data.hold_out}: it may have learned "
            "the images by which rates are chosen",
            flush=True,
        )


def _sizes(text: str) -> list[str]:
    sizes = [part.strip() for part in text.split(",")]
    for size in sizes:
        try:
            parse_size(size, 10**6, name="--sizes")
        except ValueError as error:
            raise UserError(str(error)) from error
    if len(set(sizes)) < len(sizes):
        raise UserError(f"`--sizes` is {text!r}: give different sizes")
    return sizes


def _rates(text: str | None, default: float) -> list[float]:
    if text is None:
        return [default]
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or len(set(rates)) < len(rates) or not all(0 < rate < 1e3 for rate in rates):
        raise UserError(f"`--rates` is {text!r}: give different learning rates, e.g. 2.5e-3,5e-3,1e-2")
    return rates


def _report(argv: list[str], prog: str) -> int:
    parser = cli.Parser(prog=prog, description="Makes tables, CSV, JSON and figures of a comparison from what is stored.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the comparison")
    parser.add_argument(
        "--pack", type=Path, metavar="FILE", help="keep what the figures are made of, without the networks, in a .tar.xz"
    )
    add_json(parser)
    arguments = parser.parse_args(argv)
    if arguments.pack is not None:
        check_name(arguments.pack)
    _show(arguments.out, arguments.json)
    if arguments.pack is not None:
        size = pack(arguments.out, arguments.pack)
        print(f"{arguments.pack}: {size / 1e3:,.0f} kB; unpacked, it can be reported, and goes on by the same command")
    return 0


def _show(out: Path, also: Path | None) -> None:
    from tools.benchmarks.sharing.report import Report
    from tools.benchmarks.sharing.store import Store

    report = Report(Store.read(out))
    report.print()
    report.write(also)
