"""The configs of model and training. `rpgmt.config.validation` says how they are declared, checked, read and written.

Field names are unique over the nested sections, so that every field is one flag of the command line (`rpgmt.cli`).
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from rpgmt.config.validation import EVERYDAY, config_class, from_dict, show
from rpgmt.errors import ConfigError
from rpgmt.rpg.size import LIMIT, parse_size


def _check_size(value: Any) -> Any:
    parse_size(value, generated=1, name="rpg_size")  # a percentage is legal here: the model resolves it
    return value


def _check_count(value: Any) -> Any:
    parse_size(value, name="parameters")  # of the whole network, of which a percentage would say nothing
    return value


def _check_heads(heads: dict[str, int]) -> dict[str, int]:
    if not heads:
        raise ValueError("`heads` is {}: give at least one head, e.g. keypoints: 17")
    for name in heads:
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):  # it becomes a module's name and a part of metrics' names
            raise ValueError(f"`heads` is {show(heads)}: {name!r} is no name, use letters, digits and _, e.g. keypoints")
    return heads


def _check_folder(value: Any) -> Any:
    if value == "":
        raise ValueError("`out` is '': give the name of a folder, or leave it out for a new one in runs/")
    return value


Positive = Annotated[int, Field(ge=1)]
Size = Annotated[str | int, BeforeValidator(_check_size)]
Count = Annotated[str | int, BeforeValidator(_check_count)]
Heads = Annotated[dict[str, Annotated[int, Field(ge=1, le=100_000)]], AfterValidator(_check_heads)]
InputSide = Annotated[int, Field(ge=12, le=8192, multiple_of=4)]
Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(lambda v: str(v) if type(v) is int else v)]


@config_class
class RPGConfig:
    """How weights are generated (`rpgmt.convert`): what the configs of all networks have in common."""

    rpg_size: Annotated[
        Size, Field(description="parameters in all banks together: 1M, 250K, 36864 or 25% of the generated weights"), EVERYDAY
    ] = "1M"
    rpg_block: Annotated[int, Field(ge=1, lt=2**31, description="neighbouring bank entries that are placed together")] = 1
    rpg_seed: Annotated[int, Field(ge=0, lt=2**31, description="seed of the placement")] = 0
    rpg_gradient: Annotated[
        Literal["exact", "balanced"],
        Field(description="the bank's gradient: the loss's, or divided by the mean of scale² over an entry's uses"),
    ] = "exact"
    rpg_regenerate: Annotated[
        bool, Field(description="keep no generated weight for the backward pass: less memory, weights are made twice")
    ] = False


@config_class
class ModelConfig(RPGConfig):
    """A refinement network: all that is needed to build it again."""

    stages: Annotated[int, Field(ge=1, le=1000, description="stages of refinement"), EVERYDAY] = 4
    channels: Annotated[int, Field(ge=4, le=2**16, multiple_of=4, description="channels of the features")] = 128
    parameters: Annotated[
        Count | None,
        Field(
            description="in place of channels: as many (a multiple of 4) as make the number of trainable parameters nearest to"
            " this, e.g. 220K; null: channels says"
        ),
    ] = None
    depth: Annotated[int, Field(ge=1, le=16, description="levels of an hourglass, each halves the resolution")] = 4
    trunk: Annotated[
        Literal["residual", "resnet18", "resnet34", "resnet50"],
        Field(description="image to features: the hourglass's own residuals, or the first half of a ResNet"),
    ] = "residual"
    sharing: Annotated[
        Literal["rpg", "tied", "none", "signed", "tied_norms", "low_rank"],
        Field(
            description="stages' weights: generated from a bank, one copy for all stages, independent, or of shared magnitudes"
            " with learned signs; to compare with, one copy of norms and biases as well, or one copy and for each stage a sum"
            " of low rank"
        ),
        EVERYDAY,
    ] = "rpg"
    tied_sets: Annotated[
        int, Field(ge=1, description="sharing tied, tied_norms and low_rank: copies, which the stages take in turn")
    ] = 1
    rank: Annotated[int, Field(ge=1, le=1024, description="sharing low_rank: of what each stage adds to each weight")] = 4
    rpg_scope: Annotated[
        Literal["stage", "global", "block", "layer"],
        Field(
            description="which layers draw on one bank: those of a stage, all, the same block of every stage, or each its own"
        ),
    ] = "stage"
    heads: Annotated[
        Heads | None, Field(description="name and channels of each prediction; null: what the data have labels for"), EVERYDAY
    ] = field(default_factory=lambda: {"keypoints": 17})
    input_size: Annotated[
        tuple[InputSide, InputSide],
        Field(description="width, height of the input in pixels"),
        EVERYDAY,
    ] = (96, 96)

    def __post_init__(self) -> None:
        if self.tied_sets > self.stages:
            raise ConfigError(f"`tied_sets` is {self.tied_sets}: there are {self.stages} stages to take them")
        # Of 3 · depth + 2 residuals of 3.25 channels² and one layer of channels² in each stage.
        weights = self.stages * self.channels**2 * (13 * (3 * self.depth + 2) + 4) // 4
        if weights >= LIMIT:
            raise ConfigError(
                f"`channels` is {self.channels}: {self.stages} stages of depth {self.depth} have {weights:.2g} weights then, "
                "and 2**31 are the most: give fewer"
            )

    def with_heads(self) -> ModelConfig:
        """The config to build where there are no data to decide on the heads: with COCO's 17 key points."""
        return self if self.heads is not None else dataclasses.replace(self, heads={"keypoints": 17})

    def without_effect(self) -> list[str]:
        """What is set and has no effect, a line each; a preset's `rpg_size` is set for all kinds of sharing."""
        lines = {
            f"`tied_sets`, of stages that are copies, with sharing {self.sharing}": self.tied_sets != ModelConfig.tied_sets
            and self.sharing not in ("tied", "tied_norms", "low_rank"),
            f"`rank` with sharing {self.sharing}": self.rank != ModelConfig.rank and self.sharing != "low_rank",
        }
        return _of_banks_without_effect(self) + [line for line, unused in lines.items() if unused]

    @property
    def title(self) -> str:
        """What tables call the network."""
        return f"{self.stages} stages, sharing {self.sharing}"


