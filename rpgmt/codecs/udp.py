"""Key points as Gaussians on a map whose outermost cells are the input's outermost pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rpgmt.codecs.codec import Codec
from rpgmt.codecs.gaussian import bump, in_reach, per_axis, round_to_cell, window
from rpgmt.codecs.taylor import blurred_logs, bounded_step, cells_around, highest_cell, newton

_LOWEST_VALUE = 1e-3
"""Smaller values of a blurred map count as this: they are noise, which the logarithm would blow up."""


@dataclass(frozen=True, kw_only=True)
class Udp(Codec):
    """The codec of unbiased data processing (Huang et al., The Devil is in the Details, arXiv 1911.07524).

    A pixel x of the input is x / stride on the map, stride = (input width - 1) / (map width - 1): the centres of the
    outermost pixels and cells coincide, so a mirrored input gives the mirrored map. The centre is not rounded; the
    Gaussian is cut off 3 sigma from the cell nearest to it. The point found is one Newton step from the highest cell on
    the logarithm of the blurred map, with differences over single cells.

    Maps, weights and scores are those of mmpose's `UDPHeatmap`, and so are points, but for three things. There points are
    multiplied by input width / (map width - 1), and the crops' geometry undoes it; here they are in input pixels, as they
    were encoded, (W - 1) / W times those. An empty map gives NaN there, the first cell with score 0 here. There steps are
    of any length, here of at most one cell along each axis.

    Args:
        input_size: (W, H) of the network's input in pixels, at least 2 each.
        heatmap_size: (w, h) of the maps in cells, at least 3 each.
        sigma: standard deviation of the Gaussian in cells.
    """

    sigma: float = 2.0

    @property
    def stride(self) -> tuple[float, float]:
        """Input pixels from one cell to the next along x and y."""
        (width, height), (columns, rows) = self.input_size, self.heatmap_size
        return (width - 1) / (columns - 1), (height - 1) / (rows - 1)

    def encode(self, keypoints: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps with peak 1 at the key points; points count up to 3 sigma outside the map."""
        centres = per_axis(keypoints.float(), (1 / self.stride[0], 1 / self.stride[1]))
        nearest = round_to_cell(centres)
        weights = (valid != 0) & in_reach(nearest, self.heatmap_size, self.sigma)
        x, y = (
            bump(centres[..., axis], length, self.sigma) * window(nearest[..., axis], length, self.sigma)
            for axis, length in enumerate(self.heatmap_size)
        )
        # A key point that does not count may be anywhere, not a number included.
        return torch.where(weights[..., None, None], y[..., :, None] * x[..., None, :], 0.0), weights.float()

    def decode(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Points and scores of heat maps whose peak is to be 1; the score is the highest value.

        The blur sees zeros beyond the border, which moves points nearer to it than 4 cells (sigma 2) inwards, by up to 0.8
        cells. Those nearest to the outermost row or column come out half a cell outside it: with its cells repeated beyond
        the border the quadratic has no maximum there, and the step, as in the published implementations, is taken whether
        it has one or not.
        """
        maps = maps.float()
        highest, top = highest_cell(maps)
        near = cells_around(blurred_logs(maps, self.sigma, _LOWEST_VALUE), highest, 1)
        middle = near[..., 1, 1]
        right, left, below, above = near[..., 1, 2], near[..., 1, 0], near[..., 2, 1], near[..., 0, 1]
        step, _ = newton(
            gx=(right - left) / 2,
            gy=(below - above) / 2,
            hxx=right - 2 * middle + left,
            hyy=below - 2 * middle + above,
            # The mean of the two one-sided mixed differences, towards the lower right and the upper left corner.
            hxy=(near[..., 2, 2] + near[..., 0, 0] - right - left - below - above) / 2 + middle,
        )
        return per_axis(highest + bounded_step(step), self.stride), top.clamp(min=0)
