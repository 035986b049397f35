"""What training and evaluation need to know of a task."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from rpgmt.config import BalanceConfig, TrainConfig
from rpgmt.errors import UserError

if TYPE_CHECKING:  # the command line imports the tasks, and is not to wait for torch
    from torch import Tensor, nn

    from rpgmt.prediction.meaning import Reading

Batch = dict[str, Any]
"""Samples collated by torch's default rule: a tensor (B, …) for each key."""

SCORE = "score"
"""The mean over several heads of one number each, from 0 to 1: AP, mIoU, depth within 1.25, normals within 30°, accuracy."""

Outputs = list[dict[str, "Tensor"]]
"""What the model returns: for each stage a dict head -> tensor (B, …)."""


class Dataset(Protocol):
    """Samples by (epoch, index): augmentation is a function of these two alone. Validation ignores the epoch."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int], /) -> dict[str, Any]: ...


class TaskConfig(Protocol):
    """What the tools ask of a training task's ``Config``, a frozen dataclass."""

    @property
    def model(self) -> Any: ...

    @property
    def data(self) -> Any: ...

    @property
    def train(self) -> TrainConfig: ...

    def for_another_set(self) -> Self:
        """Return the config to measure the same model on a data set of another name.

        It is without what belongs to its own data set alone: files, splits, boxes, what is usual to measure there. What
        the model's predictions mean, e.g. the names of its key points, stays.
        """


class Task(abc.ABC):
    """A model, its data, its losses and its metrics.

    Data are read when the task is built or when they are first asked for, by ``train_data``, ``val_data`` or
    ``data_summary()``; nothing else reads training data. Answers are the same whatever is asked first.

    Attributes:
        name: the task's name in `metrics.json` and in names of run folders, e.g. ``pose``.
        model: maps images (B, 3, H, W) to the predictions of every stage.
        config: what the task was built from; a `TaskConfig`.
        train_data: samples ``train_data[epoch, index]``. A key ``index``, if there is one, names samples in errors.
            They fit the validation data: what is trained is what is measured, or asking for them is a `UserError`.
        val_data: the same, without augmentation.
        monitor: the metric whose highest value makes `checkpoints/best.ckpt`, e.g. ``AP``.
        balancing: how training balances the losses of the tasks. All but `equal` need a model with ``tasks``, the names
            with which the names of losses end (``stage_1/depth``: depth); methods on gradients one with
            ``shared_parameters`` and ``task_parameters`` besides, as `rpgmt.models.Refinement` has.
    """

    name: str
    config: TaskConfig
    model: nn.Module
    train_data: Dataset
    val_data: Dataset
    monitor: str
    balancing: BalanceConfig = BalanceConfig()

    @property
    def teacher(self) -> nn.Module | None:
        """A trained network, whose outputs training adds to each batch, see `rpgmt.engine.teacher`; by default none."""
        return None

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Files that training depends on beside its data: digests of what they hold, by the config's field; by default none."""
        return {}

    @property
    def details(self) -> tuple[str, ...]:
        """The metrics that are also known of each class or key point, as ``METRIC:NAME``: a table each; by default none."""
        return ()

    @property
    def metric_label(self) -> str:
        """What the metrics are over, for the titles of tables, e.g. ``coco val, gt boxes``."""
        return self.name

    @property
    def remarks(self) -> list[str]:
        """What a reader of the metrics should know, a line each, e.g. how many people a metric is over; by default none."""
        return []

    @property
    def reading(self) -> Reading | None:
        """What the model is given and what its outputs mean, for prediction; None, the default: nobody predicts with it."""
        return None

    def data_summary(self) -> dict[str, Any]:
        """Return what the run is trained and validated on, for `metrics.json`; training data are read for it."""
        return {"train_samples": len(self.train_data), "val_samples": len(self.val_data)}

    def resolved(self) -> Any:
        """Return the config to save with the model: with what the data decided, e.g. the names of classes.

        A model is measured by it later: it says what the predictions are. By default the config as it is.
        """
        return self.config

    @abc.abstractmethod
    def images(self, batch: Batch) -> Tensor:
        """Return the model's input (B, 3, H, W), floating point, on the batch's device."""

    def infer(self, model: nn.Module, images: Tensor) -> Outputs:
        """Return the outputs that validation measures; by default those of one forward pass."""
        outputs: Outputs = model(images)
        return outputs

    @abc.abstractmethod
    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Return, for each loss, e.g. ``stage_1/keypoints``, its sum over the valid targets and their number.

        Both are scalars; a sum over no target is 0. The names are the same for every batch. Training minimises
        Σ sum / number, with sums and numbers over the batches of all processes.
        """

    @abc.abstractmethod
    def predictions(self, outputs: Outputs, batch: Batch) -> list[Any]:
        """Return records of this batch for `metrics`; they can be pickled and hold nothing on a GPU."""

    @abc.abstractmethod
    def metrics(self, predictions: list[Any]) -> dict[str, float | None]:
        """Return the metrics of the whole validation set, e.g. ``AP``, ``stage_1/AP``; None where not applicable.

        ``predictions`` are those of all batches; with several processes they are not in the data set's order.
        """

    def draw(self, predictions: list[Any], folder: Path) -> None:  # noqa: B027 - a task may have nothing to draw
        """Write pictures of the last validation's predictions to the run folder; by default none."""

    def draw_gallery(self, predictions: list[Any], model: nn.Module, folder: Path) -> None:  # noqa: B027 - as above
        """Write pictures of the best, the middle and the worst predictions to a folder, see `rpgmt.run_report.gallery`.

        Args:
            predictions: of the last validation.
            model: with whose weights it was made; it is left as it is.
            folder: is made if there is something to draw.
        """

    def check_results(self, path: Path) -> None:
        """Raise UserError where ``save_results`` has no format, before anything is predicted; by default it has none."""
        raise UserError(f"`save_results` is {path}: the task {self.name} has no format for results")

    def save_results(self, predictions: list[Any], path: Path) -> None:
        """Write predictions to a file in the format of the field, where ``check_results`` passes."""
        self.check_results(path)
