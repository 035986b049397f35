"""Weights made from a bank and their gradients brought back: ours, the authors' formula, gathers, a copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rpgmt import cli
from rpgmt.errors import UserError
from tools.benchmarks.common.flags import add_json, add_rounds, check_positive, read_numbers
from tools.benchmarks.generation.setting import Setting

LAYERS = "32768,147456,32768"
"""1×1, 3×3 and 1×1 convolutions of a residual block of 256 channels, 128 inside: what hourglasses are made of."""
BLOCKS = f"whole numbers from 1 to {2**31 - 1}, e.g. 1,16,64"


def main(argv: list[str], prog: str) -> int:
    """Times forward and backward of generation against the authors' formula, gathers with ready-made indices, and a copy.

    A bank of --size makes --generated weights in layers of --layers, over and over, with the scale that their initialiser
    gives; forward makes the weights, backward takes their gradients and adds the bank's to its `grad`. The authors' formula is
    `bank[index] * sign` times the scale, layer by layer, and autograd's gradient of it. Both results are compared before
    anything is timed. The kinds take turns, so that whatever else the machine does meets all of them; a ratio is of
    neighbouring turns. New memory costs each kind what it costs a network.
    """
    parser = cli.Parser(prog=prog, description=main.__doc__)
    parser.add_argument("--generated", default="12.6M", metavar="M", help="weights that are made (default: 12.6M)")
    parser.add_argument("--size", default="1M", metavar="N", help="of the bank; or a percentage (default: 1M)")
    help_line = f"sizes of the layers, repeated until there are M weights (default: {LAYERS}, a block of an hourglass)"
    parser.add_argument("--layers", default=LAYERS, metavar="M,...", help=help_line)
    parser.add_argument("--blocks", default="1,16,64", metavar="B,...", help="our placements (default: 1,16,64)")
    add_rounds(parser, "turns of each kind")
    parser.add_argument("--dtype", choices=("32", "bf16"), default="32", help="of the generated weights (default: 32)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU (default: its own choice)")
    parser.add_argument("--split", action="store_true", help="ours also layer by layer, whose gradients autograd then joins")
    parser.add_argument("--compile", action="store_true", help="also a generator of torch.compile, without tables")
    help_line = "CUDA: time the device alone, calls waiting in its queue, as where a network's host runs ahead"
    parser.add_argument("--queued", action="store_true", help=help_line)
    help_line = "cost against M up to this (default: 100M, CUDA: 1G) at the same M/N, and against N at the same M"
    parser.add_argument("--sweep", nargs="?", const="", metavar="LARGEST", help=help_line)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the sweep here, as a PNG")
    add_json(parser)
    arguments = parser.parse_args(argv)
    check_positive("--rounds", arguments.rounds)
    blocks = tuple(read_numbers("--blocks", arguments.blocks, BLOCKS, least=1, most=2**31 - 1))
    _check_flags(arguments)

    import torch

    from rpgmt.engine.device import pick_device
    from rpgmt.tables import write_json
    from tools.benchmarks.generation.timing import compare, sweep

    generated = _size(arguments.generated, "--generated")
    size = _size(arguments.size, "--size", generated)
    device = torch.device(pick_device(arguments.device))
    if arguments.queued and device.type != "cuda":
        raise UserError(f"`--queued` is for CUDA: the device is {device.type}, which has no queue")
    setting = Setting(
        layers=tuple(_size(layer, "--layers", generated) for layer in arguments.layers.split(",")),
        blocks=blocks,
        rounds=arguments.rounds,
        dtype={"32": torch.float32, "bf16": torch.bfloat16}[arguments.dtype],
        device=device,
        split=arguments.split,
        compile=arguments.compile,
        queued=arguments.queued,
    )
    with _threads(arguments.threads):
        if arguments.sweep is None:
            record = compare(setting, generated, size)
        else:
            default = "1G" if device.type == "cuda" else "100M"
            largest = _size(arguments.sweep or default, "--sweep", generated)
            record = sweep(setting, generated, size, largest, arguments.figure)
    if arguments.json:
        write_json(arguments.json, record)
    return 0


def _check_flags(arguments: Any) -> None:
    if arguments.threads is not None:
        check_positive("--threads", arguments.threads)
    if arguments.figure and arguments.sweep is None:
        raise UserError("`--figure` draws a sweep: give `--sweep`, too")
    if arguments.figure and arguments.figure.suffix.lower() != ".png":
        raise UserError(f"`--figure` is {arguments.figure}: a PNG is written, give a name that ends in .png")
    if arguments.sweep is not None and (arguments.split or arguments.compile):
        raise UserError(
            "`--sweep` compares our generator, the authors' formula and a copy: leave out `--split` and `--compile`"
        )


def _size(text: str, flag: str, generated: int | None = None) -> int:
    from rpgmt.rpg.size import parse_size

    try:
        return parse_size(text, generated, name=flag)
    except ValueError as error:
        raise UserError(str(error)) from None


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    try:
        if number:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)
