"""What several processes send each other in a training step, and what optimizer and moving average keep."""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import track
from rich.table import Table

from tools.benchmarks.step.fresh_processes import run_all
from tools.benchmarks.step.networks import NONE, RPG

if TYPE_CHECKING:
    from tools.benchmarks.step.training_step import TimedStep

BATCH = 2
"""Images of each process: what is sent does not depend on them."""
DECAY = 0.999
"""Of the moving average, which is made whether the config has one or not."""
TIMEOUT = timedelta(minutes=5)
MB = 10**6

Bytes = dict[str, int]
"""`generated`: of the generated weights or the banks that they come from; `rest`: of everything else; `all`."""


def measure(config: Any, counts: list[int]) -> dict[str, Any]:
    """One training step of the plain network and of the generated one in so many processes, on CPUs.

    Returns:
        `reduced`: for each number of processes the `bytes` that each process hands to the all-reduce (`none` and `rpg`, each
        `generated`, `rest` and `all`), `ratios` of rpg to none, and `ring`: how many times that many bytes each process sends
        in a ring. `optimizer` and `ema`: the same bytes and ratios of what they keep.
    """
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulate=1, compile=False, ema=DECAY))
    reduced = []
    for count in track(counts, "processes", transient=True):
        with tempfile.TemporaryDirectory() as folder:
            meeting = f"file://{Path(folder).resolve()}/meeting"
            found = run_all(_process, [(config, rank, count, meeting) for rank in range(count)])
        if any(other != found[0] for other in found):
            raise RuntimeError(f"{count} processes counted different bytes: {found}")
        kinds = found[0]
        sent = {kind: values["reduced"] for kind, values in kinds.items()}
        reduced.append({"processes": count, "ring": 2 * (count - 1) / count, **_compare(sent)})
    record: dict[str, Any] = {"reduced": reduced}
    for name in ("optimizer", "ema"):
        record[name] = _compare({kind: values[name] for kind, values in kinds.items()})
    return record


def _compare(sizes: dict[str, Bytes]) -> dict[str, Any]:
    return {"bytes": sizes, "ratios": {part: sizes[RPG][part] / sizes[NONE][part] for part in sizes[NONE]}}


def _process(config: Any, rank: int, count: int, meeting: str) -> dict[str, dict[str, Bytes]]:
    """In each process: what one step of each kind takes."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=TIMEOUT)
    try:
        return _count(config)
    finally:
        dist.destroy_process_group()


def _count(config: Any) -> dict[str, dict[str, Bytes]]:
    import torch

    from rpgmt.rpg.layers import banks_of
    from rpgmt.rpg.report import report
    from tools.benchmarks.step.training_step import TimedStep

    steps = {kind: TimedStep(config, kind, torch.device("cpu"), batch_size=BATCH) for kind in (RPG, NONE)}
    generated = {
        RPG: {f"{name}.values" for name in banks_of(steps[RPG].task.model)},
        NONE: {f"{name}.weight" for name in report(steps[RPG].task.model).converted},
    }
    return {kind: _step(step, generated[kind]) for kind, step in steps.items()}


def _step(timed: TimedStep, generated: set[str]) -> dict[str, Bytes]:
    """Takes one step, and counts what is sent in it and kept after it."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    from torch.nn.parallel import DistributedDataParallel

    model, engine = timed.task.model, timed.step
    names = {parameter: name for name, parameter in model.named_parameters()}
    sent: list[tuple[str, int]] = []

    def count(bucket: Any) -> Any:
        width = bucket.buffer().element_size()
        parts = [(names[parameter], width * parameter.numel()) for parameter in bucket.parameters()]
        assert sum(size for _, size in parts) == width * bucket.buffer().numel()
        sent.extend(parts)
        return allreduce_hook(wrapped.process_group, bucket)

    with warnings.catch_warnings():
        # torch 2.11 does not know the new name of this argument.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        wrapped = DistributedDataParallel(model, broadcast_buffers=False)  # as training has it
    wrapped.register_comm_hook(None, lambda _, bucket: count(bucket))
    engine.network = wrapped
    timed.run()
    assert engine.ema is not None
    kept = [
        (name, sum(value.nbytes for value in engine.optimizer.state[parameter].values() if _is_like(value, parameter)))
        for parameter, name in names.items()
    ]
    average = [(name, tensor.nbytes) for name, tensor in engine.ema.state_dict().items()]
    return {
        "reduced": _split(sent, generated),
        "optimizer": _split(kept, generated),
        "ema": _split(average, generated),
    }


def _is_like(value: Any, parameter: Any) -> bool:
    """Whether it is one value a parameter, and not the number of steps."""
    return getattr(value, "shape", None) == parameter.shape


def _split(sizes: Iterable[tuple[str, int]], generated: set[str]) -> Bytes:
    parts = {"generated": 0, "rest": 0}
    for name, size in sizes:
        parts["generated" if name in generated else "rest"] += size
    return {**parts, "all": sum(parts.values())}


def table(title: str, record: dict[str, Any]) -> Table:
    """What `measure` found."""
    result = Table(title=title, title_justify="left")
    result.add_column("MB of each process")
    for part in ("generated part", "all"):
        for column in (f"{part}: none", "rpg", "ratio"):
            result.add_column(column, justify="right")
    for row in record["reduced"]:
        _add(result, f"all-reduced by {row['processes']} processes; a ring sends ×{row['ring']:.2f}", row)
    _add(result, "kept by the optimizer", record["optimizer"])
    _add(result, "kept by the moving average", record["ema"])
    return result


def _add(table: Table, name: str, row: dict[str, Any]) -> None:
    cells = []
    for part in ("generated", "all"):
        cells += [f"{row['bytes'][kind][part] / MB:.2f}" for kind in (NONE, RPG)] + [f"{row['ratios'][part]:.3f}"]
    table.add_row(name, *cells)
