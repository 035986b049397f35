#!/usr/bin/env python
"""Write a trained network for other programs: `runs/pose-1 --format onnx`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

import tasks as task_package
from rpgmt import cli
from rpgmt.config import from_dict
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from rpgmt.engine.task import Task
    from rpgmt.export.agreement import Difference
    from rpgmt.export.int8 import Cost

SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "safetensors": ".safetensors"}


def main(argv: list[str], prog: str = "export.py") -> int:
    """Writes a file, and says how far what it computes is from what PyTorch computes."""
    arguments = _parser(prog).parse_args(argv)
    _check(arguments)

    from rpgmt.engine.model_file import model_path

    source = model_path(arguments.model, arguments.weights)
    out = arguments.out or source.with_name(source.stem + _mark(arguments) + SUFFIXES[arguments.format])
    if out.suffix != SUFFIXES[arguments.format]:
        raise UserError(f"`--out` is {out}: give a name that ends with {SUFFIXES[arguments.format]}")
    if out.resolve() == source.resolve():
        raise UserError(f"`--out` is {out}: it is the model itself: give another name")
    if out.exists():
        raise UserError(f"{out} exists: give another name with `--out`")
    task = _task(arguments, source) if arguments.int8 else None

    from rpgmt.export.network import load

    network = load(source, "last", decode=arguments.decode, stop_after=arguments.stop_after)
    if task is not None:
        from rpgmt.export.int8 import write_int8

        _print_cost(write_int8(network, out, task, opset=arguments.opset), task.metric_label)
    elif arguments.format == "onnx":
        from rpgmt.export.onnx_file import write_onnx

        _print_differences(write_onnx(network, out, half=arguments.half, opset=arguments.opset))
    elif arguments.format == "pt2":
        from rpgmt.export.pt2_file import write_pt2

        _print_differences(write_pt2(network, out, half=arguments.half))
    else:
        from rpgmt.export.plain_file import write_plain

        write_plain(network, out, half=arguments.half)
        print("outputs of the file's network are the same, bit for bit" + (" (both with rounded weights)" * arguments.half))
    print(f"written: {out}, {out.stat().st_size:,} bytes")
    if network.facts.config["model"]["sharing"] == "rpg":
        own = source.stat().st_size
        size = "smaller" if own < out.stat().st_size else "larger" if own > out.stat().st_size else "as large"
        print("It holds the generated weights, and no bank. The model file, with the bank,")
        print(f"is {size}: {own:,} bytes.")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """What can be said before anything is read."""
    kind = arguments.format
    if arguments.half and arguments.int8:
        raise UserError("`--half` and `--int8` are two precisions: give one")
    for flag, given, kinds in (
        ("--int8", arguments.int8, ("onnx",)),
        ("--opset", arguments.opset is not None, ("onnx",)),
        ("--decode", arguments.decode, ("onnx", "pt2")),
    ):
        if given and kind not in kinds:
            raise UserError(f"`{flag}` is for --format {' or '.join(kinds)}: leave it out for {kind}")
    for flag, value in (("--data", arguments.data), ("--data-root", arguments.data_root)):
        if value is not None and not arguments.int8:
            raise UserError(f"`{flag}` is {value}: accuracy is measured with --int8 alone")


def _mark(arguments: argparse.Namespace) -> str:
    """What the file's name tells of it, so that several can lie side by side."""
    precision = "-half" if arguments.half else "-int8" if arguments.int8 else ""
    return ("-plain" if arguments.format == "safetensors" else "") + precision


def _task(arguments: argparse.Namespace, source: Path) -> Task:
    """The set on which the accuracy lost to 8 bits is measured."""
    from rpgmt.engine.model_file import read_config

    tasks, saved = cli.find_tasks(task_package), read_config(source)
    if saved.get("task") not in tasks:
        raise UserError(f"{source} is of the task {saved.get('task')!r}: tasks here: {', '.join(tasks)}")
    module = tasks[saved.pop("task")]
    config: Any = from_dict(module.Config, saved)
    if arguments.data not in (None, config.data.name):  # the first set's folder, split and boxes are not this one's
        config = config.for_another_set()
    given = {"name": arguments.data, "root": arguments.data_root}
    data = {key: value for key, value in given.items() if value is not None}
    evaluation = {"evaluation": {"stop_after": arguments.stop_after}} if arguments.stop_after else {}
    task: Task = module.build(from_dict(module.Config, {"data": data, **evaluation}, config, flags=True))
    return task


def _print_differences(differences: list[Difference], when: str = "") -> None:
    print(f"largest difference from PyTorch in float32, on 4 crops{when}:")
    width = max(len(difference.name) for difference in differences)
    for difference in differences:
        print(f"  {difference.name:{width}}  {difference}")


def _print_cost(cost: Cost, label: str) -> None:
    _print_differences(cost.differences, ", before 8 bits")
    print(f"accuracy on {label}:")
    names = [name for name in cost.float_metrics if "/" not in name and ":" not in name]
    width = max(len(name) for name in names)
    print(f"  {'':{width}}  float32     int8     lost")
    for name in names:
        before, after = cost.float_metrics[name], cost.int8_metrics[name]
        if before is None or after is None:
            print(f"  {name:{width}}  {'n/a':>7}  {'n/a':>7}")
        else:
            print(f"  {name:{width}}  {before:7.3f}  {after:7.3f}  {before - after:+7.3f}")
    print(f"bytes: {cost.float_bytes:,} in float32, {cost.int8_bytes:,} in int8")
    print(f"time of 16 crops on this CPU: {cost.time_ratio:.2f} × that of float32")


def _parser(prog: str) -> cli.Parser:
    parser = cli.Parser(prog=prog, description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="run folder or model file")
    parser.add_argument("--format", required=True, choices=list(SUFFIXES), help="onnx; pt2, of torch.export; plain safetensors")
    parser.add_argument("--out", type=cli.output_file, metavar="FILE", help="a new file (default: beside the model)")
    parser.add_argument("--weights", default="last", choices=["last", "best"], help="of a run folder (default: last)")
    parser.add_argument("--decode", action="store_true", help="outputs are points, classes, depth …, not the network's maps")
    parser.add_argument("--half", action="store_true", help="weights in 16 bits; inputs and outputs stay")
    parser.add_argument("--int8", action="store_true", help="convolutions in 8 bits, with the accuracy lost on a set printed")
    parser.add_argument("--stop-after", type=int, metavar="K", help="the first K stages only")
    parser.add_argument("--opset", type=int, metavar="N", help="of ONNX (default: what PyTorch's exporter takes)")
    data = parser.add_argument_group("with --int8")
    data.add_argument("--data", metavar="NAME", help="the set to measure on (default: the model's own)")
    data.add_argument("--data-root", metavar="DIR", help="its folder")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "export.py"))
