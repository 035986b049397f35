"""Key points as Gaussians in heat maps, and back with sub-pixel accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rpgmt.codecs.codec import Codec
from rpgmt.codecs.gaussian import bump, per_axis
from rpgmt.codecs.taylor import cells_around, highest_cell, newton

_LOWEST_VALUE = 1e-3
"""Smaller values of a map, whose peak is to be 1, count as this: they are noise, which the logarithm would blow up."""


@dataclass(frozen=True, kw_only=True)
class Heatmap(Codec):
    """Encodes key points as heat maps and decodes heat maps to key points.

    A pixel x of the input is x' = (x + 0.5) / stride - 0.5 on the map, stride = input width / map width: the edges of
    both coincide, pixel centres are integers in both. Nothing is rounded, so a mirrored input gives the mirrored map
    (Huang et al., The Devil is in the Details, arXiv 1911.07524, ask for that; their stride is between outer centres).

    Args:
        input_size: (W, H) of the network's input in pixels, at least 2 each.
        heatmap_size: (w, h) of the maps in cells, at least 3 each.
        sigma: standard deviation of the Gaussian in cells.
        maps: what `decode` is given. `logits`, trained by `heatmap_cross_entropy`: the soft-max over a map is the
            probability of each cell. `values`, trained by `heatmap_mse`: the map is the Gaussian itself.

    Raises:
        ValueError: a size or sigma is out of range.
    """

    sigma: float = 1.0
    maps: Literal["logits", "values"] = "logits"

    def encode(self, keypoints: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps with peak 1 at the key points.

        Args:
            keypoints: (B, K, 2), (x, y) in input pixels.
            valid: (B, K), not 0 for key points that are known.

        Returns:
            Heat maps (B, K, h, w), all zero where a key point does not count, and weights (B, K), 1 for valid key
            points in the input and else 0; both float32 on the device of `keypoints`.
        """
        cells = per_axis(keypoints.float() + 0.5, (1 / self.stride[0], 1 / self.stride[1])) - 0.5
        weights = valid != 0
        for axis, size in enumerate(self.heatmap_size):
            weights = weights & (cells[..., axis] >= -0.5) & (cells[..., axis] < size - 0.5)
        x, y = (bump(cells[..., axis], self.heatmap_size[axis], self.sigma) for axis in (0, 1))
        # A key point that does not count may be anywhere, not a number included.
        heatmaps = torch.where(weights[..., None, None], y[..., :, None] * x[..., None, :], 0.0)
        return heatmaps, weights.float()

    def decode(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Points and scores of heat maps.

        The logarithm of a Gaussian is a quadratic, so one Newton step from the highest cell ends at its centre, as in
        DARK (Zhang et al., Distribution-Aware Coordinate Representation, arXiv 1910.06278). Here the quadratic is the
        least squares fit to the 3×3 cells round the highest one, which averages noise that differences along two lines
        do not; at a border the window moves inside. On a perfect map of logits this is exact, at the borders too. The
        step is at most half a cell along each axis, and none where the fit has no maximum.

        Args:
            maps: (B, K, h, w), as the codec's `maps` says.

        Returns:
            Points (B, K, 2), (x, y) in input pixels, and scores (B, K) from 0 to 1, both float32. The score is, with
            logits, the probability of those 3×3 cells (about 0.75 for a perfect map with sigma 1), and with values the
            highest value.
        """
        maps = maps.float()
        highest, top = highest_cell(maps)
        logs = (
            maps.flatten(2).log_softmax(-1).view(maps.shape) if self.maps == "logits" else maps.clamp(min=_LOWEST_VALUE).log()
        )
        last = torch.tensor(self.heatmap_size, device=maps.device) - 1
        middle = highest.clamp(min=torch.ones_like(last), max=last - 1)
        window = cells_around(logs, middle, 1)
        step, has_maximum = newton_step(window)
        step = torch.where(has_maximum[..., None], middle + step - highest, 0.0).clamp(-0.5, 0.5)
        points = per_axis(highest + step + 0.5, self.stride) - 0.5
        if self.maps == "values":
            return points, top.clamp(min=0)
        return points, window.exp().sum((-2, -1)).clamp(max=1.0)


def newton_step(window: Tensor) -> tuple[Tensor, Tensor]:
    """From the middle of 3×3 cells to the maximum of the quadratic fitted to them.

    The fit is least squares; for cells that lie on a quadratic it is that quadratic.

    Args:
        window: (…, 3, 3), rows from top to bottom.

    Returns:
        The step (…, 2) = (x, y), and whether the quadratic has a maximum (…); if not, the step means nothing.
    """
    columns, rows = window.mean(-2), window.mean(-1)
    return newton(
        gx=(columns[..., 2] - columns[..., 0]) / 2,
        gy=(rows[..., 2] - rows[..., 0]) / 2,
        hxx=columns[..., 0] - 2 * columns[..., 1] + columns[..., 2],
        hyy=rows[..., 0] - 2 * rows[..., 1] + rows[..., 2],
        hxy=(window[..., 2, 2] - window[..., 2, 0] - window[..., 0, 2] + window[..., 0, 0]) / 4,
    )