@config_class
class ClassifierConfig(RPGConfig):
    """A ResNet for classes of whole images: all that is needed to build it again."""

    network: Annotated[
        Literal["resnet18", "resnet34", "resnet50"], Field(description="the ResNet, made of torchvision's blocks"), EVERYDAY
    ] = "resnet18"
    stem: Annotated[
        Literal["3x3", "7x7"],
        Field(description="first layers: a 3×3 convolution, for images of some 32 pixels, or 7×7 and pooling to a quarter"),
    ] = "3x3"
    width: Annotated[float, Field(gt=0, le=16, description="factor on the channels of all layers")] = 1.0
    classes: Annotated[int, Field(ge=2, le=10**6, description="classes"), EVERYDAY] = 10
    sharing: Annotated[
        Literal["rpg", "tied", "none", "narrow"],
        Field(
            description="weights: generated from a bank; one copy for the blocks of a layer; independent; or independent in a"
            " network so narrow that it has as many parameters as with rpg"
        ),
        EVERYDAY,
    ] = "rpg"
    rpg_scope: Annotated[
        Literal["global", "block"], Field(description="which layers draw on one bank: all, or those of one of layer1 … layer4")
    ] = "global"
    input_size: Annotated[
        tuple[Annotated[int, Field(ge=8, le=8192)], Annotated[int, Field(ge=8, le=8192)]],
        Field(description="width, height of the input in pixels"),
        EVERYDAY,
    ] = (32, 32)

    def without_effect(self) -> list[str]:
        """As of `ModelConfig`."""
        return _of_banks_without_effect(self)

    @property
    def title(self) -> str:
        """What tables call the network."""
        return f"{self.network}, sharing {self.sharing}"


def _of_banks_without_effect(model: ModelConfig | ClassifierConfig) -> list[str]:
    """What is set of banks where there is none, a line each."""
    names = ("rpg_scope", "rpg_block", "rpg_seed", "rpg_gradient", "rpg_regenerate")
    return [
        f"`{name}`, which is of banks, with sharing {model.sharing}"
        for name in names
        if model.sharing != "rpg" and getattr(model, name) != getattr(type(model), name)
    ]


def tell_without_effect(lines: Iterable[str]) -> None:
    """A warning for each thing that is set and has no effect."""
    for line in lines:
        warnings.warn(f"without effect: {line}", stacklevel=3)


def model_config(section: Mapping[str, Any]) -> ModelConfig | ClassifierConfig:
    """Return the checked config of a network from the section `model` of a saved config.

    The section tells which kind it is of: a classifier's names its `network`, which a refinement network's has not.

    Raises:
        ConfigError: as `from_dict`.
    """
    return from_dict(ClassifierConfig, section) if "network" in section else from_dict(ModelConfig, section)


