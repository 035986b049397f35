"""What it costs to stop after each stage."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from rpgmt.models.counting import count_macs
from rpgmt.models.refinement import Refinement


@torch.no_grad()
def stage_costs(
    model: Refinement,
    input_size: tuple[int, int],
    device: str | torch.device,
    *,
    batch_size: int = 1,
    rounds: int = 20,
) -> list[dict[str, Any]]:
    """Multiply-accumulates and time of one image, by the number of stages that are computed.

    Every round times each number of stages once, in an order that moves on, so that whatever else the machine does meets all
    of them.

    Args:
        model: A baked network (`rpgmt.bake`): generation is no part of inference. It is moved to the device and put in
            evaluation mode.
        input_size: (width, height) of the images in pixels.
        device: Where it runs: cpu, cuda, …
        batch_size: Images in a forward pass.
        rounds: Forward passes for each number of stages, after one that is not counted; at least 1.

    Returns:
        For each number of stages `stage` (from 1), `macs` and `ms`, the median time of a forward pass divided by its images.
    """
    if rounds < 1:
        raise ValueError(f"`rounds` is {rounds}: give at least 1")
    place = torch.device(device)
    model.to(place).eval()
    width, height = input_size
    noise = torch.randn(batch_size, 3, height, width, generator=torch.Generator().manual_seed(0))
    images = noise.to(place)
    count = len(model.stages)
    seconds: list[list[float]] = [[] for _ in range(count)]
    for turn in range(rounds + 1):
        for i in range(count):
            k = (turn + i) % count
            started = time.perf_counter()
            model(images, stop_after=k + 1)
            if place.type != "cpu":
                torch.accelerator.synchronize(place)
            seconds[k].append(time.perf_counter() - started)
    return [
        {
            "stage": k + 1,
            "macs": count_macs(model, input_size, stop_after=k + 1),
            "ms": 1000 * statistics.median(seconds[k][1:]) / batch_size,  # the first one chooses kernels and gets memory
        }
        for k in range(count)
    ]
