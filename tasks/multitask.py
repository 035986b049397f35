"""Several tasks at once: key points, segmentation, depth, normals, … refined stage by stage by one network.

A person (or a whole image) is cut out and scaled to the network's input. Every stage predicts every task and hands all
predictions to the next stage. Accuracy is measured for every task and stage, pooled over all pixels and images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from rpgmt.config import (
    AugmentationConfig,
    BalanceConfig,
    ConfigError,
    Flag,
    ModelConfig,
    TrainConfig,
    check_together,
    tell_without_effect,
)
from rpgmt.config.validation import config_class
from rpgmt.engine.task import SCORE
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from rpgmt.data.augmentation import Augmentation
    from rpgmt.data.dense.label_maps import LabelMap
    from rpgmt.data.multitask_crops import MultiTaskCrops
    from rpgmt.data.multitask_set import MultiTaskSet
    from rpgmt.heads import Head
    from rpgmt.heads.staged_task import StagedTask

NAME = "multitask"


@config_class
class DataConfig:
    """Images with labels for several tasks."""

    name: Annotated[
        Literal["synthetic", "coco", "nyuv2", "cityscapes", "folders"],
        Field(description="people that are drawn here, a data set's files, or folders of your own that a YAML file describes"),
        Flag("--data", everyday=True),
    ] = "synthetic"
    root: Annotated[
        Path,
        Field(description="folder of the files; of dataset.yaml, or that file, for folders; of the cache, for synthetic"),
        Flag("--data-root", everyday=True),
    ] = Path(".data")
    train_split: Annotated[str, Field(description="part of the files to train on; not of synthetic people")] = "train"
    val_split: Annotated[str, Field(description="part of the files to validate on; not of synthetic people")] = "val"
    hold_out: Annotated[
        float,
        Field(ge=0, lt=1, description="part of the training images to validate on, in place of val_split: not trained on"),
    ] = 0.0
    image_size: Annotated[int, Field(ge=32, le=1024, description="synthetic: width and height of an image")] = 96
    train_images: Annotated[int, Field(ge=1, description="synthetic: images to train on")] = 4000
    val_images: Annotated[int, Field(ge=1, description="synthetic: images to validate on")] = 400
    padding: Annotated[float, Field(gt=0, description="enlargement of a person's box; whole images are not enlarged")] = 1.25


@config_class
class EvaluationConfig:
    """From predictions to accuracy."""

    evaluator: Annotated[
        Literal["hotcoco", "pycocotools"], Field(description="library that computes AP, to the same digits; hotcoco is faster")
    ] = "hotcoco"
    stop_after: Annotated[int | None, Field(ge=1, description="compute so many stages only; null: all")] = None


def _model() -> ModelConfig:
    return ModelConfig(stages=3, heads={"keypoints": 17, "segmentation": 2, "depth": 1, "normals": 3})


@config_class
class Config:
    """The multi-task task. Its tasks are the model's heads: labels of the data set by name, or `keypoints`."""

    examples: ClassVar[tuple[str, ...]] = (
        "multitask                               people that are drawn here",
        "multitask --config folders --data-root DIR",
        "multitask --config nyuv2 --data-root DIR --balance uncertainty",
    )

    model: ModelConfig = field(default_factory=_model)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    sigma: Annotated[float, Field(gt=0, description="key points: the target's standard deviation in map cells")] = 1.0
    depth_loss: Annotated[
        Literal["l1", "silog"], Field(description="depth: absolute error, or the scale-invariant one of logarithms")
    ] = "l1"
    balancing: BalanceConfig = field(default_factory=BalanceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_together(self.model, self.train)
        stages, stop = self.model.stages, self.evaluation.stop_after
        if stop is not None and stop > stages:
            raise ConfigError(f"`stop_after` is {stop}: the network has {stages} stages")

    def for_another_set(self) -> Config:
        """The config without the files of its own data set."""
        return dataclasses.replace(self, data=DataConfig(padding=self.data.padding))


class Data:
    """The labelled images of a config, read and checked when they are first asked for; torch is not needed for it.

    Args:
        config: with `model.heads` null, the network predicts all that the data has labels for.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def val(self) -> MultiTaskSet:
        """What is validated on."""
        labelled = _labelled(self._config.data, "val")
        for name, channels in (self._config.model.heads or {}).items():
            _check_has(labelled, name, channels, self._config.model.heads)
        return labelled

    @cached_property
    def train(self) -> MultiTaskSet:
        """What is trained on: its labels mean what those to validate on do."""
        labelled, validated = _labelled(self._config.data, "train"), self.val
        for name in self.config.model.heads or ():
            kind, other = labelled.kind(name), validated.kind(name)
            if kind is None:
                known = ", ".join(labelled.names) or "none"
                raise UserError(f"{labelled.name} has no labels {name!r}, which it is to be trained on, it has {known}")
            if kind != other:
                what = "key points" if name == "keypoints" else f"labels {name!r}"
                texts = [", ".join(of) if isinstance(of, tuple) else of for of in (kind, other)]
                raise UserError(f"{labelled.name}: its {what} are {texts[0]}, those to validate on {texts[1]}")
        if self._config.augmentation.flip:
            labelled.check_mirrors(self.config.model.heads or ())
        return labelled

    @cached_property
    def config(self) -> Config:
        """The config with what the data decided: the heads."""
        own = self._config
        heads = own.model.heads or {name: _channels(self.val.kind(name)) for name in self.val.names}
        return dataclasses.replace(own, model=dataclasses.replace(own.model, heads=heads))


def read(config: Config, *, training: bool = False) -> Data:
    """Read what a config is measured on, and with `training` what it is trained on, without torch.

    Raises:
        UserError: the files are missing or wrong, or lack labels of the network's heads.
    """
    if SCORE in (config.model.heads or ()):
        raise UserError(f"`heads` is {config.model.heads}: {SCORE!r} is the name of the mean over tasks, give another")
    if training:
        tell_without_effect(config.model.without_effect())
    found = Data(config)
    _ = (found.val, found.train) if training else found.val
    return found


def build(config: Config, data: Data | None = None) -> StagedTask:
    """The task that a config describes, with its validation data; `data`: what `read` gave for it."""
    import torch

    from rpgmt import models
    from rpgmt.data.augmentation import Augmentation
    from rpgmt.heads.staged_task import StagedTask

    data = data or read(config)
    config = data.config
    models.check_batch_size(config.model, config.train.batch_size)
    torch.manual_seed(config.train.seed)
    model = models.build(config.model)
    val_data = _crops(data.val, config)
    heads = [_head(name, val_data, config) for name in config.model.heads or ()]
    changes = Augmentation(**vars(config.augmentation))

    def train_crops() -> MultiTaskCrops:
        return _crops(data.train, config, augment=changes)

    return StagedTask(NAME, config, model, heads, val_data, train_crops, balancing=config.balancing)


def _channels(kind: LabelMap | tuple[str, ...] | None) -> int:
    """Of the head that predicts labels of a kind."""
    assert kind is not None
    if isinstance(kind, tuple):
        return len(kind)
    return len(kind.classes) if kind.categorical else 3 if kind.kind == "normals" else 1


def _check_has(labelled: MultiTaskSet, name: str, channels: int, heads: Mapping[str, int] | None) -> None:
    kind, given = labelled.kind(name), dict(heads or {})
    if kind is None:
        known = ", ".join(labelled.names) or "none"
        raise UserError(f"`heads` is {given}: {labelled.name} has no labels {name!r}, it has {known}: --heads null takes all")
    if channels != _channels(kind):
        fitting = ",".join(f"{one}={_channels(found)}" for one in given if (found := labelled.kind(one)) is not None)
        raise UserError(f"`heads` is {given}: the labels of {labelled.name} need --heads {fitting}")


def _head(name: str, val_data: MultiTaskCrops, config: Config) -> Head:
    """What predicts the data set's labels of a name."""
    from rpgmt.codecs import make_codec
    from rpgmt.heads import Classification, map_head
    from rpgmt.heads.keypoints import Keypoints
    from rpgmt.metrics.poses import PoseEvaluation
    from rpgmt.models import STRIDE

    labelled = val_data.dataset
    if name == "keypoints" and labelled.people is not None:
        codec = make_codec("heatmap", config.model.input_size, STRIDE, config.sigma, logits=True)
        library = config.evaluation.evaluator
        return Keypoints(name, codec, PoseEvaluation(labelled.people, "coco_pck", val_data.crops.areas(), evaluator=library))
    if name in labelled.maps:
        return map_head(name, labelled.maps[name], depth_loss=config.depth_loss)
    return Classification(name, labelled.classes[name])


def _labelled(data: DataConfig, split: Literal["train", "val"]) -> MultiTaskSet:
    from rpgmt.data.hold_out import split_labelled

    if not data.hold_out:
        return _read_labelled(data, split)
    rest, held_out = split_labelled(_read_labelled(data, "train"), data.hold_out)
    return rest if split == "train" else held_out


def _read_labelled(data: DataConfig, split: Literal["train", "val"]) -> MultiTaskSet:
    from rpgmt.data.catalog import read_multitask_set
    from rpgmt.synthetic.labels import synthetic_multitask_set

    if data.name == "synthetic":
        count = data.train_images if split == "train" else data.val_images
        return synthetic_multitask_set(data.root, split, count=count, size=data.image_size)
    return read_multitask_set(data.name, data.root, data.train_split if split == "train" else data.val_split)


def _crops(labelled: MultiTaskSet, config: Config, augment: Augmentation | None = None) -> MultiTaskCrops:
    from rpgmt.data.multitask_crops import MultiTaskCrops

    size, seed = config.model.input_size, config.train.seed
    return MultiTaskCrops(labelled, config.model.heads or (), size, augment=augment, seed=seed, padding=config.data.padding)
