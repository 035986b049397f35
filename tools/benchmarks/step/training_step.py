"""One training step of a network, as training runs it, on random images."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

import rpgmt
from rpgmt import models
from rpgmt.config import TrainConfig
from rpgmt.engine.device import pick_precision
from rpgmt.engine.ema import Ema
from rpgmt.models.refinement import Refinement
from tools.benchmarks.step.kinds import KINDS

PHASES = ("forward", "backward", "optimizer", "ema")
LEARNING_RATE = 1e-4
"""Small: the images are noise, and the steps must not lead anywhere."""


class Clock:
    """Seconds on a device by phase, from mark to mark; nothing waits for the device before `stop`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._phases: list[str] = []
        self._times: list[Any] = []
        self._now()
        self._started = time.perf_counter()

    def mark(self, phase: str) -> None:
        """The time since the last mark was `phase`'s."""
        self._phases.append(phase)
        self._now()

    def stop(self) -> dict[str, float]:
        """Seconds of each phase, and of the whole as `step`, up to when the device is done."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        seconds = {"step": time.perf_counter() - self._started}
        for phase, before, after in zip(self._phases, self._times, self._times[1:], strict=False):
            spent = after - before if self._device.type == "cpu" else before.elapsed_time(after) / 1000
            seconds[phase] = seconds.get(phase, 0.0) + spent
        return seconds

    def _now(self) -> None:
        if self._device.type == "cpu":
            self._times.append(time.perf_counter())
        else:
            event = torch.Event(self._device, enable_timing=True)
            event.record()
            self._times.append(event)


class TrainingStep:
    """Forward, loss and backward of each batch of a step, optimizer and moving average, as the config's training has them.

    Args:
        config: With `model: ModelConfig` and `train: TrainConfig`.
        kind: One of `KINDS`.
        device: Where it runs.
        batch_size: Images a batch, if not the config's.

    Attributes:
        model: The network, in training mode.
        optimizer: Its optimizer.
        ema: The moving average of its weights, or None.
    """

    def __init__(self, config: Any, kind: str, device: torch.device, *, batch_size: int | None = None) -> None:
        self._train: TrainConfig = config.train
        self._device, self._defer = device, KINDS[kind].defer
        self.model = build(config, kind, device)
        if self._train.compile:
            self.model.compile()
        self.images = images(config, device, batch_size or self._train.batch_size)
        self.optimizer = _optimizer(self._train)(rpgmt.parameter_groups(self.model, self._train.optimizer, LEARNING_RATE))
        self.ema = Ema(self.model, self._train.ema) if self._train.ema else None
        self._precision = pick_precision(self._train.precision, device.type)
        self._steps = 0

    def run(self) -> dict[str, float]:
        """One step; its seconds by phase, and of the whole as `step`."""
        clock, count = Clock(self._device), self._train.accumulate
        for batch in range(count):
            last = batch == count - 1
            with nullcontext() if last or not self._defer else rpgmt.defer_gradients(self.model):
                loss = self.loss(self.model) / count
                clock.mark("forward")
                if batch == 0:
                    self.optimizer.zero_grad()  # where training does it
                    clock.mark("optimizer")
                loss.backward()
                clock.mark("backward")
        self.optimizer.step()
        clock.mark("optimizer")
        if self.ema:
            self.ema.update(self._steps)
            clock.mark("ema")
        self._steps += 1
        return clock.stop()

    def loss(self, model: Callable[[Tensor], Any]) -> Tensor:
        """A loss of all predictions of `model`, which is the network or what wraps it."""
        with autocast(self._precision, self._device):
            outputs = model(self.images)
        losses = [prediction.float().square().mean() for stage in outputs for prediction in stage.values()]
        return torch.stack(losses).sum()


def build(config: Any, kind: str, device: torch.device) -> Refinement:
    """The config's network of one kind, in its memory format, the same first weights each time."""
    torch.manual_seed(config.train.seed)
    model = models.build(dataclasses.replace(config.model, **KINDS[kind].model))
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


def _optimizer(train: TrainConfig) -> Callable[..., torch.optim.Optimizer]:
    if train.optimizer == "sgd":
        return partial(torch.optim.SGD, momentum=0.9, fused=True)
    return partial(torch.optim.AdamW if train.optimizer == "adamw" else torch.optim.Adam, fused=True)
