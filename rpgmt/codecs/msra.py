"""Key points as Gaussians round a cell, decoded to a quarter of a cell; and the same without rounding, DARK."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rpgmt.codecs.codec import Codec
from rpgmt.codecs.gaussian import bump, in_reach, per_axis, round_to_cell, window
from rpgmt.codecs.taylor import blurred_logs, bounded_step, cells_around, highest_cell, newton

_LOWEST_VALUE = 1e-10
"""Smaller values of a blurred map count as this: they have no logarithm, or one that is all noise."""


@dataclass(frozen=True, kw_only=True)
class Msra(Codec):
    """The codec of Simple Baselines and HRNet (Xiao et al., arXiv 1804.06208), and with `dark` that of DARK.

    A pixel x of the input is x / stride on the map, stride = input width / map width. So a cell stands for the first of
    its pixels, not for their middle, and a mirrored input does not give the mirrored map: at stride 4 the mirrored map,
    mirrored back, lies 0.75 cells too far left, and moved right by `flip_shift` cells 0.25 too far right.

    `dark=False` rounds the centre to a cell, and cuts the Gaussian off 3 sigma from it; the point found is the highest
    cell, moved by a quarter of a cell along each axis towards its higher neighbour. `dark=True` rounds and cuts nothing,
    and takes one Newton step on the logarithm of the blurred map, with second differences over two cells (Zhang et al.,
    Distribution-Aware Coordinate Representation, arXiv 1910.06278).

    Maps, weights, points and scores are those of mmpose's `MSRAHeatmap`, but for maps that are no Gaussians or lie at the
    border. A map without a positive value gives (-stride, -stride) there, its highest cell with score 0 here. Steps of DARK
    have any length there and may lead to saddles; here they lead to maxima and are at most one cell along each axis.
    Quarters are left out along an axis without two neighbours here; there beside the first row and column too.

    Args:
        input_size: (W, H) of the network's input in pixels, at least 2 each.
        heatmap_size: (w, h) of the maps in cells, at least 3 each.
        sigma: standard deviation of the Gaussian in cells.
        dark: whether to encode and decode as DARK does.
    """

    flip_shift: ClassVar[int] = 1

    sigma: float = 2.0
    dark: bool = False

    def encode(self, keypoints: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps with peak 1 at the (rounded) key points; points count up to 3 sigma outside the map."""
        centres = per_axis(keypoints.float(), (1 / self.stride[0], 1 / self.stride[1]))
        if not self.dark:
            centres = round_to_cell(centres)
        weights = (valid != 0) & in_reach(centres, self.heatmap_size, self.sigma)
        x, y = (bump(centres[..., axis], self.heatmap_size[axis], self.sigma) for axis in (0, 1))
        if not self.dark:
            x = x * window(centres[..., 0], self.heatmap_size[0], self.sigma)
            y = y * window(centres[..., 1], self.heatmap_size[1], self.sigma)
        # A key point that does not count may be anywhere, not a number included.
        return torch.where(weights[..., None, None], y[..., :, None] * x[..., None, :], 0.0), weights.float()

    def decode(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Points and scores of heat maps whose peak is to be 1; the score is the highest value.

        Next to the border there is no step: without `dark` along an axis that lacks a neighbour, with it along both
        axes if one lacks two neighbours. A perfect map without `dark` is symmetric, so its point stays on the cell.
        """
        maps = maps.float()
        highest, top = highest_cell(maps)
        step = self._taylor_step(maps, highest) if self.dark else self._quarter_step(maps, highest)
        return per_axis(highest + step, self.stride), top.clamp(min=0)

    def _quarter_step(self, maps: Tensor, highest: Tensor) -> Tensor:
        # Repeated border cells would win against the other neighbour, so the border is left out.
        last = torch.tensor(self.heatmap_size, device=maps.device) - 1
        around = cells_around(maps, highest, 1)
        slope = torch.stack([around[..., 1, 2] - around[..., 1, 0], around[..., 2, 1] - around[..., 0, 1]], dim=-1)
        return torch.where((highest > 0) & (highest < last), 0.25 * slope.sign(), 0.0)

    def _taylor_step(self, maps: Tensor, highest: Tensor) -> Tensor:
        last = torch.tensor(self.heatmap_size, device=maps.device) - 1
        inside = ((highest >= 2) & (highest <= last - 2)).all(-1)
        near = cells_around(blurred_logs(maps, self.sigma, _LOWEST_VALUE), highest, 2)
        step, has_maximum = newton(
            gx=(near[..., 2, 3] - near[..., 2, 1]) / 2,
            gy=(near[..., 3, 2] - near[..., 1, 2]) / 2,
            hxx=(near[..., 2, 4] - 2 * near[..., 2, 2] + near[..., 2, 0]) / 4,
            hyy=(near[..., 4, 2] - 2 * near[..., 2, 2] + near[..., 0, 2]) / 4,
            hxy=(near[..., 3, 3] - near[..., 3, 1] - near[..., 1, 3] + near[..., 1, 1]) / 4,
        )
        return torch.where((inside & has_maximum)[..., None], bounded_step(step), 0.0)
