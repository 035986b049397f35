"""Networks, and how a model config becomes one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from torch import nn

from rpgmt.config import ClassifierConfig, ModelConfig
from rpgmt.errors import UserError
from rpgmt.models.classifier import GENERATED, Classifier, build_classifier
from rpgmt.models.hourglass import HourglassTrunk
from rpgmt.models.refinement import Refinement
from rpgmt.models.width import STAGES, build_refinement, with_channels
from rpgmt.rpg.convert import convert
from rpgmt.rpg.learned_signs import learn_signs

STRIDE = HourglassTrunk.stride
"""Pixels of the input for one cell of the predictions."""


def check_batch_size(config: ModelConfig, batch_size: int) -> None:
    """Raise UserError where batch norm would see a single value of each channel, at the bottom of the hourglass."""
    width, height = (-(-side // STRIDE // 2**config.depth) for side in config.input_size)
    if batch_size * width * height == 1:
        raise UserError(
            "`batch_size` is 1: one cell is left at the bottom of the hourglass, of which batch norm learns nothing: "
            "give more, a smaller --depth or a larger --input-size"
        )


@overload
def build(config: ModelConfig) -> Refinement: ...
@overload
def build(config: ClassifierConfig) -> Classifier: ...
def build(config: ModelConfig | ClassifierConfig) -> Refinement | Classifier:
    """The network of a config with the sharing that it asks for, weights fresh from torch's global generator.

    A `ModelConfig` is a stacked hourglass, of which the stages' convolutions are generated; a `ClassifierConfig` a ResNet, of
    which all convolutions but the first are.

    Raises:
        UserError: `rpg_size` is smaller than the number of banks, or than learned signs need, or heads are missing or cannot
            have their names.
    """
    if isinstance(config, ClassifierConfig):
        classifier = build_classifier(config)
        if config.sharing == "rpg":
            _generate(classifier, config, [GENERATED])
        return classifier
    if config.heads is None:
        raise UserError("`heads` is null: the data decide when a network is trained; give them, e.g. --heads keypoints=17")
    for name in config.heads:
        if hasattr(nn.ModuleDict, name):
            raise UserError(f"`heads` is {config.heads}: {name!r} is taken by torch, give another name")
    model = build_refinement(with_channels(config))
    if config.sharing in ("rpg", "signed"):
        _generate(model, config, [STAGES])
    return model


def _generate(model: nn.Module, config: ModelConfig | ClassifierConfig, include: Sequence[str]) -> None:
    size = str(config.rpg_size)  # as on the command line, where "25" may be meant in percent
    try:
        if config.sharing == "signed":
            learn_signs(model, size, include=include)
            return
        convert(
            model,
            size,
            scope=config.rpg_scope,
            include=include,
            seed=config.rpg_seed,
            block=config.rpg_block,
            gradient=config.rpg_gradient,
            regenerate=config.rpg_regenerate,
        )
    except ValueError as error:
        raise UserError(f"--rpg-size {config.rpg_size}: {error}") from error
