"""Whether a model file can hold the network that its header describes: asked before anything of that size is made."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rpgmt.config import ClassifierConfig, ModelConfig
from rpgmt.errors import UserError
from rpgmt.models import build
from rpgmt.models.classifier import HEAD
from rpgmt.models.width import with_channels
from rpgmt.prediction.meaning import ImageLogits, KeypointMaps, Meaning, PixelMap, Reading
from rpgmt.rpg.size import parse_size

Shapes = Mapping[str, tuple[int, ...]]

_GENERATED = re.compile(r"(stages|layer[1-4])\..*\.weight")
"""Names of weights that a file may lack: those of convolutions that are generated, or stored as magnitudes and signs."""


def check_shapes(config: ModelConfig | ClassifierConfig, shapes: Shapes, source: str) -> None:
    """Raise UserError where a file's tensors are not those of its network.

    The network is made on the meta device, by shapes alone. A file can have only as many stages, levels and heads as it has
    tensors; so much is looked at first, for modules without weights take time too. Then all norms, heads and feedback must be
    there, which tie the width and the number of stages to the file's bytes, and the bank cannot be larger than the file.

    Args:
        config: of the network.
        shapes: the file's tensors, from its header.
        source: the file, for messages.
    """
    if isinstance(config, ModelConfig):
        parts = config.stages * max(config.depth, len(config.heads or ()))
        if parts > len(shapes):
            raise UserError(
                f"{source}: its header says {config.stages} stages of {config.depth} levels, and the file has {len(shapes)} "
                "tensors: train the model again"
            )
    plain = _plain(config, source)
    for name, wanted in plain.items():
        found = shapes.get(name)
        if found is None and len(wanted) == 4 and _GENERATED.fullmatch(name):
            if config.sharing == "rpg":
                continue
            signs = shapes.get(f"{name.removesuffix('.weight')}.signs")
            if config.sharing == "signed" and signs == (-(-math.prod(wanted) // 8),):
                continue
        if found != wanted:
            raise UserError(
                f"{source}: `{name}` is {found or 'missing'} in the file and {wanted} in the network: give the file's own "
                "stages, channels, depth, sharing, rpg size and scope"
            )
    if config.sharing == "rpg":
        generated = sum(math.prod(shape) for name, shape in plain.items() if name not in shapes)
        held = sum(map(math.prod, shapes.values()))
        try:
            bank = parse_size(config.rpg_size, generated)
        except ValueError as error:
            raise UserError(f"{source}, its header: {error}") from None
        if bank > held:
            raise UserError(f"{source}: its header says a bank of {bank:,}, and the file has {held:,} numbers: train it again")


def check_meaning(section: Mapping[str, Any], reading: Reading, source: str) -> None:
    """Raise UserError where what a header says of the outputs does not fit the network that it describes.

    Args:
        section: of the config, the network's.
        reading: what the outputs mean.
        source: the file, for messages.
    """
    given = section.get("input_size")
    if given is not None and list(given) != list(reading.input_size):
        raise UserError(f"{source}: its header says inputs of {given} and of {list(reading.input_size)}: train it again")
    outputs = section["heads"] if "heads" in section else {HEAD: section.get("classes")}
    for name, meaning in reading.heads.items():
        wanted, found = _channels(meaning), outputs.get(name) if isinstance(outputs, Mapping) else None
        if wanted != found:
            raise UserError(
                f"{source}: its header has {wanted} names for the head {name}, which has {found} outputs: train it again"
            )


def _channels(meaning: Meaning) -> int:
    if isinstance(meaning, KeypointMaps):
        return len(meaning.keypoints)
    if isinstance(meaning, PixelMap):
        return {"depth": 1, "normals": 3}.get(meaning.label.kind, len(meaning.label.classes))
    assert isinstance(meaning, ImageLogits)
    return len(meaning.classes)


def _plain(config: ModelConfig | ClassifierConfig, source: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the network's tensors, each once; where they are generated, those of the network without a bank."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            if isinstance(config, ModelConfig):  # the number of parameters is that of the network as it is
                config = with_channels(config)
            stored_otherwise = config.sharing in ("rpg", "signed")
            model: nn.Module = build(dataclasses.replace(config, sharing="none") if stored_otherwise else config)
    except RuntimeError as error:  # more elements than a tensor can have
        raise UserError(f"{source}: its header describes a network too large for any machine: train it again") from error
    once = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name in once}
