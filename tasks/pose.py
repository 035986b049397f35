"""Human pose estimation: key points of each person, top-down, refined stage by stage.

A person's box is cut out of the image and scaled to the network's input; every stage predicts a heat map for each key point.
Accuracy is measured for every stage, as the data set's own protocol has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from rpgmt.config import AugmentationConfig, ConfigError, Flag, ModelConfig, TrainConfig, check_together, tell_without_effect
from rpgmt.config.validation import config_class
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from rpgmt.data.coco.people import CocoPeople
    from rpgmt.data.pose_crops import MixedCrops, PoseCrops
    from rpgmt.heads.staged_task import StagedTask

HEAD = "keypoints"

Protocol = Literal["coco", "crowdpose", "pck", "pckh"]
PROTOCOLS: dict[str, Protocol] = {"synthetic": "coco", "coco": "coco", "crowdpose": "crowdpose", "lsp": "pck", "mpii": "pckh"}
"""How accuracy is measured on each data set."""
Pairs = tuple[tuple[str, str], ...]


@config_class
class DataConfig:
    """People, and how they are cut out of their images."""

    name: Annotated[
        Literal["synthetic", "coco", "crowdpose", "mpii", "lsp"],
        Field(description="people that are drawn here, or the files of a data set; coco is any set in COCO's format"),
        Flag("--data", everyday=True),
    ] = "synthetic"
    root: Annotated[
        Path, Field(description="folder of the files; of the cache, for synthetic people"), Flag("--data-root", everyday=True)
    ] = Path(".data")
    train_split: Annotated[str, Field(description="part of the files to train on; not of synthetic people")] = "train"
    val_split: Annotated[str, Field(description="part of the files to validate on; not of synthetic people")] = "val"
    hold_out: Annotated[
        float,
        Field(ge=0, lt=1, description="part of the training images to validate on, in place of val_split: not trained on"),
    ] = 0.0
    also: Annotated[
        tuple[str, ...], Field(description="further training sets, NAME=DIR each; their key points are taken over by name")
    ] = ()
    detections: Annotated[
        Path | None, Field(description="JSON file of detected boxes to validate on, in COCO's result format; null: true boxes")
    ] = None
    detection_threshold: Annotated[float, Field(ge=0, description="detections with a lower score are left out")] = 0.0
    categories: Annotated[
        tuple[str, ...] | None,
        Field(
            description="coco: names of the categories that are the people; null: all with key points, where they are the same"
        ),
    ] = None
    sigmas: Annotated[tuple[float, ...] | None, Field(description="OKS sigmas of the key points; null: the data set's")] = None
    flip_pairs: Annotated[Pairs | None, Field(description="names of left and right key points; null: the data set's")] = None
    skeleton: Annotated[Pairs | None, Field(description="names that are joined in pictures; null: the data set's")] = None
    keypoints: Annotated[
        tuple[str, ...] | None,
        Field(
            description="names of the maps' key points, which validation checks; null: the training data's, noted in the run"
        ),
    ] = None
    image_size: Annotated[int, Field(ge=32, le=1024, description="synthetic: width and height of an image")] = 96
    train_images: Annotated[int, Field(ge=1, description="synthetic: images to train on")] = 4000
    val_images: Annotated[int, Field(ge=1, description="synthetic: images to validate on")] = 400
    padding: Annotated[float, Field(gt=0, description="enlargement of a person's box")] = 1.25

    def __post_init__(self) -> None:
        if self.hold_out and self.detections is not None:
            raise ConfigError(f"`detections` is {self.detections}: they are of val_split; hold_out validates on train_split")


@config_class
class EvaluationConfig:
    """From predictions to accuracy."""

    protocol: Annotated[Protocol | None, Field(description="what is measured; null: what is usual for the data set")] = None
    flip_test: Annotated[bool, Field(description="average the maps of the crop and of its mirror image")] = False
    flip_shift: Annotated[
        int | None, Field(ge=0, le=4, description="flip test: cells to shift the mirror image's maps by; null: the codec's own")
    ] = None
    rescoring: Annotated[
        Literal["mean", "box_mean", "box_mean_max"],
        Field(
            description="a person's score: mean of its points' scores, box score × mean of those over 0.2, or box + mean + max"
        ),
    ] = "mean"
    nms: Annotated[Literal["none", "hard", "soft"], Field(description="suppression of people found twice, by OKS")] = "none"
    nms_threshold: Annotated[float, Field(gt=0, le=1, description="OKS above which two people are one")] = 0.9
    evaluator: Annotated[
        Literal["hotcoco", "pycocotools"], Field(description="library that computes AP, to the same digits; hotcoco is faster")
    ] = "hotcoco"
    stop_after: Annotated[int | None, Field(ge=1, description="compute so many stages only; null: all")] = None


@config_class
class Config:
    """The pose task."""

    examples: ClassVar[tuple[str, ...]] = (
        "pose                                    people that are drawn here",
        "pose --config coco_json --data-root DIR key points of your own",
        "pose --config coco --stages 2 --rpg-size 25%",
    )

    model: ModelConfig = field(default_factory=lambda: ModelConfig(heads=None))
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    codec: Annotated[
        Literal["heatmap", "msra", "dark", "udp"],
        Field(description="key points to heat maps and back: this library's own, or as those papers have it"),
    ] = "heatmap"
    sigma: Annotated[float, Field(gt=0, description="standard deviation of the target's Gaussian in map cells")] = 1.0
    loss: Annotated[
        Literal["cross_entropy", "mse", "ohkm"],
        Field(description="of the heat maps: soft-max cross-entropy, squared error, or that of the hardest points alone"),
    ] = "cross_entropy"
    hard_keypoints: Annotated[int, Field(ge=1, description="loss ohkm: key points of each person that count")] = 8
    teacher: Annotated[
        Path | None,
        Field(description="run folder or model file of a trained network, whose maps are learned beside the labels"),
    ] = None
    teacher_weight: Annotated[
        float, Field(gt=0, le=1, description="teacher: part of each target map that the teacher's is, the rest is the label's")
    ] = 0.5
    stage_weights: Annotated[
        tuple[Annotated[float, Field(ge=0)], ...] | None, Field(description="weight of each stage's loss; null: 1 for all")
    ] = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_together(self.model, self.train)
        if self.loss == "cross_entropy" and self.codec != "heatmap":
            raise ConfigError(f"`loss` is cross_entropy: codec {self.codec} decodes maps that are trained by mse or ohkm")
        stages, stop = self.model.stages, self.evaluation.stop_after
        if self.stage_weights is not None and (len(self.stage_weights) != stages or not any(self.stage_weights)):
            raise ConfigError(f"`stage_weights` is {self.stage_weights}: give one for each of {stages} stages, not all 0")
        if stop is not None and stop > stages:
            raise ConfigError(f"`stop_after` is {stop}: the network has {stages} stages")

    def for_another_set(self) -> Config:
        """The config without what belongs to its own data set: the files, their boxes and what is usual to measure there."""
        data = DataConfig(padding=self.data.padding, keypoints=self.data.keypoints)
        return dataclasses.replace(self, data=data, evaluation=dataclasses.replace(self.evaluation, protocol=None))

    def without_effect(self) -> list[str]:
        """What is set and has no effect, a line each."""
        default, own = EvaluationConfig(), self.evaluation
        pck = (own.protocol or PROTOCOLS[self.data.name]) in ("pck", "pckh")
        lines = {
            "`detection_threshold` without detections": self.data.detection_threshold > 0 and self.data.detections is None,
            "`flip_shift` without flip_test": own.flip_shift is not None and not own.flip_test,
            "`nms_threshold` with nms none": own.nms_threshold != default.nms_threshold and own.nms == "none",
            "`nms` and `rescoring`, which PCK does not know": pck
            and (own.nms, own.rescoring) != (default.nms, default.rescoring),
            "`evaluator`, which PCK does not know": pck and own.evaluator != default.evaluator,
            "`hard_keypoints` without loss ohkm": self.hard_keypoints != Config.hard_keypoints and self.loss != "ohkm",
            "`teacher_weight` without teacher": self.teacher_weight != Config.teacher_weight and self.teacher is None,
        }
        return [line for line, unused in lines.items() if unused]


class Data:
    """The people of a config, read and checked when they are first asked for; torch is not needed for it.

    Args:
        config: with `model.heads` null, the network gets a map for each key point of the data.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def val(self) -> CocoPeople:
        """Who is validated on: annotated people, or detections."""
        data = self._config.data
        people = _people(data, "val")
        _check_points(people, self._config.model.heads, data.keypoints or people.keypoints.names)
        return people if data.detections is None else people.with_detections(data.detections, data.detection_threshold)

    @cached_property
    def train(self) -> list[CocoPeople]:
        """Who is trained on, and the people of all further sets with their key points taken over to the first one's."""
        from rpgmt.data.catalog import read_further_people
        from rpgmt.data.coco.remap import remap

        people = _people(self._config.data, "train")
        _check_points(people, self._config.model.heads, self.val.keypoints.names)
        return [people, *(remap(read_further_people(entry), people.keypoints) for entry in self._config.data.also)]

    @cached_property
    def config(self) -> Config:
        """The config with what the data decided: the head, and the names of its key points, by which it is measured later."""
        names, own = self.val.keypoints.names, self._config
        heads = own.model.heads or {HEAD: len(names)}
        model, data = dataclasses.replace(own.model, heads=heads), dataclasses.replace(own.data, keypoints=names)
        return dataclasses.replace(own, model=model, data=data)


