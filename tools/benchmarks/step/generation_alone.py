"""What generation takes by itself, without the network around it, and what a copy of as many bytes takes."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from rpgmt.rpg.layers import GeneratedLayer
from rpgmt.rpg.report import report
from tools.benchmarks.common.stopwatch import DeviceStopwatch
from tools.benchmarks.step.networks import RPG
from tools.benchmarks.step.training_step import build


class GenerationAlone:
    """The banks' work in one optimizer step: weights from parameters, and gradients of weights to those of parameters.

    A forward of the root that only reads its layers' weights, and a backward from gradients that lie as convolutions leave
    them: so it includes what the root's hooks, the views and autograd take, and nothing of a plain network.

    Args:
        config: With `model: ModelConfig` and `train: TrainConfig`.
        device: Where it runs.

    Attributes:
        generated: M, weights of all banks together.
        bank: N, parameters of all banks together.
    """

    def __init__(self, config: Any, device: torch.device) -> None:
        self._device, self._model = device, build(config, RPG, device)
        counts = report(self._model)
        self.generated, self.bank = counts.generated, counts.bank
        layers = [module for module in self._model.modules() if isinstance(module, GeneratedLayer)]
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        self._gradients = [torch.randn_like(w, memory_format=layout) for layer in layers for w in layer.weights().values()]
        self._model.forward = lambda: [w for layer in layers for w in layer.weights().values()]  # type: ignore[assignment, misc]

    def run(self) -> dict[str, float]:
        """Seconds of `generate`, of `fold`, and of both as `step`."""
        for parameter in self._model.parameters():
            parameter.grad = None
        clock = DeviceStopwatch(self._device)
        weights = cast(list[Tensor], self._model())
        clock.mark("generate")
        torch.autograd.backward(weights, self._gradients)
        clock.mark("fold")
        return clock.stop()


class Copy:
    """So many float32 values from one place to another: what no way to make them in memory can beat."""

    def __init__(self, count: int, device: torch.device) -> None:
        self._device = device
        self._source = torch.randn(count, device=device)
        self._target = torch.empty_like(self._source)

    def run(self) -> dict[str, float]:
        """Seconds of one copy, as `step`."""
        clock = DeviceStopwatch(self._device)
        self._target.copy_(self._source)
        return clock.stop()
