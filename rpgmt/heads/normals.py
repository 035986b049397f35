"""A surface normal for each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.heads.head import Batch, Head, mean_where, to_numpy
from rpgmt.losses.dense import normals_cosine
from rpgmt.metrics.dense import WITHIN, angle_counts, normals_metrics
from rpgmt.prediction.meaning import PixelMap, at_full_size, normals
from rpgmt.visualize import colorize

Measured = tuple[NDArray[np.float64], NDArray[np.int64]]


class Normals(Head):
    """Unit normals in the camera's frame: the prediction over its length; 1 - cosine; angular errors.

    Args:
        name: of the head and its label map (B, H, W, 3), (0, 0, 0) where there is no label.
    """

    channels = 3
    higher: Mapping[str, bool] = {"mean": False, "median": False, **{f"within_{limit:g}": True for limit in WITHIN}}
    main, score = "mean", "within_30"
    figure, figure_higher = "mean angle in degrees", False

    @property
    def meaning(self) -> PixelMap:
        return PixelMap(label=LabelMap(kind="normals"))

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return normals_cosine(self._normals(output, batch), batch[self.name])

    def measure(self, output: Tensor, batch: Batch) -> Measured:
        return angle_counts(self._normals(output, batch), batch[self.name])

    def metrics(self, measured: Sequence[Measured]) -> dict[str, float | None]:
        counts, histograms = zip(*measured, strict=True)
        return normals_metrics(np.sum(counts, axis=0), np.sum(histograms, axis=0))

    def quality(self, output: Tensor, batch: Batch, measured: Any) -> Tensor:
        truth = batch[self.name].float()
        cosine = (self._normals(output, batch).movedim(1, -1) * truth).sum(-1).clamp(-1, 1)
        return mean_where(torch.rad2deg(cosine.acos()), (truth != 0).any(-1))

    def constant(self, batches: Iterable[Batch]) -> Tensor:
        """The mean normal."""
        total = torch.zeros(3, dtype=torch.float64)
        for batch in batches:
            total += batch[self.name].double().sum((0, 1, 2))
        return F.normalize(total, dim=0).float()[:, None, None]

    def shown(self, output: Tensor, batch: Batch) -> list[NDArray[Any]]:
        return to_numpy(self._normals(output, batch).movedim(1, -1))

    def truth(self, sample: Mapping[str, Any]) -> NDArray[Any]:
        return sample[self.name]

    def draw(self, image: NDArray[np.uint8], shown: NDArray[Any]) -> NDArray[np.uint8]:
        return colorize(shown, "normals")

    def _normals(self, output: Tensor, batch: Batch) -> Tensor:
        return normals(at_full_size(output, batch[self.name].shape[1:3]))
