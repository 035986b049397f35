"""Image classification: a class for each image, by a ResNet whose convolutions are generated from a bank.

Small images, CIFAR's, lie on the training device as one array and are changed there in batches; larger ones are decoded from
files by the loader's workers. Accuracy is top-1 and top-5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from rpgmt.config import ClassifierConfig, Flag, TrainConfig, check_together, tell_without_effect
from rpgmt.config.validation import config_class
from rpgmt.engine.task import Batch, Outputs, Task
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rpgmt.data.image_classification import ClassifiedImages, ImageAugmentation
    from rpgmt.data.sets.image_classes import ImageSet
    from rpgmt.prediction.meaning import Reading

SHOWN = 16
"""Images in `predictions.png`."""
SHOWN_OF_A_RANK = 5
"""Images of each rank in the gallery."""


@config_class
class DataConfig:
    """Images with a class each."""

    name: Annotated[
        Literal["cifar10", "cifar100", "cifar10_jpeg", "imagenet", "folder"],
        Field(description="CIFAR (downloaded once), copies of it as JPEG files, ImageNet, or folders of your own, one a class"),
        Flag("--data", everyday=True),
    ] = "cifar10"
    root: Annotated[Path, Field(description="folder of the files"), Flag("--data-root", everyday=True)] = Path(".data")
    train_split: Annotated[str, Field(description="part of the files to train on")] = "train"
    val_split: Annotated[str | None, Field(description="part of the files to validate on; null: the set's usual one")] = None
    class_names: Annotated[
        tuple[str, ...] | None,
        Field(description="names of the classes, which validation checks; null: the training data's, noted in the run"),
    ] = None


@config_class
class AugmentationConfig:
    """Random changes of the images that are trained on (`rpgmt.data.image_classification.ImageAugmentation`)."""

    flip: Annotated[float, Field(ge=0, le=1, description="probability of a mirror image")] = 0.5
    swaps: Annotated[
        tuple[tuple[str, str], ...] | None,
        Field(description="pairs of classes that a mirror image exchanges; null: those whose names say left and right"),
    ] = None
    crop_padding: Annotated[
        int, Field(ge=0, le=64, description="small images: black pixels round an image, out of which one of its size is cut")
    ] = 4
    smallest_crop: Annotated[
        float, Field(gt=0, le=1, description="files: least part of an image's area that is cut out and scaled to the input")
    ] = 0.08


@config_class
class Config:
    """The classification task."""

    default_preset: ClassVar[str] = "cifar10"
    examples: ClassVar[tuple[str, ...]] = (
        "classification                          CIFAR-10, downloaded once",
        "classification --config folder --data-root DIR",
        "classification --network resnet34 --rpg-size 10%",
    )

    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="part of the target that is spread evenly over all classes")
    ] = 0.0
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_together(self.model, self.train)

    def for_another_set(self) -> Config:
        """The config without the files of its own data set; the classes stay the model's."""
        return dataclasses.replace(self, data=DataConfig(class_names=self.data.class_names))


class Data:
    """The images of a config, found and checked when they are first asked for; torch is not needed for it."""

    def __init__(self, config: Config) -> None:
        from rpgmt.data.catalog import IMAGE_SETS

        self._config = config
        self._source = IMAGE_SETS[config.data.name]
        self.title, self.val_split = self._source.title, config.data.val_split or self._source.val_split

    @cached_property
    def val(self) -> ImageSet:
        """What is validated on."""
        return self._read(self.val_split)

    @cached_property
    def train(self) -> ImageSet:
        """What is trained on: it has the same classes."""
        from rpgmt.data.mirror_classes import SWAPS_FLAG, mirror_of

        found = self._read(self._config.data.train_split)
        if odd := sorted(set(found.classes) ^ set(self.val.classes)):
            raise UserError(f"{self._config.data.root}: {odd[0]!r} is a class to train on or to validate on, and not both")
        own = self._config.augmentation
        if own.flip:
            mirror_of(found.classes, own.swaps).check(found.name, SWAPS_FLAG)
        return found

    def _read(self, split: str) -> ImageSet:
        data, classes = self._config.data, self._config.model.classes
        found = self._source.read(data.root, split)
        if len(found.classes) != classes:
            count = len(found.classes)
            raise UserError(f"`classes` is {classes}: {data.root} has {count} in {split}, train with --classes {count}")
        if data.class_names is not None and found.classes != data.class_names:
            odd = next(pair for pair in zip(data.class_names, found.classes, strict=True) if pair[0] != pair[1])
            raise UserError(f"{data.root}: class {odd[1]!r} in {split} stands where the model has {odd[0]!r}")
        return found


def read(config: Config, *, training: bool = False) -> Data:
    """Find what a config is measured on, and with `training` what it is trained on, without torch.

    Raises:
        UserError: the files are missing or wrong, or have other classes than the network.
    """
    if training:
        tell_without_effect(config.model.without_effect())
    found = Data(config)
    _ = (found.train, found.val) if training else found.val
    return found


def build(config: Config, data: Data | None = None) -> ClassificationTask:
    """The task that a config describes; `data`: what `read` gave for it."""
    import torch

    torch.manual_seed(config.train.seed)
    return ClassificationTask(config, data or Data(config))


