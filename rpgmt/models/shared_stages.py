"""Stages that share more, or a little less, than the weights of their convolutions: what tied stages are compared with.

Norms and biases of stages that are tied stay the stage's own. `tie_norms` makes them one copy, too, which shows what they
bring. `add_low_rank` gives each stage a sum of low rank to its weights (Relaxed Recursive Transformers, arXiv 2410.20672;
Hu et al., LoRA, arXiv 2106.09685), a part of its own at a price that the rank sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from rpgmt.rpg.bake import ComputedLayer


def tie_norms(stages: Sequence[nn.Module], sets: int = 1) -> None:
    """Makes stages of one shape share scales and shifts of norms and biases of convolutions, as the same parameters.

    Running statistics stay the stage's own: the stages see different features, and one mean of all of them would fit none.

    Args:
        stages: What is to share.
        sets: So many first stages keep their own; stage i has those of stage i mod `sets`.
    """
    for number, stage in enumerate(stages):
        for name, module in stages[number % sets].named_modules():
            other: Any = stage.get_submodule(name)
            if isinstance(module, nn.BatchNorm2d):
                other.weight, other.bias = module.weight, module.bias
            elif isinstance(module, nn.Conv2d):
                other.bias = module.bias


class LowRankConv2d(ComputedLayer, nn.Conv2d):
    """A convolution whose weight is `weight` + `up` · `down`, the sum of one that others share and one of low rank.

    `up` is (outputs, rank) and starts as 0, `down` (rank, inputs, height, width) as a convolution does: at first the weight is
    the shared one. `add_low_rank` makes them of plain layers.
    """

    up: nn.Parameter
    down: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.whole_weight(), self.bias)

    def whole_weight(self) -> Tensor:
        """(outputs, inputs, height, width)."""
        return self.weight + (self.up @ self.down.flatten(1)).view(self.weight.shape)

    def become_plain(self) -> None:
        self.weight = nn.Parameter(self.whole_weight().detach().clone(), requires_grad=self.weight.requires_grad)
        del self.up, self.down
        self.__class__ = nn.Conv2d  # type: ignore[assignment]


def add_low_rank(stages: Sequence[nn.Module], rank: int) -> None:
    """Adds a sum of low rank, trained for each stage alone, to the weight of every convolution of the stages.

    Args:
        stages: Whose convolutions share weights, or not.
        rank: Of what is added.
    """
    for stage in stages:
        for layer in [module for module in stage.modules() if isinstance(module, nn.Conv2d)]:
            outputs, *inside = layer.weight.shape
            layer.__class__ = LowRankConv2d
            low_rank = cast(LowRankConv2d, layer)
            low_rank.down = nn.Parameter(torch.empty(rank, *inside))
            nn.init.kaiming_uniform_(low_rank.down, a=math.sqrt(5))  # as nn.Conv2d's own weight
            low_rank.up = nn.Parameter(torch.zeros(outputs, rank))
