"""The row `constant`: what a network reaches that does not look at the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rpgmt.data.loader import validation_loader
from rpgmt.engine.evaluate import evaluate
from rpgmt.heads.staged_task import StagedTask
from rpgmt.models import STRIDE

SAMPLES = 2000
"""Of the training data, evenly spread, that the constants are made from."""


def constants(task: StagedTask) -> dict[str, Any]:
    """What one prediction for all crops reaches: most frequent class, mean depth, mean normal, mean pose.

    The crop itself is known: depth in metres follows its magnification, and the pose its box.

    Returns:
        The metrics as `val`, as in `metrics.json`.
    """
    print("constants …", flush=True)
    every = -(-len(task.train_data) // SAMPLES)
    train = task.config.train
    batches = validation_loader(task.train_data, train.batch_size, world_size=every)  # every so many-th sample
    with torch.no_grad():
        values = {name: head.constant(batches) for name, head in task.heads.items()}
    return {"val": evaluate(task, _Constants(values), batch_size=train.batch_size, device=train.device).metrics}


class _Constants(nn.Module):
    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def forward(self, images: Tensor, stop_after: int | None = None) -> list[dict[str, Tensor]]:
        size = (images.shape[2] // STRIDE, images.shape[3] // STRIDE)
        return [{name: value.to(images).expand(len(images), -1, *size) for name, value in self._values.items()}]
