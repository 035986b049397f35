#!/usr/bin/env python
"""Evaluate a run folder or model file, e.g. `runs/pose-1 [--data coco --data-root DIR]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

import tasks as task_package
from rpgmt import cli
from rpgmt.config import from_dict
from rpgmt.engine.task import TaskConfig
from rpgmt.errors import UserError

FILES = ("name", "root", "val_split", "hold_out", "val_images", "detections", "detection_threshold")
OF_DATA = (*FILES, "categories", "sigmas", "flip_pairs", "skeleton")
SECTIONS = ("evaluation", *(f"data.{name}" for name in OF_DATA))
"""Of a model's config, what may be another way here than where it was trained."""


def main(argv: list[str], prog: str = "evaluate.py") -> int:
    """Prints the metrics of every stage over the validation set."""
    tasks = cli.find_tasks(task_package)
    if not argv or argv[0].startswith("-"):  # the flags' defaults are the model's: it comes first
        if not {"-h", "--help"} & set(argv):
            raise UserError(f"`MODEL` is missing: give a run folder or model file first, e.g. {prog} runs/pose-1")
        module = tasks["pose"]  # has more of these flags than any other
        cli.parse_overrides(_parser(prog), argv, module.Config, module.Config(), SECTIONS)

    early = cli.Parser(add_help=False)
    cli.add_weights(early)
    weights = early.parse_known_args(argv)[0].weights

    from rpgmt.engine.model_file import check_same_names, load_model, model_path, read_config

    saved = read_config(argv[0], weights)
    if saved.get("task") not in tasks:
        raise UserError(f"{argv[0]} is of the task {saved.get('task')!r}: tasks here: {', '.join(tasks)}")
    module = tasks[saved.pop("task")]
    trained: TaskConfig = from_dict(module.Config, saved)
    arguments, config = cli.parse_overrides(_parser(prog), argv, module.Config, trained, SECTIONS)
    if arguments.batch_size < 1:
        raise UserError(f"`--batch-size` is {arguments.batch_size}: give at least 1")
    if arguments.workers < 0:
        raise UserError(f"`--workers` is {arguments.workers}: give at least 0")
    if config.data.name != trained.data.name:  # the first set's folder, split, boxes and protocol are not this one's
        arguments, config = cli.parse_overrides(_parser(prog), argv, module.Config, trained.for_another_set(), SECTIONS)

    from rpgmt import bake
    from rpgmt.engine.anytime import stage_costs
    from rpgmt.engine.device import pick_device
    from rpgmt.engine.evaluate import evaluate
    from rpgmt.models.refinement import Refinement
    from rpgmt.tables import anytime_table, details_table, metrics_table, print_table, write_json

    device = pick_device(arguments.device)
    model = bake(load_model(arguments.model, weights))
    if arguments.costs and not isinstance(model, Refinement):
        raise UserError(f"`--costs` is for networks that may stop after a stage: {arguments.model} has no stages")
    task = module.build(config)
    check_same_names(model_path(arguments.model, weights), task.reading, task.metric_label)
    if arguments.save_results:
        task.check_results(arguments.save_results)
    found = evaluate(task, model, batch_size=arguments.batch_size, workers=arguments.workers, device=device)
    label = f"{arguments.model}{', best weights,' if weights == 'best' else ''} on {task.metric_label}"
    print_table(metrics_table(found.metrics, label))
    for metric in task.details:
        print_table(details_table(found.metrics, metric, label))
    for line in task.remarks:
        print(line)
    record: dict[str, Any] = {"model": arguments.model, "weights": weights, "data": task.metric_label, "val": found.metrics}
    record |= {"remarks": task.remarks} if task.remarks else {}
    if arguments.costs:
        assert isinstance(model, Refinement)
        record["costs"] = stage_costs(model, config.model.input_size, device)
        print_table(anytime_table(found.metrics, record["costs"], [task.monitor], f"{label}, one image, {device}"))
    if arguments.json:
        write_json(arguments.json, record)
    if arguments.save_results:
        task.save_results(found.predictions, arguments.save_results)
        print(f"written: {arguments.save_results}")
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        task.draw(found.predictions, arguments.pictures)
        task.draw_gallery(found.predictions, model, arguments.pictures / "gallery")
        print(f"written: {arguments.pictures}")
    return 0


def _parser(prog: str) -> cli.Parser:
    parser = cli.Parser(prog=prog, description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="run folder or model file")
    cli.add_weights(parser)
    parser.add_argument("--batch-size", type=int, default=64, help="samples at a time (default: 64)")
    parser.add_argument("--workers", type=int, default=0, help="processes that load data, 0 loads in the main one (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    parser.add_argument("--costs", action="store_true", help="also print accuracy, multiply-accumulates and time by stage")
    parser.add_argument(
        "--save-results", type=cli.output_file, metavar="FILE", help="write what the last stage finds, in COCO's result format"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write predictions.png and a gallery here")
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write the metrics here, too")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "evaluate.py"))
