"""Time of inference, by the same clock for all networks."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import rpgmt
from rpgmt.baselines.equilibrium import MultiscaleEquilibrium
from tasks.classification import ClassificationTask

BATCH = 32
"""Images that are timed at once."""
REPEATS = 7
LEAST_REPEATS = 3
ENOUGH_SECONDS = 10.0
"""After which a slow network is timed no more often than `LEAST_REPEATS`."""


def images_to_time(task: ClassificationTask) -> Tensor:
    """(BATCH, 3, H, W): the first images of the validation set, from the start again where it has fewer."""
    data = task.val_data
    return task.images(torch.utils.data.default_collate([data[0, i % len(data)] for i in range(BATCH)]))


def measure(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """Milliseconds an image on one thread of the CPU; of an equilibrium network how its solver fared on them, too.

    Weights are made before: generated ones are baked, and weight norm is folded in. The better of two memory formats counts,
    since which one suits differs from network to network.

    Args:
        model: is changed.
        images: (B, 3, H, W).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rpgmt.bake(model).eval()
        for module in list(model.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
        formats: tuple[Any, ...] = (torch.contiguous_format, torch.channels_last)
        times = [_seconds(model.to(memory_format=layout), images.contiguous(memory_format=layout)) for layout in formats]
    finally:
        torch.set_num_threads(threads)
    found: dict[str, Any] = {"ms": 1000 * min(times) / len(images)}
    for module in model.modules():
        if isinstance(module, MultiscaleEquilibrium):
            found |= {"function_evaluations": module.function_evaluations, "residual": module.residual}
    return found


@torch.no_grad()
def _seconds(model: nn.Module, images: Tensor) -> float:
    model(images)
    times: list[float] = []
    while len(times) < LEAST_REPEATS or (len(times) < REPEATS and sum(times) < ENOUGH_SECONDS):
        start = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
