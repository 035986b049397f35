"""What the weights of a network's stages have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rpgmt.engine.model_file import load_model
from rpgmt.errors import UserError
from rpgmt.models.refinement import Refinement
from rpgmt.rpg.bake import bake


@dataclass(frozen=True)
class StageWeights:
    """How alike the convolutions' weights of different stages are.

    Args:
        layers: for each layer, by its name within a stage, how many weights it has, and Pearson's correlation between those
            of stage i and those of stage j (T, T).
    """

    layers: dict[str, tuple[int, NDArray[np.float64]]]

    @property
    def weights(self) -> int:
        """Of a stage."""
        return sum(count for count, _ in self.layers.values())

    @property
    def mean(self) -> NDArray[np.float64]:
        """(T, T): the mean over the layers, each as often as it has weights."""
        total = sum(count * correlation for count, correlation in self.layers.values())
        return np.asarray(total / self.weights)

    @property
    def by_chance(self) -> float:
        """What the mean of 95 of 100 pairs of unrelated stages stays below: 2 / √weights."""
        return float(2 / np.sqrt(self.weights))

    def strongest(self) -> tuple[str, int, int, float]:
        """The layer and the two stages, from 1, whose weights are most alike or most opposed, and their correlation."""
        found = []
        for name, (_, correlation) in self.layers.items():
            between = np.triu(correlation, 1)
            i, j = np.unravel_index(int(np.abs(between).argmax()), between.shape)
            found.append((name, int(i) + 1, int(j) + 1, float(correlation[i, j])))
        return max(found, key=lambda one: abs(one[3]))


def stage_weights(path: Path) -> tuple[StageWeights | None, int | None]:
    """The stages' weights of a run folder, None of a network without two stages or a file that cannot be read; its buffers.

    Args:
        path: run folder or model file.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # a network is initialised before its weights are read
            model = bake(load_model(path))
    except UserError:  # an unfinished run, or a network that is not this project's
        return None, None
    buffers = sum(buffer.numel() for buffer in model.buffers())
    if not isinstance(model, Refinement) or len(model.stages) < 2:
        return None, buffers
    return of_stages(model.stages), buffers


def of_stages(stages: nn.ModuleList) -> StageWeights:
    """The correlation of all convolutions' weights between stages of one shape."""
    layers = {}
    for name, module in stages[0].named_modules():
        if isinstance(module, nn.Conv2d):
            each = [cast(nn.Conv2d, stage.get_submodule(name)).weight.detach().flatten() for stage in stages]
            layers[name] = module.weight.numel(), _correlation(torch.stack(each).double().numpy())
    return StageWeights(layers)


def _correlation(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's, between rows; 0 where one is constant."""
    centred = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    return np.clip(unit @ unit.T, -1, 1)
