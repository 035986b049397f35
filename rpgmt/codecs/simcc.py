"""Key points as a distribution along x and one along y."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rpgmt.codecs.gaussian import bump, in_reach


@dataclass(frozen=True, kw_only=True)
class SimCC:
    """Encodes key points as two vectors of bins finer than pixels, and decodes such (Li et al., SimCC, arXiv 2107.03332).

    A pixel x of the input is bin x · split_ratio, rounded (halves to the even bin). The vectors are Gaussians with peak 1
    round that bin. It has no heat map, so it is not a `Codec`, and no model here is trained with it.

    Targets, weights, points and scores are those of mmpose's `SimCCLabel` with `normalize=False`, but for vectors
    without a positive value: there the point is (-1, -1) / split_ratio, here its highest bins with score 0.

    Args:
        input_size: (W, H) of the network's input in pixels.
        split_ratio: bins in a pixel.
        sigma: standard deviations of the Gaussians in bins, along x and y; for 192×256 pixels RTMPose's (Jiang et al.,
            arXiv 2303.07399), about √(bins / 16).

    Raises:
        ValueError: a size, the ratio or a sigma is out of range.
    """

    input_size: tuple[int, int]
    split_ratio: int = 2
    sigma: tuple[float, float] = (4.9, 5.66)

    def __post_init__(self) -> None:
        if min(self.input_size) < 1:
            raise ValueError(f"`input_size` is {self.input_size}: give positive numbers of pixels")
        if self.split_ratio < 1:
            raise ValueError(f"`split_ratio` is {self.split_ratio}: give at least 1 bin in a pixel, e.g. 2")
        if not all(sigma > 0 and math.isfinite(sigma) for sigma in self.sigma):
            raise ValueError(f"`sigma` is {self.sigma}: give positive numbers of bins, e.g. (4.9, 5.66)")

    def encode(self, keypoints: Tensor, valid: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Vectors of key points.

        Args:
            keypoints: (B, K, 2), (x, y) in input pixels.
            valid: (B, K), not 0 for key points that are known.

        Returns:
            The vectors along x (B, K, W · split_ratio) and y (B, K, H · split_ratio), all zero where a key point does
            not count, and weights (B, K), 1 for valid key points up to 3 sigma outside the input and else 0; all
            float32 on the device of `keypoints`.
        """
        width, height = (self.split_ratio * pixels for pixels in self.input_size)
        bins = (keypoints.float() * self.split_ratio).round()
        weights = (valid != 0) & in_reach(bins, (width, height), self.sigma)
        # A key point that does not count may be anywhere, not a number included.
        x = torch.where(weights[..., None], bump(bins[..., 0], width, self.sigma[0]), 0.0)
        y = torch.where(weights[..., None], bump(bins[..., 1], height, self.sigma[1]), 0.0)
        return (x, y), weights.float()

    def decode(self, vectors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Points and scores of vectors along x (B, K, W · split_ratio) and y (B, K, H · split_ratio).

        Returns:
            Points (B, K, 2), (x, y) in input pixels, the middles of the highest bins, and scores (B, K) from 0 to 1, the
            lower of the two highest values; both float32.
        """
        (top_x, x), (top_y, y) = (vector.float().max(-1) for vector in vectors)
        return torch.stack([x, y], dim=-1) / self.split_ratio, torch.minimum(top_x, top_y).clamp(0, 1)
