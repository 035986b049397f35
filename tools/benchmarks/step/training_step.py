"""One training step of a network, as training runs it, on random images."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from rpgmt import models
from rpgmt.engine.balance import make_balancer
from rpgmt.engine.device import make_fabric
from rpgmt.engine.task import Batch, Outputs, Task
from rpgmt.engine.training_step import TrainingStep
from rpgmt.models.refinement import Refinement
from tools.benchmarks.common.stopwatch import DeviceStopwatch
from tools.benchmarks.step.networks import KINDS

PHASES = ("forward", "backward", "optimizer", "ema")
LEARNING_RATE = 1e-4
"""Small: the images are noise, and the steps must not lead anywhere."""


class Noise(Task):
    """Random images, and a loss of all predictions: what a step takes does not depend on what is in them.

    Args:
        config: With `model: ModelConfig` and `train: TrainConfig`.
        kind: One of `KINDS`.
        device: Where it runs.
    """

    name = "noise"
    monitor = "none"

    def __init__(self, config: Any, kind: str, device: torch.device) -> None:
        self.config, self.model = config, build(config, kind, device)

    def images(self, batch: Batch) -> Tensor:
        images: Tensor = batch["images"]
        return images

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """The mean square of each stage's predictions, by task."""
        return {
            f"stage_{k}/{name}": (prediction.float().square().sum(), torch.tensor(prediction.numel()))
            for k, stage in enumerate(outputs, start=1)
            for name, prediction in stage.items()
        }

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Any]:
        return []

    def metrics(self, predictions: list[Any]) -> dict[str, float | None]:
        return {}


class TimedStep:
    """The engine's optimizer step (`rpgmt.engine.training_step.TrainingStep`) of one kind of network, by phase.

    Args:
        config: With `model: ModelConfig` and `train: TrainConfig`.
        kind: One of `KINDS`.
        device: Where it runs.
        batch_size: Images a batch, if not the config's.

    Attributes:
        step: The engine's step.
    """

    def __init__(self, config: Any, kind: str, device: torch.device, *, batch_size: int | None = None) -> None:
        train = dataclasses.replace(
            config.train, lr=LEARNING_RATE, schedule="constant", warmup_steps=0, weight_decay=0.0, device=device.type
        )
        self.task = Noise(config, kind, device)
        self._count, self._batches, self._steps = train.accumulate, 0, 0
        if train.compile:
            self.task.model.compile()
        self._images = images(config, device, batch_size or train.batch_size)
        fabric = make_fabric(dataclasses.replace(train, devices=1, nodes=1))
        fabric.launch()
        balancer = make_balancer(self.task)
        self.step = TrainingStep(self.task, train, fabric, balancer, 1, mark=lambda phase: self._clock.mark(phase))
        self.step.defers = KINDS[kind].defer

    def run(self) -> dict[str, float]:
        """One step; its seconds by phase, and of the whole as `step`."""
        self._clock = DeviceStopwatch(self._images.device)
        for batch in range(self._count):
            self.step.gradients({"images": self._images}, self._batches, last=batch == self._count - 1)
            self._batches += 1
        self.step.update(self._steps)
        self._steps += 1
        return self._clock.stop()


def build(config: Any, kind: str, device: torch.device) -> Refinement:
    """The config's network of one kind, in its memory format, the same first weights each time."""
    torch.manual_seed(config.train.seed)
    model = models.build(dataclasses.replace(config.model.with_heads(), **KINDS[kind].model))
    return model.to(device).to(memory_format=_layout(config))


def images(config: Any, device: torch.device, batch_size: int) -> Tensor:
    """(B, 3, H, W) of noise, in the config's memory format."""
    width, height = config.model.input_size
    return torch.randn(batch_size, 3, height, width, device=device).contiguous(memory_format=_layout(config))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a forward pass in a precision: 32, bf16 or 16."""
    low = {"bf16": torch.bfloat16, "16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype=low, enabled=low is not None)


def _layout(config: Any) -> torch.memory_format:
    return torch.channels_last if config.train.channels_last else torch.contiguous_format
