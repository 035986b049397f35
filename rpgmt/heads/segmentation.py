"""A class for each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.heads.head import Batch, Head, to_numpy
from rpgmt.losses.dense import classes_cross_entropy
from rpgmt.metrics.dense import confusion, segmentation_metrics
from rpgmt.prediction.meaning import PixelMap, at_full_size
from rpgmt.visualize import colorize


class Segmentation(Head):
    """Logits of the classes; cross-entropy; mean intersection over union and pixel accuracy.

    Args:
        name: of the head and its label map (B, H, W), -1 where there is no label.
        label: the classes.
    """

    higher: Mapping[str, bool] = {"mIoU": True, "accuracy": True}
    main = score = "mIoU"
    detailed = True
    figure = "mIoU"

    def __init__(self, name: str, label: LabelMap) -> None:
        super().__init__(name)
        self.classes, self.channels = label.classes, len(label.classes)
        self._label = label
        self.parts = label.classes

    @property
    def meaning(self) -> PixelMap:
        return PixelMap(label=self._label)

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return classes_cross_entropy(self._full_size(output, batch), batch[self.name])

    def measure(self, output: Tensor, batch: Batch) -> NDArray[np.int64]:
        return confusion(self._full_size(output, batch).argmax(1), batch[self.name], self.channels)

    def metrics(self, measured: Sequence[NDArray[np.int64]]) -> dict[str, float | None]:
        return segmentation_metrics(np.sum(measured, axis=0), self.classes)

    def quality(self, output: Tensor, batch: Batch, measured: Any) -> Tensor:
        """Intersection over union of each class in each image; NaN where it neither is nor is found in it."""
        truth = batch[self.name]
        found, known = self._full_size(output, batch).argmax(1), (truth >= 0).flatten(1)
        classes = torch.arange(self.channels, device=truth.device)
        each = []
        for c in classes:  # one at a time: all of them would take C times the memory of the labels
            is_true, is_found = (truth == c).flatten(1), (found == c).flatten(1) & known
            each.append((is_true & is_found).sum(1) / (is_true | is_found).sum(1))
        return torch.stack(each, dim=1)

    def constant(self, batches: Iterable[Batch]) -> Tensor:
        """The most frequent class."""
        return class_frequencies((batch[self.name] for batch in batches), self.channels)[:, None, None]

    def shown(self, output: Tensor, batch: Batch) -> list[NDArray[Any]]:
        return to_numpy(self._full_size(output, batch).argmax(1))

    def truth(self, sample: Mapping[str, Any]) -> NDArray[Any]:
        return sample[self.name]

    def draw(self, image: NDArray[np.uint8], shown: NDArray[Any]) -> NDArray[np.uint8]:
        return colorize(shown, "labels")

    def _full_size(self, output: Tensor, batch: Batch) -> Tensor:
        return at_full_size(output, batch[self.name].shape[1:3])


def class_frequencies(labels: Iterable[Tensor], classes: int) -> Tensor:
    """How often each class occurs (C,), from 0 to 1; what is below 0 does not count."""
    counts = torch.zeros(classes)
    for label in labels:
        counts += torch.bincount(label[label >= 0].long(), minlength=classes)
    return counts / counts.sum().clamp(min=1)