class ClassificationTask(Task):
    """Images, a logit for each class, the accuracy."""

    name = "classification"
    monitor = "top1"
    config: Config

    def __init__(self, config: Config, data: Data) -> None:
        from rpgmt import models
        from rpgmt.models.classifier import check_batch_size

        check_batch_size(config.model, config.train.batch_size)
        self.config, self.model, self._data = config, models.build(config.model), data

    @cached_property
    def train_data(self) -> ClassifiedImages:  # type: ignore[override]
        from rpgmt.data.image_classification import ImageAugmentation

        own = self.config.augmentation
        augment = ImageAugmentation(flip=own.flip, swaps=own.swaps, padding=own.crop_padding, smallest=own.smallest_crop)
        return self._images(self._data.train, augment)

    @cached_property
    def val_data(self) -> ClassifiedImages:  # type: ignore[override]
        return self._images(self._data.val, None)

    def _images(self, source: ImageSet, augment: ImageAugmentation | None) -> ClassifiedImages:
        from rpgmt.data.image_classification import classified_images

        size, seed = self.config.model.input_size, self.config.train.seed
        return classified_images(source, self._data.title, size, augment=augment, seed=seed)

    def resolved(self) -> Config:
        """The config with the names of the classes: what the model can be measured on later."""
        data = dataclasses.replace(self.config.data, class_names=self.val_data.classes)
        return dataclasses.replace(self.config, data=data)

    @property
    def reading(self) -> Reading:
        from rpgmt.models.classifier import HEAD
        from rpgmt.prediction.meaning import ImageLogits, Reading

        data = self.val_data
        heads = {HEAD: ImageLogits(classes=data.classes)}
        return Reading(input_size=self.config.model.input_size, cut=data.cut, padding=1.0, heads=heads)

    @property
    def metric_label(self) -> str:
        return f"{self._data.title} {self._data.val_split}"

    def data_summary(self) -> dict[str, Any]:
        sizes = {"train_images": len(self.train_data), "val_images": len(self.val_data)}
        return {"name": self._data.title, "root": str(self.config.data.root), **sizes}

    def images(self, batch: Batch) -> Tensor:
        data = self.train_data if batch["part"][0] == "train" else self.val_data
        return data.images(batch)

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        import torch
        from torch.nn.functional import cross_entropy

        logits, labels = _logits(outputs), batch["label"]
        total = cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing, reduction="sum")
        return {"class": (total, torch.tensor(len(labels)))}

    def predictions(self, outputs: Outputs, batch: Batch) -> list[dict[str, Any]]:
        """For each image its `index`, its `found` class, and the `rank` of its true one, from 0, and how `sure` that is."""
        from rpgmt.metrics.ranks import ranks

        logits = _logits(outputs)
        sure = logits.softmax(1).gather(1, batch["label"][:, None])[:, 0]
        columns = (batch["index"], logits.argmax(1), ranks(logits, batch["label"]), sure)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [{"index": index, "found": found, "rank": rank, "sure": sure} for index, found, rank, sure in rows]

    def metrics(self, predictions: Sequence[dict[str, Any]]) -> dict[str, float | None]:
        """`top1` and `top5`: how many of the images have their class among the first and first five. Of 5 classes all have."""
        from rpgmt.metrics.ranks import top_k

        found = [record["rank"] for record in predictions]
        return {"top1": top_k(found, 1), "top5": top_k(found, 5) if self.config.model.classes > 5 else None}

    def draw(self, predictions: Sequence[dict[str, Any]], folder: Path) -> None:
        """Writes `predictions.png`: images of the validation set with what they were taken for."""
        from rpgmt.visualize import contact_sheet, save_png, write_caption

        records = sorted(predictions, key=lambda record: record["index"])
        few = records[:: max(1, len(records) // SHOWN)][:SHOWN]
        cells = [write_caption(self.val_data.picture(record["index"]), self._says(record)) for record in few]
        save_png(folder / "predictions.png", contact_sheet([cells[i : i + 4] for i in range(0, len(cells), 4)]))

    def draw_gallery(self, predictions: Sequence[dict[str, Any]], model: nn.Module, folder: Path) -> None:
        """Images by how sure the network is of their true class."""
        import numpy as np

        from rpgmt.run_report import gallery

        records = sorted(predictions, key=lambda record: record["index"])
        sure = np.array([record["sure"] for record in records])
        rows = []
        for rank, places in gallery.ranked(sure, SHOWN_OF_A_RANK, higher=True).items():
            shown = [(self._says(records[i]), self.val_data.picture(records[i]["index"]), sure[i]) for i in places]
            rows.append(gallery.Row(rank, "", [gallery.Picture(*picture) for picture in shown]))
        figure = "probability of the true class"
        gallery.write([gallery.group("class", figure, True, sure[:, None], rows, {}, folder)], folder)

    def _says(self, record: dict[str, Any]) -> str:
        found, true = (
            self.val_data.classes[number] for number in (record["found"], int(self.val_data.labels[record["index"]]))
        )
        return found if found == true else f"{found}, is {true}"


def _logits(outputs: Outputs) -> Tensor:
    """(B, C) in float32."""
    from rpgmt.models.classifier import HEAD

    return outputs[-1][HEAD].float()
