#!/usr/bin/env python
"""Count the parameters of a model: `MODEL`, or `TASK [--config NAME|FILE] [flags]`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

import tasks as task_package
from rpgmt import cli
from rpgmt.config import ModelConfig
from rpgmt.config.presets import CONFIGS
from rpgmt.config.validation import did_you_mean
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def main(argv: list[str], prog: str = "summary.py") -> int:
    """Prints the counting table and the table of modules."""
    tasks = cli.find_tasks(task_package)
    if argv and argv[0].startswith("--config"):
        argv = [_task_of(argv, list(tasks)), *argv]
    if argv and argv[0] in tasks:
        name, rest = argv[0], argv[1:]
        parser = cli.Parser(prog=f"{prog} {name}", description=__doc__)
        _add_outputs(parser)
        arguments, config = cli.parse_config(parser, rest, name, tasks[name].Config)

        from rpgmt.models import build
        from rpgmt.models.width import check_parameters

        if name == "pose" and config.model.heads is None:
            print("heads: COCO's 17 key points; a training takes those of its data")
            config = dataclasses.replace(config, model=config.model.with_heads())
        if isinstance(config.model, ModelConfig):
            check_parameters(config.model)
        model: nn.Module = build(config.model)
        input_size, file = config.model.input_size, None
        title = f"{name}, {config.model.title}"
    else:
        parser = cli.Parser(prog=prog, description=__doc__)
        parser.add_argument("model", metavar="MODEL", help=f"run folder or model file; or a task: {', '.join(tasks)}")
        cli.add_weights(parser)
        _add_outputs(parser)
        arguments = parser.parse_args(argv)

        from rpgmt.engine.model_file import load_model, model_path, read_config

        if not Path(arguments.model).exists():
            known = ", ".join(tasks)
            hint = did_you_mean(arguments.model, tasks)
            raise UserError(f"`{arguments.model}` is neither a run folder or model file nor a task: {hint}tasks: {known}")
        file = model_path(arguments.model, arguments.weights)
        model, title = load_model(file), arguments.model
        input_size = tuple(read_config(file)["model"]["input_size"])

    from rpgmt.models.counting import count
    from rpgmt.rpg.report import report
    from rpgmt.tables import counts_table, modules_table, print_table, write_json

    counts, modules = count(model, input_size), report(model)
    size = file.stat().st_size if file else None
    if arguments.modules:
        print_table(modules_table(modules))
    print_table(counts_table(counts, title, size))
    if arguments.json:
        record: dict[str, Any] = {**counts, "bytes": {"model_file": size}, "banks": modules.banks}
        write_json(arguments.json, record | {"modules": [dataclasses.asdict(row) for row in modules.rows]})
    return 0


def _add_outputs(parser: cli.Parser) -> None:
    parser.add_argument("--modules", action="store_true", help="also list every module with parameters")
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write counts and modules here, too")


def _task_of(argv: list[str], tasks: list[str]) -> str:
    """The task of a config that is named without one: what its file says, else the first that has such a preset."""
    from rpgmt.config import load_yaml

    value = argv[0].partition("=")[2] or (argv[1] if len(argv) > 1 else "")
    first = next((task for task in tasks if (CONFIGS / task / f"{value}.yaml").is_file()), tasks[0])
    return str(load_yaml(value).get("task", first)) if Path(value).is_file() else first


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "summary.py"))
