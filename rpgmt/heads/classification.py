"""A class for each image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.heads.head import Batch, Head, to_numpy
from rpgmt.heads.segmentation import class_frequencies
from rpgmt.losses.dense import classes_cross_entropy
from rpgmt.metrics.dense import confusion
from rpgmt.prediction.meaning import ImageLogits, class_logits
from rpgmt.visualize import write_caption


class Classification(Head):
    """Logits of an image's class: the mean of the prediction's cells; cross-entropy; accuracy, and its mean over the classes.

    The mean of maps, and not of features, keeps a map of where in the image each class was seen (Lin et al., Network in
    Network, arXiv 1312.4400, section 3.2), which the next stage is given as it is.

    Args:
        name: of the head and its labels (B,), -1 where there is none.
        classes: their names.
    """

    higher: Mapping[str, bool] = {"accuracy": True, "mean_accuracy": True}
    main, score = "accuracy", "mean_accuracy"  # which does not grow where all are taken for the most frequent class
    detailed = True
    figure = "probability of the true class"

    def __init__(self, name: str, classes: Sequence[str]) -> None:
        super().__init__(name)
        self.classes, self.channels = tuple(classes), len(classes)

    @property
    def meaning(self) -> ImageLogits:
        return ImageLogits(classes=self.classes)

    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return classes_cross_entropy(class_logits(output), batch[self.name])

    def measure(self, output: Tensor, batch: Batch) -> NDArray[np.int64]:
        return confusion(class_logits(output).argmax(1), batch[self.name], self.channels)

    def metrics(self, measured: Sequence[NDArray[np.int64]]) -> dict[str, float | None]:
        """Accuracy over images, and its mean over the classes that occur."""
        counts = np.sum(measured, axis=0)
        right, images = np.diag(counts), counts.sum(1)
        each = [float(r / n) if n else None for r, n in zip(right, images, strict=True)]
        known = [value for value in each if value is not None]
        return {
            "accuracy": float(right.sum() / images.sum()) if known else None,
            "mean_accuracy": sum(known) / len(known) if known else None,
            **{f"accuracy:{name}": value for name, value in zip(self.classes, each, strict=True)},
        }

    def quality(self, output: Tensor, batch: Batch, measured: Any) -> Tensor:
        labels = batch[self.name][:, None].long()
        found = class_logits(output).softmax(1).gather(1, labels.clamp(min=0))
        return found.where(labels >= 0, torch.nan)

    def constant(self, batches: Iterable[Batch]) -> Tensor:
        """The most frequent class."""
        return class_frequencies((batch[self.name] for batch in batches), self.channels)[:, None, None]

    def shown(self, output: Tensor, batch: Batch) -> list[NDArray[Any]]:
        return to_numpy(class_logits(output).argmax(1))

    def truth(self, sample: Mapping[str, Any]) -> NDArray[Any]:
        return np.array(sample[self.name])

    def draw(self, image: NDArray[np.uint8], shown: NDArray[Any]) -> NDArray[np.uint8]:
        return write_caption(image, self.classes[int(shown)] if shown >= 0 else "not known")
