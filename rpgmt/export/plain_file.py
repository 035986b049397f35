"""Networks as model files with plain weights: nothing is left to generate."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np

from rpgmt.config import ModelConfig, model_config
from rpgmt.engine.model_file import load_model, model_bytes
from rpgmt.errors import UserError
from rpgmt.export.network import ExportNetwork, half_of, sample_crops
from rpgmt.models import build
from rpgmt.models.width import with_channels
from rpgmt.whole_files import whole_file


def write_plain(network: ExportNetwork, path: Path, *, half: bool = False) -> None:
    """Write the weights of plain layers with the config of the network without sharing, whose model file it is.

    `safetensors.torch.load_file` gives a state dict of `nn` layers, and `rpgmt.load` the network.

    Args:
        network: float32.
        path: of the file.
        half: tensors are float16; loaded into a network they are float32 again.

    Raises:
        UserError: the file's network gives other outputs.
    """
    facts = network.facts
    model = facts.config["model"]
    if model["sharing"] != "narrow":  # a narrow network's width follows from the bank that it is compared with; it has none
        model = {**model, "sharing": "none"}
    if "stages" in model:
        wide = with_channels(cast(ModelConfig, model_config(facts.config["model"])))  # as the network with sharing is
        model = {**model, "stages": facts.stages, "channels": wide.channels, "parameters": None, "tied_sets": 1}
    exported = half_of(network) if half else network
    weights = exported.model.state_dict()
    plain = build(model_config(model))
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    if half:
        plain = plain.half()
    with whole_file(path, folders=True) as part:
        part.write_bytes(model_bytes(plain, {**facts.config, "model": model}, facts.reading))
        read = ExportNetwork(load_model(part), facts)
        expected = ExportNetwork(exported.model.float(), facts)
        crops = sample_crops(facts.input_size)
        for batch in (crops[:1], crops[1:]):
            wanted = expected.on(batch)
            for name, output in read.on(batch).items():
                if not np.array_equal(output, wanted[name]):
                    raise UserError(f"{path} is not kept: {name} is not that of the network")
