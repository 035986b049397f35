"""What every codec of heat maps offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Codec(ABC):
    """Encodes key points as heat maps and decodes heat maps to key points, for a whole batch on its device.

    Points are (x, y) in pixels of the network's input, pixel centres at integers. How they lie on the map differs from
    codec to codec, and is stated there.

    Args:
        input_size: (W, H) of the network's input in pixels, at least 2 each.
        heatmap_size: (w, h) of the maps in cells, at least 3 each.
        sigma: standard deviation of the Gaussian in cells.

    Raises:
        ValueError: a size or sigma is out of range.
    """

    flip_shift: ClassVar[int] = 0
    """Cells that the map of a mirrored input, mirrored back, is moved right by before it is averaged with the other."""

    input_size: tuple[int, int]
    heatmap_size: tuple[int, int]
    sigma: float

    def __post_init__(self) -> None:
        if min(self.heatmap_size) < 3:
            raise ValueError(f"`heatmap_size` is {self.heatmap_size}: give at least 3 cells along each axis")
        if min(self.input_size) < 2:
            raise ValueError(f"`input_size` is {self.input_size}: give at least 2 pixels along each axis")
        if not self.sigma > 0:
            raise ValueError(f"`sigma` is {self.sigma}: give a positive number of cells, e.g. 1.0")

    @property
    def stride(self) -> tuple[float, float]:
        """Input pixels from one cell to the next along x and y."""
        return self.input_size[0] / self.heatmap_size[0], self.input_size[1] / self.heatmap_size[1]

    @abstractmethod
    def encode(self, keypoints: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps of key points.

        Args:
            keypoints: (B, K, 2), (x, y) in input pixels.
            valid: (B, K), not 0 for key points that are known.

        Returns:
            Heat maps (B, K, h, w), all zero where a key point does not count, and weights (B, K), 1 for key points
            that count and else 0; both float32 on the device of `keypoints`.
        """

    @abstractmethod
    def decode(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Points and scores of heat maps.

        Args:
            maps: (B, K, h, w).

        Returns:
            Points (B, K, 2), (x, y) in input pixels, and scores (B, K), 0 and up, both float32.
        """
