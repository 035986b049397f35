"""A training step of the same network with stages independent, tied and generated."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tasks as task_package
from rpgmt import cli
from tools.benchmarks import check_rounds, ratios

if TYPE_CHECKING:
    import torch

SHARINGS = ("none", "tied", "rpg")


def main(argv: list[str]) -> int:
    """Times a training step of the same pose network with stages independent, tied and generated.

    The kinds take turns, so that whatever else the machine does meets all of them; a ratio is of neighbouring turns.
    """
    name = "pose"
    parser = cli.Parser(prog="benchmark.py step", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="turns of each kind (default: 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    arguments, config = cli.parse_config(parser, argv, name, cli.find_tasks(task_package)[name].Config)
    check_rounds(arguments.rounds)

    import torch
    from rich.progress import track

    from rpgmt.engine.evaluate import pick_device
    from rpgmt.tables import print_table, write_json

    device = torch.device(pick_device(config.train.device))
    steps = {sharing: _training_step(config, sharing, device) for sharing in SHARINGS}
    for run in steps.values():
        run()  # tables, memory and kernels are made in the first one
        run()
    seconds: dict[str, list[float]] = {sharing: [] for sharing in SHARINGS}
    for turn in track(range(arguments.rounds), "training steps", transient=True):
        for sharing in SHARINGS[turn % 3 :] + SHARINGS[: turn % 3]:
            seconds[sharing].append(_time(steps[sharing], device))
    rows = [_row(sharing, seconds) for sharing in SHARINGS]
    title = (
        f"training step, {config.model.stages} stages, batch {config.train.batch_size}, {config.model.input_size[0]}×"
        f"{config.model.input_size[1]}, {device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print_table(_table(title, rows))
    if arguments.json:
        write_json(arguments.json, {"title": title, "rounds": arguments.rounds, "rows": rows})
    return 0


def _training_step(config: Any, sharing: str, device: torch.device) -> Callable[[], None]:
    """Forward, loss, backward and optimizer step on random images, as training runs them."""
    import torch

    from rpgmt import models, parameter_groups
    from rpgmt.engine.evaluate import pick_precision

    torch.manual_seed(config.train.seed)
    model = models.build(dataclasses.replace(config.model, sharing=sharing)).to(device)
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    width, height = config.model.input_size
    images = torch.randn(config.train.batch_size, 3, height, width, device=device).contiguous(memory_format=layout)
    model.to(memory_format=layout)
    optimizer = torch.optim.Adam(parameter_groups(model, "adam", 1e-4), fused=True)  # as training does
    low = {"bf16": torch.bfloat16, "16": torch.float16}.get(pick_precision(config.train.precision, device.type))

    def run() -> None:
        with torch.autocast(device.type, dtype=low, enabled=low is not None):
            outputs = model(images)
        loss = sum(prediction.float().square().mean() for stage in outputs for prediction in stage.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def _time(run: Callable[[], None], device: torch.device) -> float:
    import torch

    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _row(sharing: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    own, plain = seconds[sharing], seconds["none"]
    return {"sharing": sharing, "median_ms": 1000 * statistics.median(own), **ratios(own, plain)}


def _table(title: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("sharing", "ms, median", "ratio to none, median", "quartiles"):
        table.add_column(column, justify="right")
    for row in rows:
        low, high = row["ratio_quartiles"]
        table.add_row(row["sharing"], f"{row['median_ms']:.0f}", f"{row['ratio']:.3f}", f"{low:.3f} … {high:.3f}")
    return table
