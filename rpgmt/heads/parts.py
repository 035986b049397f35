"""A part of a body for each pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.heads.head import Batch, Head
from rpgmt.heads.segmentation import Segmentation
from rpgmt.metrics.dense import segmentation_metrics
from rpgmt.prediction.meaning import PixelMap


class PartSegmentation(Head):
    """Segmentation of parts, whose left and right ones a network may take for each other.

    `mIoU` is over all classes, the background included, as usual on PASCAL-Person-Part. `mIoU_sides_joined` does not tell left
    from right: where it is much higher, sides are what goes wrong.

    Args:
        name: of the head and its label map (B, H, W), -1 where there is no label.
        label: the parts, and which are left and right of each other.
    """

    higher: Mapping[str, bool] = {"mIoU": True, "accuracy": True}
    main = score = "mIoU"
    detailed = True
    figure = "mIoU"

    def __init__(self, name: str, label: LabelMap) -> None:
        super().__init__(name)
        self._all = Segmentation(name, label)
        self.channels, self.parts = self._all.channels, self._all.parts
        first = {right: left for left, right in label.swaps}  # a pair goes by the number of its first class
        joined = [first.get(c, c) for c in range(self.channels)]
        self._kept = sorted(set(joined))
        self._joined = np.array([self._kept.index(c) for c in joined])

    @property
    def meaning(self) -> PixelMap:
        return self._all.meaning

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._all.loss(output, batch)

    def measure(self, output: Tensor, batch: Batch) -> NDArray[np.int64]:
        return self._all.measure(output, batch)

    def metrics(self, measured: Sequence[NDArray[np.int64]]) -> dict[str, float | None]:
        counts = np.sum(measured, axis=0)
        joined = np.zeros((len(self._kept), len(self._kept)), np.int64)
        np.add.at(joined, (self._joined[:, None], self._joined[None]), counts)
        names = [self._all.classes[c] for c in self._kept]
        of_all = self._all.metrics(measured)
        return {**of_all, "mIoU_sides_joined": segmentation_metrics(joined, names)["mIoU"]}

    def quality(self, output: Tensor, batch: Batch, measured: Any) -> Tensor:
        """Intersection over union of each part, left and right told apart."""
        return self._all.quality(output, batch, measured)

    def constant(self, batches: Iterable[Batch]) -> Tensor:
        """The most frequent part, which is the background."""
        return self._all.constant(batches)

    def shown(self, output: Tensor, batch: Batch) -> list[NDArray[Any]]:
        return self._all.shown(output, batch)

    def truth(self, sample: Mapping[str, Any]) -> NDArray[Any]:
        return self._all.truth(sample)

    def draw(self, image: NDArray[np.uint8], shown: NDArray[Any]) -> NDArray[np.uint8]:
        return self._all.draw(image, shown)
