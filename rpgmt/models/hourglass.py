"""The hourglass of Newell et al. (arXiv 1603.06937), as a stage of refinement, and its trunk."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from rpgmt.models.blocks import Features, Residual


class Level(nn.Module):
    """One resolution of an hourglass: what passes by, what goes down to half the resolution, what comes up again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.by = Residual(channels, channels)
        self.down = Residual(channels, channels)
        self.up = Residual(channels, channels)


class Hourglass(nn.Module):
    """Down to 1/2^depth of the resolution and up again, with a residual that passes by at every level.

    Any size works: sizes are halved rounding up, and features are brought to the size of what passed by.

    Args:
        depth: Levels.
        channels: Channels, the same everywhere.
    """

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Level(channels) for _ in range(depth))
        self.bottom = Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W), shape kept."""
        levels = [cast(Level, level) for level in self.levels]
        passed = []
        for level in levels:
            passed.append(level.by(x))
            x = level.down(F.max_pool2d(x, 2, ceil_mode=True))
        x = self.bottom(x)
        for level, by in zip(reversed(levels), reversed(passed), strict=True):
            x = by + F.interpolate(level.up(x), size=by.shape[-2:], mode="nearest")
        return x


class HourglassStage(nn.Sequential):
    """One stage of a stacked hourglass: hourglass, residual, features for the heads."""

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.hourglass = Hourglass(depth, channels)
        self.residual = Residual(channels, channels)
        self.features = Features(channels)


class HourglassTrunk(nn.Sequential):
    """Image to features at a quarter of its resolution: 7×7 convolution of stride 2, residuals, max pooling.

    With 256 channels the widths are those of the original, 64 → 128 → 256 → 256.

    Args:
        channels: Channels of the output, a multiple of 4.
    """

    stride = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels // 4, 7, stride=2, padding=3)
        self.norm = nn.BatchNorm2d(channels // 4)
        self.relu = nn.ReLU()
        self.residual1 = Residual(channels // 4, channels // 2)
        self.pool = nn.MaxPool2d(2)
        self.residual2 = Residual(channels // 2, channels)
        self.residual3 = Residual(channels, channels)
