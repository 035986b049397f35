"""The network as it is exported: crops in, named outputs out."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rpgmt.data.images import normalize
from rpgmt.engine.model_file import Weights, load_model, model_path, read_config, stored_reading
from rpgmt.errors import UserError
from rpgmt.export.facts import Facts, Output, outputs_of
from rpgmt.models.classifier import HEAD, Classifier
from rpgmt.rpg.bake import bake
from rpgmt.synthetic.render import render

INPUT = "image"


class ExportNetwork(nn.Module):
    """uint8 crops (B, H, W, 3), RGB, to a dict of float32 outputs (class maps: int64) by name.

    Args:
        model: baked, in evaluation mode.
        facts: what is given and what comes out.
    """

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.model, self.facts = model, facts
        self.options = {} if isinstance(model, Classifier) else {"stop_after": facts.stages}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.named(self.maps(image))

    def maps(self, image: Tensor) -> list[dict[str, Tensor]]:
        """The outputs of each stage as the network computes them, in its precision."""
        precision = next(self.model.parameters()).dtype
        outputs: list[dict[str, Tensor]] = self.model(normalize(image).contiguous().to(precision), **self.options)
        return outputs

    def named(self, maps: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The outputs that are asked for, by name."""
        decoded: dict[tuple[int, str], dict[str, Tensor]] = {}
        outputs = {}
        for name, (stage, head, part) in self.facts.outputs.items():
            of_head = maps[stage - 1][head]
            if part is None:
                outputs[name] = of_head.float()
                continue
            if (stage, head) not in decoded:
                assert self.facts.reading is not None
                meaning = self.facts.reading.heads[head]
                decoded[stage, head] = dict(zip(meaning.parts, meaning.decode(of_head, self.facts.input_size), strict=True))
            outputs[name] = decoded[stage, head][part]
        return outputs

    def with_outputs(self, outputs: Mapping[str, Output]) -> ExportNetwork:
        """The same network with other outputs."""
        return ExportNetwork(self.model, dataclasses.replace(self.facts, outputs=dict(outputs)))

    def raw_outputs(self) -> Mapping[str, Output]:
        """The outputs that are not decoded."""
        heads = list(dict.fromkeys(head for _, head, _ in self.facts.outputs.values()))
        return outputs_of(self.facts.stages, heads, None, classifier=isinstance(self.model, Classifier))

    @torch.no_grad()
    def on(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The outputs of crops, as arrays."""
        return {name: output.numpy() for name, output in self(torch.from_numpy(crops)).items()}


def half_of(network: ExportNetwork) -> ExportNetwork:
    """The network with its weights in float16."""
    return ExportNetwork(copy.deepcopy(network.model).half(), dataclasses.replace(network.facts, precision="float16"))


def load(path: str | Path, weights: Weights, *, decode: bool, stop_after: int | None) -> ExportNetwork:
    """The network of a run folder or model file, to be exported in float32.

    Args:
        path, weights: see `rpgmt.engine.model_file.model_path`.
        decode: outputs are what `Meaning.decode` gives.
        stop_after: so many stages only; None: all.

    Raises:
        UserError: there is no such file, it has no such stage, or its outputs are not known well enough to decode them.
    """
    file = model_path(path, weights)
    config, reading = read_config(file), stored_reading(file)
    model = bake(load_model(file)).eval().requires_grad_(False)
    if isinstance(model, Classifier):
        heads, stages = [HEAD], 1
    else:
        heads, stages = list(model.tasks), len(model.stages)
    if stop_after is not None and not 1 <= stop_after <= stages:
        raise UserError(f"`stop_after` is {stop_after}: give 1 to {stages}, the stages of the network")
    if decode and reading is None:
        raise UserError(f"{file} does not say what its outputs mean: train it again, or leave out --decode")
    stages = stop_after or stages
    outputs = outputs_of(stages, heads, reading if decode else None, classifier=isinstance(model, Classifier))
    facts = Facts(
        input_size=config["model"]["input_size"],
        stages=stages,
        decoded=decode,
        precision="float32",
        outputs=dict(outputs),
        reading=reading,
        config=config,
    )
    return ExportNetwork(model, facts)


def sample_crops(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Four crops (4, H, W, 3) that look like photographs of people: those that the project draws."""
    from cv2 import INTER_CUBIC, resize

    return np.stack([np.asarray(resize(render(0, i, 96).image, size, interpolation=INTER_CUBIC), np.uint8) for i in range(4)])
