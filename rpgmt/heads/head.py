"""What every head of a network has in common."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.errors import UserError
from rpgmt.metrics.pck import PckCount
from rpgmt.prediction.meaning import AnyMeaning

Batch = dict[str, Any]


class Head(abc.ABC):
    """One task of a network: how its prediction becomes a loss, metrics, a file of results and a picture.

    The network gives (B, channels, h, w) after each stage; what that means is the head's affair alone. Labels that are
    missing, of a sample or of a pixel, count neither in the loss nor in the metrics.

    Args:
        name: of the head, and so of its labels in a batch.

    Attributes:
        channels: of the prediction.
        higher: the metrics that a comparison of networks counts (delta-m), and whether a higher value is the better one.
        main: the one of them that stands for the task where each has one.
        score: the metric from 0 to 1, higher is better, by which models are chosen; of several tasks, by its mean.
        detailed: whether `main` is also known of each class or key point, as `main:NAME`.
        parts: the names of what a sample's `quality` is made of, e.g. of key points; of one figure a sample, none.
        figure: what `quality` measures, for people, e.g. "OKS".
        figure_higher: whether a higher one is the better one.
    """

    channels: int
    higher: Mapping[str, bool]
    main: str
    score: str
    detailed: bool = False
    parts: tuple[str, ...] = ()
    figure: str
    figure_higher: bool = True

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abc.abstractmethod
    def meaning(self) -> AnyMeaning:
        """How its outputs are read where there are no labels; written into the model file."""

    @abc.abstractmethod
    def loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum over the labelled targets and their number, both scalars."""

    def losses(self, outputs: Sequence[Tensor], batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """The loss of each stage's prediction; a head whose targets take work makes them once for all of them."""
        return [self.loss(output, batch) for output in outputs]

    def average_with_mirror(self, output: Tensor, mirrored: Tensor) -> Tensor:
        """The flip test: the mean of a prediction and of the mirror image's, mirrored back.

        Raises:
            UserError: the head has none; by default.
        """
        raise UserError(f"`flip_test` is true: predictions of {self.name} are not averaged with those of a mirror image")

    @abc.abstractmethod
    def measure(self, output: Tensor, batch: Batch) -> Any:
        """What `metrics` needs to know of a batch: counts and sums, on the CPU."""

    @abc.abstractmethod
    def metrics(self, measured: Sequence[Any]) -> dict[str, float | None]:
        """Metrics over all batches together; None where nothing is labelled. `name:part` is a figure of one class or point."""

    def counted(self) -> Mapping[str, PckCount]:
        """Whom metrics are over that cannot measure everybody labelled, by the metric; by default none is such."""
        return {}

    def check_results(self, path: Path) -> None:
        """Raise UserError where `save_results` has no format, before anything is predicted; by default it has none."""
        raise UserError(f"`save_results` is {path}: predictions of {self.name} have no format for results")

    def save_results(self, measured: Sequence[Any], path: Path) -> None:
        """Writes what was found, as `metrics` is given it, in the file format of the field, where `check_results` passes."""
        self.check_results(path)

    @abc.abstractmethod
    def quality(self, output: Tensor, batch: Batch, measured: Any) -> Tensor:
        """How good each sample's prediction is: (B, P) of P parts, NaN where nothing of a part is labelled.

        A sample's figure is the mean over its parts. It tells samples of one data set apart; `metrics` are what is reported.

        Args:
            output, batch: as of `measure`.
            measured: what `measure` made of them, which spares a head to do it again.
        """

    @abc.abstractmethod
    def constant(self, batches: Iterable[Batch]) -> Tensor:
        """The prediction (channels, h, w) or (channels, 1, 1) that knows the training labels and not the image."""

    @abc.abstractmethod
    def shown(self, output: Tensor, batch: Batch) -> list[NDArray[Any]]:
        """What pictures need of each sample, in pixels of the crop."""

    @abc.abstractmethod
    def truth(self, sample: Mapping[str, Any]) -> NDArray[Any]:
        """The same of a sample's labels."""

    @abc.abstractmethod
    def draw(self, image: NDArray[np.uint8], shown: NDArray[Any]) -> NDArray[np.uint8]:
        """A picture (H, W, 3) of a crop's prediction or labels."""


def mean_where(values: Tensor, known: Tensor) -> Tensor:
    """The mean of each sample's values (B, …) where they are known (B, …), as one part: (B, 1), NaN of none."""
    total = torch.where(known, values, 0).flatten(1).sum(1, keepdim=True)
    return total / known.flatten(1).sum(1, keepdim=True)


def to_numpy(values: Tensor) -> list[NDArray[Any]]:
    """The samples of a batch, one array each."""
    return list(values.detach().cpu().numpy())
