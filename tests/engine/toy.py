"""A task that trains in a fraction of a second: a dense regression with batch norm, dropout and two losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rpgmt.config import TrainConfig, config_class
from rpgmt.engine.task import Batch, Outputs, Task
from rpgmt.rpg.convert import convert
from rpgmt.rpg.learned_signs import learn_signs

SAMPLES, BATCH, VALIDATION = 21, 4, 7
PER_EPOCH = SAMPLES // BATCH


class Noise:
    """Images of noise; what is to be told is their mean over channels. ``hook(epoch, index)`` is called first."""

    def __init__(self, count: int, seed: int, hook: Callable[[int, int], None] | None = None) -> None:
        self.count, self.seed, self.hook = count, seed, hook

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        if self.hook:
            self.hook(epoch, index)
        image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(10_000 * self.seed + 100 * epoch + index))
        valid = torch.tensor(float(index % 3 > 0))
        return {"image": image, "target": image.mean(0, keepdim=True), "valid": valid, "index": index}


class Net(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        middle = [nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)] if norm else [nn.ReLU()]
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *middle, nn.Conv2d(8, 8, 3, padding=1))
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, images: Tensor) -> Outputs:
        features = self.layers(images)
        return [{"mean": self.head(features), "half": features[:, :1]}]


class Toy(Task):
    """``hook(batch, losses)`` is called with the number of each training batch (from 0), and may change the losses."""

    name = "toy"
    monitor = "score"

    def __init__(self, *, generated: bool = False, signed: bool = False, norm: bool = True) -> None:
        torch.manual_seed(3)
        self.model = Net(norm)
        if generated:
            convert(self.model, 200, exclude=("head",))
        if signed:
            learn_signs(self.model, 200, exclude=("head",))
        self.train_data: Noise = Noise(SAMPLES, 1)
        self.val_data: Noise = Noise(VALIDATION, 2)
        self.hook: Callable[[int, dict[str, Any]], None] | None = None
        self.batches = 0
        self.scores: list[float | None] | None = None  # to give instead of true ones
        self.drawn: list[Any] = []

    def images(self, batch: Batch) -> Tensor:
        return batch["image"]

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        valid = batch["valid"][:, None, None, None]
        error = (outputs[0]["mean"] - batch["target"]) ** 2
        half = (outputs[0]["half"] - 0.5) ** 2 * valid
        losses = {
            "stage_1/mean": (error.sum(), torch.tensor(error.numel())),
            "stage_1/half": (half.sum(), valid.sum() * 64),
        }
        if self.model.training:
            if self.hook:
                self.hook(self.batches, losses)
            self.batches += 1
        return losses

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Any]:
        errors = (outputs[0]["mean"] - batch["target"]).double().abs().mean((1, 2, 3))
        return list(zip(batch["index"].tolist(), errors.tolist(), strict=True))

    def metrics(self, predictions: list[Any]) -> dict[str, float | None]:
        assert sorted(index for index, _ in predictions) == list(range(VALIDATION))
        score = -sum(error for _, error in sorted(predictions)) / VALIDATION
        return {"score": self.scores.pop(0) if self.scores else score, "never": None}

    def draw(self, predictions: list[Any], folder: Path) -> None:
        self.drawn = predictions


@config_class
class ToyConfig:
    train: TrainConfig = field(default_factory=TrainConfig)


def config(out: Path | None, **values: Any) -> ToyConfig:
    base: dict[str, Any] = {"epochs": 3, "batch_size": BATCH, "lr": 1e-2, "workers": 0, "device": "cpu", "out": out}
    return ToyConfig(train=TrainConfig(**(base | values)))
