#!/usr/bin/env python
"""Evaluate a run folder or model file: tools/evaluate.py runs/pose-1 [--data coco --data-root DIR]"""

from __future__ import annotations

import sys
from pathlib import Path

import tasks as task_package
from rpgmt import cli
from rpgmt.config import from_dict
from rpgmt.errors import UserError


def main(argv: list[str]) -> int:
    """Prints the metrics of every stage over the validation set."""
    parser = cli.Parser(prog="evaluate.py", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="run folder or model file")
    parser.add_argument("--data", help="another data set than the model was trained on")
    parser.add_argument("--data-root", help="folder of that data")
    parser.add_argument("--batch-size", type=int, default=64, help="people at a time (default: 64)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="default: auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics here, too")
    arguments = parser.parse_args(argv)
    if arguments.batch_size < 1:
        raise UserError(f"`--batch-size` is {arguments.batch_size}: give at least 1")

    from rpgmt import bake
    from rpgmt.engine.evaluate import evaluate, pick_device
    from rpgmt.engine.model_file import load_model, read_config
    from rpgmt.tables import metrics_table, print_table, write_json

    pick_device(arguments.device)
    saved = read_config(arguments.model)
    tasks = cli.find_tasks(task_package)
    if saved.get("task") not in tasks:
        raise UserError(f"{arguments.model} is of the task {saved.get('task')!r}: tasks here: {', '.join(tasks)}")
    task_module = tasks[saved.pop("task")]
    config = from_dict(task_module.Config, saved)
    data = {"name": arguments.data, "root": arguments.data_root}
    if arguments.data not in (None, config.data.name) and arguments.data_root is None:
        data["root"] = str(task_module.Config().data.root)  # the folder of the other data is no place for these
    config = from_dict(task_module.Config, {"data": {k: v for k, v in data.items() if v is not None}}, config)
    task = task_module.build(config)
    metrics = evaluate(task, bake(load_model(arguments.model)), batch_size=arguments.batch_size, device=arguments.device)
    print_table(metrics_table(metrics, f"{arguments.model} on {task.metric_label}"))
    if arguments.json:
        write_json(arguments.json, {"model": arguments.model, "data": task.metric_label, "val": metrics})
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
