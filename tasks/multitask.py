"""Several tasks at once: key points, segmentation, depth, normals, … refined stage by stage by one network.

A person (or a whole image) is cut out and scaled to the network's input. Every stage predicts every task and hands all
predictions to the next stage. Accuracy is measured for every task and stage, pooled over all pixels and images.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from rpgmt.config import AugmentationConfig, BalanceConfig, ConfigError, Flag, ModelConfig, TrainConfig, check_together
from rpgmt.config.validation import config_class
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from rpgmt.data.augmentation import Augmentation
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
        Flag("--data"),
    ] = "synthetic"
    root: Annotated[
        Path,
        Field(description="folder of the files; of dataset.yaml, or that file, for folders; of the cache, for synthetic"),
        Flag("--data-root"),
    ] = Path(".data")
    train_split: Annotated[str, Field(description="part of the files to train on; not of synthetic people")] = "train"
    val_split: Annotated[str, Field(description="part of the files to validate on; not of synthetic people")] = "val"
    image_size: Annotated[int, Field(ge=32, le=1024, description="synthetic: width and height of an image")] = 96
    train_images: Annotated[int, Field(ge=1, description="synthetic: images to train on")] = 4000
    val_images: Annotated[int, Field(ge=1, description="synthetic: images to validate on")] = 400
    padding: Annotated[float, Field(gt=0, description="enlargement of a person's box; whole images are not enlarged")] = 1.25


@config_class
class EvaluationConfig:
    """From predictions to accuracy."""

    stop_after: Annotated[int | None, Field(ge=1, description="compute so many stages only; null: all")] = None


def _model() -> ModelConfig:
    return ModelConfig(stages=3, heads={"keypoints": 17, "segmentation": 2, "depth": 1, "normals": 3})


@config_class
class Config:
    """The multi-task task. Its tasks are the model's heads: labels of the data set by name, or `keypoints`."""

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


def build(config: Config) -> StagedTask:
    """The task that a config describes, with its validation data."""
    import torch

    from rpgmt import models
    from rpgmt.heads.staged_task import SCORE, StagedTask

    models.check_batch_size(config.model, config.train.batch_size)
    if SCORE in config.model.heads:
        raise UserError(f"`heads` is {config.model.heads}: {SCORE!r} is the name of the mean over tasks, give another")
    torch.manual_seed(config.train.seed)
    model = models.build(config.model)
    val_data = _crops(_labelled(config.data, "val"), config)
    heads = [_head(name, val_data, config) for name in config.model.heads]
    read_train_data = partial(_read_train_data, config, val_data.dataset)
    return StagedTask(NAME, config, model, heads, val_data, read_train_data, balancing=config.balancing)


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
        return Keypoints(name, codec, PoseEvaluation(labelled.people, "coco_pck", val_data.crops.areas()))
    if name in labelled.maps:
        return map_head(name, labelled.maps[name], depth_loss=config.depth_loss)
    if name in labelled.classes:
        return Classification(name, labelled.classes[name])
    known = ", ".join(labelled.names) or "none"
    raise UserError(f"`heads` is {config.model.heads}: {labelled.name} has no labels {name!r}, it has {known}")


def _read_train_data(config: Config, validated: MultiTaskSet) -> MultiTaskCrops:
    """Training crops with labels that mean what those to validate on do."""
    from rpgmt.data.augmentation import Augmentation

    labelled = _labelled(config.data, "train")
    for name in config.model.heads:
        kind, other = labelled.kind(name), validated.kind(name)
        if kind is None:
            known = ", ".join(labelled.names) or "none"
            raise UserError(f"{labelled.name} has no labels {name!r}, which it is to be trained on, it has {known}")
        if kind != other:
            what = "key points" if name == "keypoints" else f"labels {name!r}"
            texts = [", ".join(of) if isinstance(of, tuple) else of for of in (kind, other)]
            raise UserError(f"{labelled.name}: its {what} are {texts[0]}, those to validate on {texts[1]}")
    return _crops(labelled, config, augment=Augmentation(**vars(config.augmentation)))


def _labelled(data: DataConfig, split: Literal["train", "val"]) -> MultiTaskSet:
    from rpgmt.data.catalog import read_multitask_set
    from rpgmt.synthetic.labels import synthetic_multitask_set

    if data.name == "synthetic":
        count = data.train_images if split == "train" else data.val_images
        return synthetic_multitask_set(data.root, split, count=count, size=data.image_size)
    return read_multitask_set(data.name, data.root, data.train_split if split == "train" else data.val_split)


def _crops(labelled: MultiTaskSet, config: Config, augment: Augmentation | None = None) -> MultiTaskCrops:
    from rpgmt.data.multitask_crops import MultiTaskCrops

    size, seed = config.model.input_size, config.train.seed
    return MultiTaskCrops(labelled, config.model.heads, size, augment=augment, seed=seed, padding=config.data.padding)