def read(config: Config, *, training: bool = False) -> Data:
    """Read what a config is measured on, and with `training` what it is trained on, without torch.

    Raises:
        UserError: the files are missing or wrong, or do not fit the network.
    """
    data, protocol = config.data, config.evaluation.protocol or PROTOCOLS[config.data.name]
    if config.model.heads is not None and set(config.model.heads) != {HEAD}:
        raise UserError(f"`heads` is {config.model.heads}: the pose task trains one head, e.g. {HEAD}: 17")
    if data.detections is not None and protocol in ("pck", "pckh"):
        raise UserError(f"`detections` is {data.detections}: {protocol} is measured on true boxes; leave them out")
    tell_without_effect(config.without_effect())
    if training:
        tell_without_effect(config.model.without_effect())
    found = Data(config)
    _ = (found.val, found.train) if training else found.val
    return found


def build(config: Config, data: Data | None = None) -> StagedTask:
    """The task that a config describes, with its validation data; `data`: what `read` gave for it."""
    import torch

    from rpgmt import models
    from rpgmt.codecs import make_codec
    from rpgmt.heads.keypoints import Keypoints
    from rpgmt.heads.staged_task import StagedTask
    from rpgmt.metrics.poses import PoseEvaluation

    data = data or read(config)
    config, own = data.config, config.evaluation
    models.check_batch_size(config.model, config.train.batch_size)
    torch.manual_seed(config.train.seed)
    model = models.build(config.model)

    val_data = _crops(data.val, config)
    options: Any = {"rescoring": own.rescoring, "nms": own.nms, "nms_threshold": own.nms_threshold}
    options["evaluator"] = own.evaluator
    protocol = own.protocol or PROTOCOLS[config.data.name]
    evaluation = PoseEvaluation(data.val, protocol, val_data.areas(), **options)
    codec = make_codec(
        config.codec, config.model.input_size, models.STRIDE, config.sigma, logits=config.loss == "cross_entropy"
    )
    head = Keypoints(
        HEAD,
        codec,
        evaluation,
        loss=config.loss,
        hard_keypoints=config.hard_keypoints,
        flip_shift=own.flip_shift,
        teacher_weight=config.teacher_weight,
    )
    return StagedTask(
        "pose",
        config,
        model,
        [head],
        val_data,
        lambda: _train_crops(data.train, config),
        single=True,
        stage_weights=config.stage_weights,
        flip_test=own.flip_test,
        teacher=config.teacher,
        also=config.data.also,
    )


