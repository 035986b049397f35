"""Runs that are compared, interrupted, and made by two processes."""

from __future__ import annotations

import csv
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from rpgmt.config import TrainConfig
from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.engine.device import make_fabric


def two_processes(target: Callable[[int], Any]) -> list[int | None]:
    """Run ``target(rank)`` in two processes, as a launcher would start them; return their exit statuses."""
    return several_processes(2, target)


def several_processes(count: int, target: Callable[[int], Any]) -> list[int | None]:
    """Run ``target(rank)`` in so many processes, as a launcher would start them; return their exit statuses."""
    make_fabric(TrainConfig(device="cpu"))  # what takes seconds to import is imported here, once for all that are forked
    import_module("torch._dynamo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(rank: int) -> None:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": 0, "LOCAL_RANK": rank, "WORLD_SIZE": count}
        os.environ.update({name: str(value) for name, value in place.items()})
        torch.set_num_threads(1)
        try:
            target(rank)
        except Exception:
            traceback.print_exc()
            os._exit(1)

    processes = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def assert_same_end(out: Path, whole: Path) -> None:
    files = [load_file(folder / "model.safetensors") for folder in (out, whole)]
    states = [load_checkpoint(folder / "checkpoints/last.ckpt") for folder in (out, whole)]
    for a, b in (files, states):
        assert_equal(a, b)
    assert_equal(*[load_checkpoint(folder / "checkpoints/best.ckpt") for folder in (out, whole)])
    assert validations(out) == validations(whole)


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds"}:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


def validations(out: Path) -> list[dict[str, str]]:
    """The rows of validations, but for what depends on time, and on where training losses were written last."""
    with (out / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/score"]]
    return [{k: v for k, v in row.items() if k.startswith(("val/", "step", "epoch", "lr"))} for row in rows]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def at(batch: int, action: Callable[[], None]) -> Callable[[int, dict[str, Any]], None]:
    return lambda number, losses: action() if number == batch else None
