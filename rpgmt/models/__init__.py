"""Networks, and how a model config becomes one."""

from __future__ import annotations

from torch import nn

from rpgmt.config import ModelConfig
from rpgmt.errors import UserError
from rpgmt.models.hourglass import HourglassStage, HourglassTrunk
from rpgmt.models.refinement import Refinement, tie_stages
from rpgmt.models.resnet_trunk import ResNetTrunk
from rpgmt.rpg.convert import convert

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


def build(config: ModelConfig) -> Refinement:
    """A stacked hourglass with the trunk and sharing that the config asks for, weights fresh from torch's global generator.

    Raises:
        UserError: `rpg_size` is smaller than the number of banks, or a head's name cannot be one.
    """
    for name in config.heads:
        if hasattr(nn.ModuleDict, name):
            raise UserError(f"`heads` is {config.heads}: {name!r} is taken by torch, give another name")
    trunk = HourglassTrunk(config.channels) if config.trunk == "residual" else ResNetTrunk(config.trunk, config.channels)
    model = Refinement(
        trunk,
        [HourglassStage(config.depth, config.channels) for _ in range(config.stages)],
        config.channels,
        config.heads,
    )
    if config.sharing == "tied":
        tie_stages(model)
    elif config.sharing == "rpg":
        try:
            convert(
                model,
                config.rpg_size,
                scope=config.rpg_scope,
                include=["stages.*"],
                seed=config.rpg_seed,
                block=config.rpg_block,
                gradient=config.rpg_gradient,
                regenerate=config.rpg_regenerate,
            )
        except ValueError as error:
            raise UserError(f"--rpg-size {config.rpg_size}: {error}") from error
    return model
