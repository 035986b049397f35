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


def in_reach(centres: Tensor, size: tuple[int, int], sigma: tuple[float, float]) -> Tensor:
    """(…), whether a window of ± 3 sigma round (x, y) = centres (…, 2) meets the cells 0 … size - 1 of both axes."""
    reach = 3 * torch.tensor(sigma, device=centres.device)
    last = torch.tensor(size, device=centres.device) - 1
    return ((centres >= -reach) & (centres <= last + reach)).all(-1)


def round_to_cell(cells: Tensor) -> Tensor:
    """The nearest cells, of two the higher one."""
    return (cells + 0.5).floor()
