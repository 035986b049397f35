"""From the highest cell of a map to the maximum between cells, by a Taylor series of second order."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def highest_cell(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The highest cell of each map (B, K, h, w), the first of equal ones: (x, y) as int64 (B, K, 2), and its value (B, K)."""
    top, peak = maps.flatten(2).max(-1)
    width = maps.shape[-1]
    return torch.stack([peak % width, peak // width], dim=-1), top


def cells_around(maps: Tensor, cells: Tensor, radius: int) -> Tensor:
    """The values round a cell of each map; beyond the border its outermost cells repeat.

    Args:
        maps: (B, K, h, w).
        cells: (B, K, 2), (x, y) as int64.
        radius: r, cells to each side.

    Returns:
        (B, K, 2r + 1, 2r + 1), rows from top to bottom.
    """
    height, width = maps.shape[-2:]
    around = torch.arange(-radius, radius + 1, device=maps.device)
    columns = (cells[..., 0, None, None] + around).clamp(0, width - 1)
    rows = (cells[..., 1, None, None] + around[:, None]).clamp(0, height - 1)
    index = rows * width + columns
    return maps.flatten(2).gather(-1, index.flatten(2)).view(index.shape)


def newton(gx: Tensor, gy: Tensor, hxx: Tensor, hyy: Tensor, hxy: Tensor) -> tuple[Tensor, Tensor]:
    """One Newton step to where a quadratic has no slope.

    Args:
        gx: (…), first derivative along x; `gy` along y.
        hxx: (…), second derivative along x; `hyy` along y, `hxy` along both.

    Returns:
        The step (…, 2) = (x, y), and whether that is a maximum (…); else it is a saddle, a minimum or nothing.
    """
    determinant = hxx * hyy - hxy**2
    step = torch.stack([hxy * gy - hyy * gx, hxy * gx - hxx * gy], dim=-1) / determinant[..., None]
    return step, (hxx < 0) & (determinant > 1e-6)


def bounded_step(step: Tensor) -> Tensor:
    """`step` (…, 2), at most one cell along each axis, and 0 where it is not finite."""
    return torch.where(step.isfinite().all(-1, keepdim=True), step, 0.0).clamp(-1, 1)


def blurred_logs(maps: Tensor, sigma: float, lowest: float) -> Tensor:
    """Logarithm of each map, blurred and scaled back to its height (Zhang et al., arXiv 1910.06278, sec. 3.2).

    The blur is a Gaussian about as wide as that of the targets. Kernel size and deviation follow the rule that the
    published implementations take from OpenCV, deviation = 0.3 · (radius - 1) + 0.8: 11 cells for sigma 2, 17 for 3.
    Beyond its border a map is 0.

    Args:
        maps: (B, K, h, w), float32.
        sigma: standard deviation of the targets' Gaussian in cells.
        lowest: smaller values count as this.
    """
    # The tiny number: (2 - 0.8) / 0.3 is to be 4 whichever way it is rounded.
    radius = max(1, math.floor((sigma - 0.8) / 0.3 + 1 + 1e-6))
    offsets = torch.arange(-radius, radius + 1, device=maps.device)
    kernel = torch.exp(-(offsets**2) / (2 * (0.3 * (radius - 1) + 0.8) ** 2))
    kernel = kernel / kernel.sum()
    blurred = _filter(_filter(maps, kernel, -1), kernel, -2)
    # Maps without a positive value have no height to be scaled to: they come out flat.
    height, blurred_height = maps.amax((-2, -1), keepdim=True), blurred.amax((-2, -1), keepdim=True)
    return (blurred * (height.clamp(min=0) / blurred_height.clamp(min=1e-12))).clamp(min=lowest).log()


def _filter(maps: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Filters along one axis, zero outside. Not a convolution, whose inputs autocast and TF32 would round."""
    radius, length = len(kernel) // 2, maps.shape[axis]
    padded = F.pad(maps, (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius))
    result = torch.zeros_like(maps)
    for shift in range(len(kernel)):
        result += kernel[shift] * padded.narrow(axis, shift, length)
    return result
