"""A training step of the same network with stages independent, tied and generated."""

from __future__ import annotations

from typing import Any

import tasks as task_package
from rpgmt import cli
from tools.benchmarks.common.flags import add_json, add_rounds, check_positive, read_numbers
from tools.benchmarks.step.networks import KINDS, choose_kinds


def main(argv: list[str], prog: str) -> int:
    """Times a training step of the same pose network with stages independent, tied and generated.

    The kinds take turns, so that whatever else the machine does meets all of them; a ratio is within a turn. The time that
    generation takes alone, and that of a copy of the generated weights, are of the same turns. With `--accumulate` a step has
    so many batches. `--compile`, `--channels-last` and `--precision bf16` make the step that training makes with them.
    """
    name = "pose"
    parser = cli.Parser(prog=prog, description=main.__doc__)
    add_rounds(parser, "turns of each kind")
    parser.add_argument("--kinds", metavar="KIND,...", help=f"of {', '.join(KINDS)} (default: all that differ)")
    parser.add_argument("--memory", action="store_true", help="peak memory of a step of each kind, in a process each")
    parser.add_argument("--wire", metavar="N,...", help="bytes that so many processes all-reduce in a step, e.g. 2,4")
    parser.add_argument("--inference", action="store_true", help="time of a forward pass, plain, baked and generated")
    add_json(parser)
    arguments, config = cli.parse_config(parser, argv, name, cli.find_tasks(task_package)[name].Config)
    check_positive("--rounds", arguments.rounds)
    kinds = choose_kinds(arguments.kinds, config.train)
    counts = []
    if arguments.wire:
        counts = read_numbers("--wire", arguments.wire, "numbers of processes from 2 to 64, e.g. 2,4", least=2, most=64)

    import torch

    from rpgmt import models
    from rpgmt.engine.device import pick_device
    from rpgmt.tables import print_table, write_json
    from tools.benchmarks.step import inference, memory, timing, wire

    models.check_batch_size(config.model, config.train.batch_size)
    device = torch.device(pick_device(config.train.device))
    if arguments.memory:
        memory.check_memory(device.type)

    title = _title(config, device)
    record: dict[str, Any] = {"title": title, "rounds": arguments.rounds}
    record |= timing.measure(config, kinds, device, arguments.rounds)
    for table in timing.tables(f"training step, {title}", record):
        print_table(table)
    if arguments.memory:
        record["memory"] = memory.measure(config, kinds, device.type)
        print_table(memory.table(f"training step, {title}", record["memory"]))
    if counts:
        record["wire"] = wire.measure(config, counts)
        print_table(wire.table(f"data-parallel training step, {_network(config)}", record["wire"]))
    if arguments.inference:
        record["inference"] = inference.measure(config, device, arguments.rounds)
        print_table(inference.table(f"inference, {title}", record["inference"]))
    if arguments.json:
        write_json(arguments.json, record)
    return 0


def _network(config: Any) -> str:
    model = config.model
    width, height = model.input_size
    return f"{model.stages} stages, {model.channels} channels, {width}×{height}, --rpg-size {model.rpg_size}"


def _title(config: Any, device: Any) -> str:
    """Everything that the figures depend on."""
    import torch

    from rpgmt.engine.device import pick_precision

    train = config.train
    words = [_network(config), f"batch {train.batch_size}"]
    words += [f"{train.accumulate} batches a step"] if train.accumulate > 1 else []
    words += [pick_precision(train.precision, device.type), *(["channels-last"] if train.channels_last else [])]
    words += ["compiled"] if train.compile else []
    words += [torch.cuda.get_device_name(device)] if device.type == "cuda" else [device.type]
    return ", ".join([*words, f"{torch.get_num_threads()} threads", f"torch {torch.__version__}"])
