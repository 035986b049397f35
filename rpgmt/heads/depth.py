"""A depth for each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.heads.head import Batch, Head, mean_where, to_numpy
from rpgmt.losses.dense import depth_l1, depth_silog
from rpgmt.metrics.dense import depth_counts, depth_metrics
from rpgmt.prediction.meaning import PixelMap, at_full_size, depth
from rpgmt.visualize import colorize

DepthLoss = Literal["l1", "silog"]


class Depth(Head):
    """Depth as the soft-plus of the prediction, so that it is positive; absolute or scale-invariant logarithmic error.

    The network sees and predicts depth divided by the crop's magnification, inverse depth multiplied by it
    (`rpgmt.data.dense.label_maps.warp_maps`). Metrics are of what the data set has: that is undone.

    Args:
        name: of the head and its label map (B, H, W), 0 where there is no label.
        label: whether depth is inverse.
        loss: `l1` or `silog`.
    """

    channels = 1
    higher: Mapping[str, bool] = {"abs": False, "rel": False}
    main, score = "abs", "delta1"
    figure, figure_higher = "mean absolute error", False

    def __init__(self, name: str, label: LabelMap, loss: DepthLoss = "l1") -> None:
        super().__init__(name)
        self._label = label
        self._loss = depth_l1 if loss == "l1" else depth_silog

    @property
    def meaning(self) -> PixelMap:
        return PixelMap(label=self._label)

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._loss(self._depth(output, batch), batch[self.name])

    def measure(self, output: Tensor, batch: Batch) -> NDArray[np.float64]:
        return depth_counts(*self._found_and_true(output, batch))

    def metrics(self, measured: Sequence[NDArray[np.float64]]) -> dict[str, float | None]:
        return depth_metrics(np.sum(measured, axis=0))

    def quality(self, output: Tensor, batch: Batch, measured: Any) -> Tensor:
        """In the data set's unit."""
        found, true = self._found_and_true(output, batch)
        return mean_where((found - true).abs(), true > 0)

    def constant(self, batches: Iterable[Batch]) -> Tensor:
        """The mean depth, as the network sees it."""
        total, count = 0.0, 0
        for batch in batches:
            total += float(batch[self.name].double().sum())
            count += int((batch[self.name] > 0).sum())
        mean = torch.tensor(total / max(count, 1) or 1.0)
        return (mean + torch.log(-torch.expm1(-mean))).reshape(1, 1, 1)  # of which the soft-plus is the mean

    def shown(self, output: Tensor, batch: Batch) -> list[NDArray[Any]]:
        return to_numpy(self._depth(output, batch))

    def truth(self, sample: Mapping[str, Any]) -> NDArray[Any]:
        return sample[self.name]

    def draw(self, image: NDArray[np.uint8], shown: NDArray[Any]) -> NDArray[np.uint8]:
        return colorize(shown, "depth")

    def _found_and_true(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Depths (B, H, W) as the data set has them."""
        scale = magnification(batch["to_image"])[:, None, None].to(output.device, torch.float32)
        scale = 1 / scale if self._label.inverse else scale
        return self._depth(output, batch) * scale, batch[self.name] * scale

    def _depth(self, output: Tensor, batch: Batch) -> Tensor:
        return depth(at_full_size(output, batch[self.name].shape[1:3]))


def magnification(to_image: Tensor) -> Tensor:
    """Pixels of the crop, along a side, for one of the image (B,), from affines (B, 2, 3) of the crop to the image."""
    return torch.linalg.det(to_image[:, :, :2].double()).abs().rsqrt()
