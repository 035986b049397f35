"""A network that is small enough to count its parameters by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rpgmt import convert


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.body = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        return self.head((x + F.relu(self.body(x))).mean((2, 3)))

    def bank_scope(self, scope: str, name: str) -> str:
        return name


X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))
WEIGHTS = ("stem", "body", "head")
FIXED = 8 + 2 * 8 + 5  # biases and the norm
TOTAL = FIXED + 3 * 8 * 9 + 8 * 8 * 9 + 8 * 5


def plain() -> Net:
    torch.manual_seed(0)
    return Net()


def generated(size: int = 200, **options: Any) -> Net:
    model = plain()
    convert(model, size, **options)
    return model
