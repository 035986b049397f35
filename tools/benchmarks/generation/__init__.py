"""Weights made from a bank and their gradients brought back: ours, the authors' formula, gathers, a copy."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpgmt import cli
from rpgmt.errors import UserError
from tools.benchmarks import check_rounds, quartiles, ratios

if TYPE_CHECKING:
    import torch

    from rpgmt.rpg.layout import Segment
    from tools.benchmarks.generation.kinds import Kind, Problem

LAYERS = "32768,147456,32768"
"""1×1, 3×3 and 1×1 convolutions of a residual block of 256 channels, 128 inside: what hourglasses are made of."""
AUTHORS, COPY, GATHER = "authors' formula", "copy", "gather, 32-bit indices"
PARTS = ("forward", "backward", "total")
CHECKED, CHECKED_IN_SWEEP = 16_000_000, 1_000_000
"""Weights that are compared with the authors' formula before anything is timed: the first layers up to so many."""
AUTHORS_BYTES = 56
"""Memory that the authors' formula takes a weight: tables 12, weights and gradients, and what drawing the tables takes."""
POINT_SECONDS = 60.0
"""A sweep's point takes no more turns than that, but one of each kind."""


@dataclass(frozen=True)
class Setting:
    """What holds for all measurements of a run."""

    layers: tuple[int, ...]
    blocks: tuple[int, ...]
    rounds: int
    dtype: torch.dtype
    device: torch.device
    split: bool
    compile: bool
    queued: bool


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
    parser.add_argument("--rounds", type=int, default=20, help="turns of each kind (default: 20)")
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
    parser.add_argument("--json", type=cli.output_file, metavar="FILE", help="write the figures here, too")
    arguments = parser.parse_args(argv)
    check_rounds(arguments.rounds)
    blocks = _blocks(arguments.blocks)
    _check_flags(arguments)

    import torch

    from rpgmt.engine.device import pick_device
    from rpgmt.tables import write_json

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
            record = _compare(setting, generated, size)
        else:
            default = "1G" if device.type == "cuda" else "100M"
            largest = _size(arguments.sweep or default, "--sweep", generated)
            record = _sweep(setting, generated, size, largest, arguments.figure)
    if arguments.json:
        write_json(arguments.json, record)
    return 0


# ---- what is asked


def _check_flags(arguments: Any) -> None:
    if arguments.threads is not None and arguments.threads < 1:
        raise UserError(f"`--threads` is {arguments.threads}: give at least 1")
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


def _blocks(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) < 2**31 for part in parts) or len(set(map(int, parts))) < len(parts):
        raise UserError(f"`--blocks` is {text!r}: give different whole numbers from 1 to {2**31 - 1}, e.g. 1,16,64")
    return tuple(int(part) for part in parts)


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


def _segments(layers: Sequence[int], generated: int) -> list[Segment]:
    """Layers of these sizes, over and over, until there are `generated` weights; the last one is cut.

    A scale is what `Bank` gives a layer that Kaiming's initialiser fills with a deviation of √(2 / (weights / 256 inputs)).
    """
    from rpgmt.rpg.layout import Segment

    segments = []
    for numel in itertools.cycle(layers):
        numel = min(numel, generated)
        segments.append(Segment(numel, (512 / numel) ** 0.5 / 0.05))
        generated -= numel
        if not generated:
            return segments
    raise AssertionError


# ---- measuring


def _compare(setting: Setting, generated: int, size: int) -> dict[str, Any]:
    from rpgmt.tables import print_table

    point = _point(setting, generated, size, everything=True)
    title = _title(setting, point)
    print_table(_table(title, point["rows"]))
    return {"title": title, **_facts(setting), **point}


