"""Metrics of a model over a task's validation set.

Everything here computes in float32, also while a model trains in less: what training reports is what the model file gives.
With bfloat16, maps have a few hundred levels, and AP is some thousandths, of a network that has hardly learned some
hundredths, another one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rpgmt.data.loader import lost_workers, validation_loader
from rpgmt.engine.device import pick_device, processes
from rpgmt.engine.task import Batch, Task
from rpgmt.rpg.learned_signs import made_together, signed_layers


@dataclass(frozen=True)
class Validation:
    """What one pass over the validation set gives.

    Attributes:
        metrics: the task's metrics; None where not applicable.
        losses: ``loss`` (the sum of all) and ``loss/NAME``: sum over the set / number of valid targets, None for none.
        predictions: the task's records of all samples.
    """

    metrics: dict[str, float | None]
    losses: dict[str, float | None]
    predictions: list[Any]


def evaluate(
    task: Task,
    model: nn.Module,
    *,
    batch_size: int = 32,
    workers: int = 0,
    device: str = "auto",
    channels_last: bool = False,
) -> Validation:
    """Return the metrics, losses and predictions of ``model`` over ``task.val_data``.

    Bake the model first (`rpgmt.bake`): its weights are then generated once. It is moved to the device and put in
    evaluation mode. A terminal shows a progress bar.

    Args:
        task: gives the data, the images and the metrics; its own ``model`` is not used.
        model: maps images to the predictions of every stage.
        batch_size: samples a forward pass.
        workers: processes that load data; 0 loads in this one.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, …
        channels_last: memory format of the images.
    """
    from rich.progress import track

    place = torch.device(pick_device(device))
    loader = validation_loader(task.val_data, batch_size, workers=workers, pin_memory=place.type == "cuda")
    batches = track(loader, "evaluate", disable=not sys.stdout.isatty(), transient=True)
    with lost_workers():
        validation = validate(task, model.to(place).eval(), batches, place, channels_last=channels_last)
    assert validation is not None  # one process
    return validation


@torch.no_grad()
def validate(
    task: Task,
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    *,
    channels_last: bool = False,
) -> Validation | None:
    """Run ``model``, as it stands, over the batches; losses and metrics are of the batches of all processes.

    Modules are in evaluation mode meanwhile. Returns None in processes other than the first.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    predictions: list[Any] = []
    sums: dict[str, tuple[float, float]] = {}
    try:
        with made_together(signed_layers(model).values()):
            for cpu_batch in batches:
                batch = to_device(cpu_batch, device)
                outputs = task.infer(model, images(task, batch, channels_last))
                losses = task.losses(outputs, batch)
                predictions += task.predictions(outputs, batch)
                for name, (total, count) in losses.items():
                    old = sums.get(name, (0.0, 0.0))
                    sums[name] = (old[0] + float(total), old[1] + float(count))
    finally:
        for module, training in modes:
            module.training = training

    if processes() > 1:
        gathered: list[Any] = [None] * processes()
        dist.all_gather_object(gathered, (predictions, sums))
        if dist.get_rank() > 0:
            return None
        predictions = [record for part, _ in gathered for record in part]
        parts = [part for _, part in gathered]
        names = dict.fromkeys(name for part in parts for name in part)
        sums = {n: (sum(p[n][0] for p in parts if n in p), sum(p[n][1] for p in parts if n in p)) for n in names}
    return Validation(task.metrics(predictions), mean_losses(sums), predictions)


def mean_losses(sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    """Return ``loss/NAME`` = sum / count (None for no targets) and ``loss``, the sum of those that there are."""
    each = {f"loss/{name}": total / count if count else None for name, (total, count) in sums.items()}
    known = [value for value in each.values() if value is not None]
    return {"loss": sum(known) if known else None, **each}


def images(task: Task, batch: Batch, channels_last: bool) -> Tensor:
    """Return the task's images in the memory format that training runs with."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return task.images(batch).contiguous(memory_format=memory_format)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Copy the batch's tensors to the device; the rest stays."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
