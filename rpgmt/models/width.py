"""The network of a config before its weights are generated, and how wide it is to be for a number of parameters."""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatch

import torch
from torch import nn

from rpgmt.config import ModelConfig
from rpgmt.errors import UserError
from rpgmt.models.hourglass import HourglassStage, HourglassTrunk
from rpgmt.models.refinement import Refinement, tie_stages
from rpgmt.models.resnet_trunk import ResNetTrunk
from rpgmt.models.shared_stages import add_low_rank, tie_norms
from rpgmt.rpg.size import parse_size

STAGES = "stages.*"
"""Pattern of the layers that are generated."""

STEP, WIDEST = 4, 4096
"""Channels are multiples of the first, up to the second."""


def build_refinement(config: ModelConfig) -> Refinement:
    """The network with the sharing that its config asks for; of rpg and signed, the one whose stages are yet to share."""
    assert config.heads is not None
    channels = config.channels
    trunk = HourglassTrunk(channels) if config.trunk == "residual" else ResNetTrunk(config.trunk, channels)
    stages = [HourglassStage(config.depth, channels) for _ in range(config.stages)]
    model = Refinement(trunk, stages, channels, config.heads)
    if config.sharing in ("tied", "tied_norms", "low_rank"):
        tie_stages(model, config.tied_sets)
    if config.sharing == "tied_norms":
        tie_norms([*model.stages], config.tied_sets)
    elif config.sharing == "low_rank":
        add_low_rank([*model.stages], config.rank)
    return model


def with_channels(config: ModelConfig) -> ModelConfig:
    """The config with the channels that `parameters` asks for, and without `parameters`; as it is where that is null.

    Of all widths it is one whose network has the nearest number of trainable parameters.
    """
    if config.parameters is None:
        return config
    wanted = parse_size(config.parameters)

    def of_width(steps: int) -> ModelConfig:
        return dataclasses.replace(config, channels=STEP * steps, parameters=None)

    low, high = 1, 2  # bisection: the number never falls as channels grow
    while STEP * high < WIDEST and trainable(of_width(high)) <= wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if trainable(of_width(middle)) <= wanted else (low, middle)
    return min(map(of_width, (low, high)), key=lambda one: abs(trainable(one) - wanted))


def check_parameters(config: ModelConfig) -> None:
    """Refuses a number of `parameters` that lies outside those of all widths, as one below the bank's does.

    Between two widths the nearest is what is asked for, however far it is. Networks that are trained are not asked.

    Raises:
        UserError: the nearest network has over a tenth more or less.
    """
    if config.parameters is None or config.heads is None:  # without heads there is no network
        return
    wanted, nearest = parse_size(config.parameters), with_channels(config)
    number = trainable(nearest)
    between = number <= wanted if nearest.channels == STEP else number >= wanted or nearest.channels + STEP <= WIDEST
    if between or abs(number - wanted) <= wanted / 10:
        return
    found = f"`parameters` is {config.parameters}: the nearest network, of {nearest.channels} channels, has {number:,}"
    bank = parse_size(config.rpg_size, generated_weights(nearest)) if config.sharing == "rpg" else 0
    if bank > wanted:
        raise UserError(f"{found}, as its bank alone has {bank:,}: give a smaller --rpg-size, or --parameters {number}")
    fewer = "fewer" if number > wanted else "more"
    raise UserError(f"{found}: give {fewer} --stages, or --parameters {number}")


def generated_weights(config: ModelConfig) -> int:
    """M: weights of the layers that are generated with sharing rpg."""
    layers = _on_meta(dataclasses.replace(config, sharing="none")).named_modules()
    return sum(layer.weight.numel() for name, layer in layers if fnmatch(name, STAGES) and isinstance(layer, nn.Conv2d))


def trainable(config: ModelConfig) -> int:
    """Trainable parameters of the network: N + fixed. By shapes alone, in milliseconds.

    Of learned signs N is what is stored: magnitudes, and a number for 32 signs.
    """
    count = sum(parameter.numel() for parameter in _on_meta(config).parameters())
    if config.sharing not in ("rpg", "signed"):
        return count
    generated = generated_weights(config)
    size = parse_size(config.rpg_size, generated)
    return count - generated + (min(size, generated) if config.sharing == "signed" else size)


def _on_meta(config: ModelConfig) -> Refinement:
    with torch.device("meta"):
        return build_refinement(with_channels(config))