def _sweep(setting: Setting, generated: int, size: int, largest: int, figure: Path | None) -> dict[str, Any]:
    """Measures both series; prints and draws them."""
    from rpgmt.tables import print_table

    series = {
        "generated": [(m, max(1, round(m * size / generated))) for m in _decades(largest)],
        "size": [(generated, max(1, generated // 4**k)) for k in reversed(range(6))],
    }
    record: dict[str, Any] = {"title": f"generation, {_machine(setting)}", **_facts(setting), "series": {}}
    for name, problems in series.items():
        points = record["series"][name] = []
        for m, n in problems:
            points.append(_point(setting, m, n, everything=False))
            print_table(_table(_title(setting, points[-1]), points[-1]["rows"]))
    if figure:
        from tools.benchmarks.generation.figure import draw

        draw(record["series"], record["title"], figure)
        print(f"written: {figure}")
    return record


def _decades(largest: int) -> list[int]:
    """`largest` and what is √10, 10, … times smaller, down to a million; but three at least."""
    numbers = [max(1, round(largest / 10 ** (k / 2))) for k in range(20)]
    return [number for k, number in enumerate(numbers) if k < 3 or number >= 1_000_000][::-1]


def _point(setting: Setting, generated: int, size: int, *, everything: bool) -> dict[str, Any]:
    """Measures one problem: all kinds, or those of a sweep."""
    from tools.benchmarks.generation.kinds import Problem, check

    segments = _segments(setting.layers, generated)
    checked = min(generated, CHECKED if everything else CHECKED_IN_SWEEP)
    for block in setting.blocks:
        check(Problem(size, _segments(setting.layers, checked), setting.dtype, setting.device), block)
    problem = Problem(size, segments, setting.dtype, setting.device)
    kinds = _kinds(problem, setting, everything)
    seconds = _time_all(kinds, setting, problem.device, float("inf") if everything else POINT_SECONDS)
    rows = [_row(kind, seconds, generated) for kind in kinds]
    rounds = len(seconds[COPY]["total"])
    del problem, kinds  # before the next problem takes its memory
    _free(setting)
    return {"generated": generated, "size": size, "layers": len(segments), "rounds": rounds, "rows": rows}


def _kinds(problem: Problem, setting: Setting, everything: bool) -> list[Kind]:
    import torch

    from tools.benchmarks.generation import kinds as kinds_of

    kinds = []
    need = AUTHORS_BYTES * problem.generated
    free = min(_free_bytes(device) for device in (problem.device, torch.device("cpu")))  # the tables are drawn on the CPU
    if need < free:
        kinds.append(kinds_of.authors(problem))
    else:
        print(
            f"{AUTHORS} is left out at {problem.generated:,} weights: it needs {need / 1e9:.0f} GB, free are {free / 1e9:.0f}"
        )
    kinds += [kinds_of.ours(problem, block) for block in setting.blocks]
    if setting.split:
        kinds += [kinds_of.ours(problem, block, split=True) for block in setting.blocks]
    if setting.compile:
        kinds.append(kinds_of.compiled(problem))
    if everything:
        kinds += [kinds_of.gather(problem, integer) for integer in (torch.int32, torch.int64)]
        kinds.append(kinds_of.copy_in_place(problem))
    return [*kinds, kinds_of.copy(problem)]


def _time_all(kinds: Sequence[Kind], setting: Setting, device: torch.device, limit: float) -> dict[str, dict[str, list[float]]]:
    """Seconds of each kind's parts in each turn; turns end early where they take longer than `limit` seconds."""
    from rich.progress import track

    pauses = {kind.name: 0 for kind in kinds}
    for kind in kinds:  # memory and kernels are made in the first turn
        _turn(kind, device)
        started = time.perf_counter()
        _turn(kind, device)
        if setting.queued:  # cycles of up to 2 GHz that outlast the calls of one turn
            pauses[kind.name] = int(2e9 * (2 * (time.perf_counter() - started) + 1e-3))
    seconds: dict[str, dict[str, list[float]]] = {kind.name: {part: [] for part in PARTS} for kind in kinds}
    started = time.perf_counter()
    for turn in track(range(setting.rounds), "generation", transient=True):
        if turn and time.perf_counter() - started > limit:
            break
        first = turn % len(kinds)
        for kind in (*kinds[first:], *kinds[:first]):
            for part, value in zip(PARTS, _turn(kind, device, pauses[kind.name]), strict=True):
                seconds[kind.name][part].append(value)
    return seconds


def _turn(kind: Kind, device: torch.device, pause: int = 0) -> tuple[float, float, float]:
    """Seconds of forward, backward, and both.

    Args:
        kind: what is timed.
        device: where.
        pause: on CUDA, cycles for which the device waits while the calls come in, which then cost the device's time alone.
    """
    import torch

    if device.type != "cuda":
        started = time.perf_counter()
        weights = kind.forward()
        between = time.perf_counter()
        kind.backward(weights)
        ended = time.perf_counter()
        return between - started, ended - between, ended - started
    events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
    torch.cuda.synchronize(device)
    if pause:
        torch.cuda._sleep(pause)
    events[0].record()
    weights = kind.forward()
    events[1].record()
    kind.backward(weights)
    events[2].record()
    torch.cuda.synchronize(device)
    forward, backward = (events[i].elapsed_time(events[i + 1]) / 1000 for i in range(2))
    return forward, backward, forward + backward


def _free_bytes(device: torch.device) -> float:
    """Memory that is free on a device; infinite where the system does not say."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if Path("/proc/meminfo").is_file():
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, AttributeError):
        return float("inf")


def _free(setting: Setting) -> None:
    import torch

    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()


# ---- reporting


def _row(kind: Kind, seconds: dict[str, dict[str, list[float]]], generated: int) -> dict[str, Any]:
    own = seconds[kind.name]
    row: dict[str, Any] = {"kind": kind.name}
    for part in PARTS:
        low, median, high = (1000 * value for value in quartiles(own[part]))
        row[f"{part}_ms"], row[f"{part}_ms_quartiles"] = median, [low, high]
    formula = seconds.get(AUTHORS)
    row["times_as_fast_as_authors"] = {part: ratios(formula[part], own[part]) for part in PARTS} if formula else None
    for name, other in (("gather", seconds.get(GATHER)), ("copy", seconds[COPY])):
        row[f"ratio_to_{name}"] = {part: ratios(own[part], other[part]) for part in PARTS} if other else None
    row["bytes_per_weight"] = kind.table_bytes / generated
    row["build_seconds"] = kind.build_seconds
    return row


def _table(title: str, rows: Iterable[dict[str, Any]]) -> Any:
    from rich.table import Table

    rows = list(rows)
    compared = [name for name in ("gather", "copy") if rows[0][f"ratio_to_{name}"]]
    table = Table(title=title, title_justify="left")
    table.add_column("")
    columns = ["forward\nms", "and back-\nward, ms", "\nquartiles", "authors'\n/ own", "\nquartiles"]
    for name in compared:
        columns += [f"own / {name}\nforward", "\nbackward"]
    for column in (*columns, "table bytes\na weight", "made\nin s"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [row["kind"], f"{row['forward_ms']:.3g}", f"{row['total_ms']:.3g}", _span(row["total_ms_quartiles"])]
        faster = row["times_as_fast_as_authors"]
        cells += [f"{faster['total']['ratio']:.2f}", _span(faster["total"]["ratio_quartiles"])] if faster else ["n/a", ""]
        for name in compared:
            cells += [f"{row[f'ratio_to_{name}'][part]['ratio']:.2f}" for part in ("forward", "backward")]
        seconds = row["build_seconds"]
        table.add_row(*cells, f"{row['bytes_per_weight']:.2f}", "" if seconds is None else f"{seconds:.2f}")
    return table


def _span(pair: Sequence[float]) -> str:
    return f"{pair[0]:.3g} … {pair[1]:.3g}"


def _title(setting: Setting, point: dict[str, Any]) -> str:
    counts = f"M = {point['generated']:,} weights of {point['layers']:,} layers from N = {point['size']:,}"
    return f"generation, {counts}, {_machine(setting)}"


def _machine(setting: Setting) -> str:
    import torch

    threads = torch.get_num_threads()
    where = f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    if setting.device.type == "cuda":
        where = torch.cuda.get_device_name(setting.device)
    queued = ", the device's time alone" if setting.queued else ""
    return f"{str(setting.dtype).removeprefix('torch.')}, {where}{queued}, torch {torch.__version__}"


def _facts(setting: Setting) -> dict[str, Any]:
    import torch

    return {
        "device": setting.device.type,
        "threads": torch.get_num_threads(),
        "dtype": str(setting.dtype).removeprefix("torch."),
        "queued": setting.queued,
    }
