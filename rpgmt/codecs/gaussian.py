"""Gaussians on a grid of cells, for many key points at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def bump(centres: Tensor, length: int, sigma: float) -> Tensor:
    """exp(-(i - centre)² / (2 sigma²)) for i = 0 … length - 1, along a new last axis of `centres`."""
    cells = torch.arange(length, device=centres.device)
    return torch.exp(-((cells - centres[..., None]) ** 2) / (2 * sigma**2))


def window(centres: Tensor, length: int, sigma: float) -> Tensor:
    """Whether |i - centre| ≤ 3 sigma for i = 0 … length - 1, along a new last axis of `centres`."""
    cells = torch.arange(length, device=centres.device)
    return (cells - centres[..., None]).abs() <= 3 * sigma


def in_reach(centres: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """(…), whether a window of ± 3 sigma round (x, y) = centres (…, 2) meets the cells 0 … size - 1 of both axes."""
    x, y = ((centres[..., axis] >= -3 * sigma) & (centres[..., axis] <= size[axis] - 1 + 3 * sigma) for axis in (0, 1))
    return x & y


def per_axis(points: Tensor, factors: tuple[float, float]) -> Tensor:
    """Points (…, 2) with x and y each multiplied by its factor.

    By numbers, for to make a tensor of them on a GPU would be to wait for all that it still has to do.
    """
    return torch.stack([points[..., 0] * factors[0], points[..., 1] * factors[1]], dim=-1)


def round_to_cell(cells: Tensor) -> Tensor:
    """The nearest cells, of two the higher one."""
    return (cells + 0.5).floor()