def _train_crops(sets: Sequence[CocoPeople], config: Config) -> PoseCrops | MixedCrops:
    from rpgmt.data.augmentation import Augmentation
    from rpgmt.data.pose_crops import MixedCrops

    changes = Augmentation(**vars(config.augmentation))
    crops = [_crops(part, config, augment=changes, stream=stream) for stream, part in enumerate(sets)]
    return crops[0] if len(crops) == 1 else MixedCrops(crops)


def _people(data: DataConfig, split: Literal["train", "val"]) -> CocoPeople:
    from rpgmt.data.hold_out import split_people

    if not data.hold_out:
        return _read_people(data, split)
    rest, held_out = split_people(_read_people(data, "train"), data.hold_out)
    return rest if split == "train" else held_out


def _read_people(data: DataConfig, split: Literal["train", "val"]) -> CocoPeople:
    from rpgmt.data.catalog import read_people
    from rpgmt.synthetic.labels import synthetic_people

    if data.name == "synthetic":
        count = data.train_images if split == "train" else data.val_images
        return synthetic_people(data.root, split, count=count, size=data.image_size)
    own = {"categories": data.categories, "sigmas": data.sigmas, "flip_pairs": data.flip_pairs, "skeleton": data.skeleton}
    return read_people(data.name, data.root, data.train_split if split == "train" else data.val_split, **own)


def _crops(people: CocoPeople, config: Config, **options: Any) -> PoseCrops:
    from rpgmt.data.pose_crops import PoseCrops

    return PoseCrops(people, config.model.input_size, seed=config.train.seed, padding=config.data.padding, **options)


def _check_points(people: CocoPeople, heads: Mapping[str, int] | None, expected: tuple[str, ...]) -> None:
    """Raise UserError where the people's key points are not as many as the network's, or do not mean the same."""
    from rpgmt.data.coco.keypoint_names import side_and_part

    names = people.keypoints.names
    if heads is not None and len(names) != heads[HEAD]:
        raise UserError(
            f"`heads` is {dict(heads)}: the data has {len(names)} key points; train with "
            f"--heads {HEAD}={len(names)}, measure on data with as many as the network has"
        )
    if [side_and_part(name) for name in names] != [side_and_part(name) for name in expected]:
        raise UserError(
            f"{people.name}: its key points are {', '.join(names)}, those of the network {', '.join(expected)}: "
            "give data with the same ones in the same order"
        )
