"""The time of inference: the plain network, the generated one baked, and the generated one as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

import rpgmt
from rpgmt.engine.device import pick_precision
from tools.benchmarks.common.stopwatch import DeviceStopwatch
from tools.benchmarks.common.turns import quartiles, ratios, shuffled
from tools.benchmarks.step.networks import NONE, RPG
from tools.benchmarks.step.training_step import autocast, build, images

BAKED = "rpg, baked"


def measure(config: Any, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Takes turns of a forward pass of each in changing order; the unbaked network makes its weights once, in the first.

    Args:
        config: With `model: ModelConfig` and `train: TrainConfig`.
        device: Where they run.
        rounds: Turns of each.

    Returns:
        One row each: `median_ms`, and the ratio to the plain network within a turn.

    Raises:
        RuntimeError: The baked network is not the plain one.
    """
    plain, generated = build(config, NONE, device), build(config, RPG, device)
    baked = rpgmt.bake(copy.deepcopy(generated))
    check_same(plain, baked)
    models: dict[str, nn.Module] = {NONE: plain, BAKED: baked, RPG: generated}
    batch = images(config, device, config.train.batch_size)
    precision = pick_precision(config.train.precision, device.type)
    for model in models.values():
        model.eval()
        if config.train.compile:
            model.compile()
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in track(range(-1, rounds), "forward passes", transient=True):  # weights and kernels are made in the first one
        for name in shuffled(list(models), turn):
            spent = _forward(models[name], batch, precision)
            if turn >= 0:
                seconds[name].append(spent)
    rows = []
    for name, own in seconds.items():
        low, median, high = quartiles(own)
        times = {"median_ms": 1000 * median, "quartiles_ms": [1000 * low, 1000 * high]}
        rows.append({"network": name, **times, **ratios(own, seconds[NONE])})
    return rows


@torch.no_grad()
def _forward(model: Callable[[Tensor], Any], batch: Tensor, precision: str) -> float:
    clock = DeviceStopwatch(batch.device)
    with autocast(precision, batch.device):
        model(batch)
    return clock.stop()["step"]


def check_same(plain: nn.Module, baked: nn.Module) -> None:
    """Compares modules by name and type, and tensors by name, shape and type.

    Raises:
        RuntimeError: They differ; the line names the first difference.
    """
    for what, of in (("module", _modules), ("tensor", _tensors)):
        own, other = of(plain), of(baked)
        for name in {**own, **other}:
            if own.get(name) != other.get(name):
                raise RuntimeError(
                    f"the baked network is not the plain one: {what} `{name}` is {own.get(name)} there, {other.get(name)} here"
                )


def _modules(model: nn.Module) -> dict[str, Any]:
    return {name: type(module) for name, module in model.named_modules()}


def _tensors(model: nn.Module) -> dict[str, Any]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    """What `measure` found."""
    result = Table(title=title, title_justify="left")
    for column in ("network", "ms, median", "quartiles", "ratio to none, median", "quartiles"):
        result.add_column(column, justify="left" if column == "network" else "right")
    for row in rows:
        (low, high), (less, more) = row["quartiles_ms"], row["ratio_quartiles"]
        times = [f"{row['median_ms']:.1f}", f"{low:.1f} … {high:.1f}"]
        result.add_row(row["network"], *times, f"{row['ratio']:.3f}", f"{less:.3f} … {more:.3f}")
    return result