@config_class
class TrainConfig:
    """How a model is trained."""

    epochs: Annotated[int, Field(ge=1, description="passes over the training data"), EVERYDAY] = 10
    max_steps: Annotated[int | None, Field(ge=1, description="stop after this many optimizer steps"), EVERYDAY] = None
    batch_size: Annotated[int, Field(ge=1, description="samples per device and forward pass"), EVERYDAY] = 32
    optimizer: Annotated[Literal["adam", "adamw", "sgd"], Field(description="optimizer; sgd has momentum 0.9")] = "adam"
    lr: Annotated[float, Field(gt=0, description="peak learning rate, for bank and fixed parameters alike"), EVERYDAY] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, description="weight decay")] = 0.0
    schedule: Annotated[
        Literal["constant", "cosine", "step"], Field(description="course of the learning rate after the warm-up")
    ] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0, description="steps of linear warm-up; at most a fifth of the run's")] = 0
    milestones: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...],
        Field(description="schedule step: fractions of all steps at which the rate falls"),
    ] = (0.7, 0.9)
    decay: Annotated[float, Field(gt=0, le=1, description="schedule step: factor on the rate at a milestone")] = 0.1
    ema: Annotated[float, Field(ge=0, lt=1, description="decay of the moving average of the weights, 0 is off")] = 0.0
    clip_norm: Annotated[float | None, Field(gt=0, description="largest norm of the gradient")] = None
    accumulate: Annotated[int, Field(ge=1, description="batches whose gradients make one step")] = 1
    precision: Annotated[
        Precision, Field(description="float32, or mixed with bfloat16 or float16; auto: bf16 where there is hardware for it")
    ] = "32"
    device: Annotated[Device, Field(description="kind of device"), EVERYDAY] = "auto"
    devices: Annotated[int, Field(ge=1, description="devices of each node")] = 1
    nodes: Annotated[int, Field(ge=1, description="machines")] = 1
    seed: Annotated[int, Field(ge=0, lt=2**31, description="seed of the first weights, order and augmentation"), EVERYDAY] = 0
    workers: Annotated[int, Field(ge=0, description="processes that load data, 0 loads in the main one")] = 2
    out: Annotated[
        Path | None, BeforeValidator(_check_folder), Field(description="run folder; null makes a new one in runs/"), EVERYDAY
    ] = None
    resume: Annotated[bool, Field(description="go on from the last checkpoint of the run folder"), EVERYDAY] = False
    init_from: Annotated[Path | None, Field(description="run folder or model file to start the weights from")] = None
    trunk_weights: Annotated[
        str,
        Field(description="first weights of a resnet trunk: imagenet (torchvision's, downloaded once), none, or FILE"),
    ] = "imagenet"
    channels_last: Annotated[bool, Field(description="memory format of images and features")] = False
    compile: Annotated[bool, Field(description="compile the model with torch.compile")] = False
    val_every: Annotated[
        int, Field(ge=1, description="epochs from one validation to the next; more where a run has few steps")
    ] = 1
    patience: Annotated[
        int | None, Field(ge=1, description="end after so many validations without a better main metric; null: do not")
    ] = None

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ConfigError(f"`milestones` is {show(self.milestones)}: must rise from one to the next")
        if self.schedule == "step" and not self.milestones:
            raise ConfigError("`milestones` is []: schedule step needs at least one, e.g. 0.7, 0.9")


LossWeights = Literal["equal", "fixed", "uncertainty", "dwa"]
GradientMethods = Literal[
    "pcgrad", "gradvac", "mgda", "cagrad", "imtl_g", "graddrop", "nash_mtl", "aligned_mtl", "upgrad", "dualproj", "config",
    "fairgrad", "random",
]  # fmt: skip


@config_class
class BalanceConfig:
    """How the losses of the tasks are balanced against each other (`rpgmt.engine.balance` says what the words mean)."""

    balance: Annotated[
        Literal[LossWeights, GradientMethods],
        Field(description="how tasks share the training: by weights of losses, or, from pcgrad on, by their gradients"),
        EVERYDAY,
    ] = "equal"
    task_weights: Annotated[
        dict[str, Annotated[float, Field(gt=0)]] | None,
        Field(description="factor on each task's loss, e.g. depth=2,keypoints=1; null: 1 each"),
    ] = None

    def __post_init__(self) -> None:
        if self.balance == "fixed" and self.task_weights is None:
            raise ConfigError("`task_weights` is null: balance fixed needs one for each task, e.g. depth=2,keypoints=1")
        if self.balance == "equal" and self.task_weights is not None:
            raise ConfigError(f"`task_weights` is {show(self.task_weights)}: balance equal has none, give balance fixed")


@config_class
class AugmentationConfig:
    """Random changes of the crops that are trained on (`rpgmt.data.augmentation.Augmentation`)."""

    flip: Annotated[float, Field(ge=0, le=1, description="probability of a mirror image")] = 0.5
    scale: Annotated[float, Field(ge=0, lt=1, description="the box is enlarged by up to ± this part")] = 0.25
    rotation: Annotated[float, Field(ge=0, le=180, description="up to ± so many degrees")] = 30.0
    rotation_probability: Annotated[float, Field(ge=0, le=1, description="of a rotation")] = 1.0
    shift: Annotated[float, Field(ge=0, le=1, description="up to ± this part of the crop")] = 0.0
    shift_probability: Annotated[float, Field(ge=0, le=1, description="of a shift")] = 1.0
    half_body: Annotated[float, Field(ge=0, le=1, description="probability of a crop of the upper or lower body")] = 0.0
    pixels: Annotated[float, Field(ge=0, le=1, description="probability of changed colours, blur or noise")] = 0.0
    zooms: Annotated[
        tuple[Annotated[float, Field(ge=1)], ...],
        Field(
            min_length=1,
            description="one of these, by chance: a part of the box, of 1/zoom its size, is all that the crop shows",
        ),
    ] = (1.0,)
    occlusion: Annotated[float, Field(ge=0, le=1, description="probability of boxes that hide parts of the crop")] = 0.0


def check_together(model: RPGConfig, train: TrainConfig) -> None:
    """What a task's config checks of its network and its training together.

    Raises:
        ConfigError: they ask for what does not go together.
    """
    if model.rpg_regenerate and train.compile:
        raise ConfigError("`rpg_regenerate` is true: a compiled model keeps what it wants; leave out one of the two")
