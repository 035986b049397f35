"""Pruning of channels: how many, which, and what the network still does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torchvision
from baselines.small_net import Net, X
from torch import Tensor, nn
from torch.nn import functional as F

from rpgmt import report
from rpgmt.baselines.channels import prune_channels
from rpgmt.baselines.masks import count_remaining
from rpgmt.baselines.pruning import prune_weights
from rpgmt.config import ModelConfig
from rpgmt.models import build

pytest.importorskip("torch_pruning", reason="no structured pruning: torch-pruning is not installed (the extra prune)")


class Chain(nn.Module):
    """Without sums, so that channels are those of one layer; transposed and grouped layers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 12, 3, padding=1)
        self.b = nn.ConvTranspose2d(12, 10, 2, stride=2)
        self.c = nn.Conv2d(10, 10, 3, groups=10, padding=1)
        self.d = nn.Conv2d(10, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": self.head(self.d(self.c(self.b(F.relu(self.a(x))))).mean((2, 3)))}


@pytest.mark.parametrize("method", ["l1", "fpgm"])
@pytest.mark.parametrize("make", [Net, Chain])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_channels_are_taken_out_until_so_many_parameters_remain(make: Any, share: float, method: str) -> None:
    torch.manual_seed(0)
    model = make().train()
    total = report(model).trainable
    target = round(share * total)
    result = prune_channels(model, target, X[:1], method=method, keep=("head",))
    assert result.before == total
    assert result.after == report(model).trainable <= target
    widest = max(m.weight.numel() for m in make().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)) / 8 * 2.5
    assert result.after > target - widest  # a channel's parameters: what makes it and what reads it
    assert model.training
    train_output = model(X)
    (train_output if make is Net else train_output["y"]).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_l1_takes_small_channels_and_fpgm_those_near_the_others() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Conv2d(6, 2, 1, bias=False))
    nn.init.orthogonal_(model[0].weight, gain=2.0)
    nn.init.constant_(model[1].weight, 1.0)
    with torch.no_grad():
        model[0].weight[1] *= 0.2  # small; near to the others as well, but not as near as
        model[0].weight[4] = model[0].weight.mean(0) * 1.5  # their middle, which has as large a sum as it may
        model[0].weight[4] += 0.1
    smallest = int(model[0].weight.abs().sum((1, 2, 3)).argmin())
    flat = model[0].weight.detach().flatten(1)
    nearest = int(torch.stack([sum((row - other).norm() for other in flat) for row in flat]).argmin())
    assert (smallest, nearest) == (1, 4)
    for method, gone in (("l1", smallest), ("fpgm", nearest)):
        other = copy.deepcopy(model)
        prune_channels(other, report(model).trainable - 1, X[:1], method=method, keep=("1",))
        left = [row for i, row in enumerate(model[0].weight) if i != gone]
        assert torch.equal(other[0].weight, torch.stack(left))


@pytest.mark.parametrize("seed", range(4))
def test_fpgm_by_its_definition(seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.Conv2d(5, 6, 2, bias=False), nn.Conv2d(6, 2, 1))
    filters = list(model[1].weight.detach())
    sums = [sum(float((a - b).square().sum().sqrt()) for b in filters) for a in filters]
    own = [model[0].weight.detach()[:, i] for i in range(5)]
    others = [sum(float((a - b).square().sum().sqrt()) for b in own) for a in own]
    # Both layers' sums over their mean, in one order; the least goes.
    ranks = [(s * 6 / sum(sums), 1, i) for i, s in enumerate(sums)]
    ranks += [(s * 5 / sum(others), 0, i) for i, s in enumerate(others)]
    _, layer, gone = min(ranks)
    expected = [row for i, row in enumerate(filters if layer else own) if i != gone]
    prune_channels(model, report(model).trainable - 1, X[:1], method="fpgm", keep=("2",))
    assert torch.equal(model[layer].weight.detach(), torch.stack(expected, dim=1 - layer))


def test_a_stacked_hourglass_keeps_its_predictions() -> None:
    torch.manual_seed(0)
    model = build(ModelConfig(stages=2, channels=16, depth=2, sharing="none", heads={"keypoints": 5, "depth": 1}))
    total, x = report(model).trainable, torch.zeros(1, 3, 64, 64)
    shapes = [{name: y.shape for name, y in stage.items()} for stage in model.eval()(x)]
    heads = [name for name, _ in model.named_modules() if ".heads." in f".{name}"]
    result = prune_channels(model, total // 2, x, keep=heads)
    assert total / 2 * 0.95 < result.after <= total / 2
    assert [{name: y.shape for name, y in stage.items()} for stage in model(x)] == shapes
    assert not model.training


@pytest.mark.parametrize("method", ["l1", "fpgm"])
def test_resnet18(method: str) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    total = report(model).trainable
    result = prune_channels(model, total // 5, torch.zeros(1, 3, 32, 32), method=method, keep=("fc",))
    assert total / 5 * 0.98 < result.after <= total / 5
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert all(0 < now <= all_ for now, all_ in result.layers.values())
    assert model.fc.out_features == 10
    assert count_remaining(prune_weights_of(model, 100_000)) == 100_000  # single weights of what is left


def prune_weights_of(model: nn.Module, remaining: int) -> nn.Module:
    prune_weights(model, remaining)
    return model


@pytest.mark.parametrize(("keep", "words"), [("1", "give a list of patterns"), (["1", "x"], "'x', which matches no layer")])
def test_layers_to_keep_exist(keep: Any, words: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    with pytest.raises(ValueError, match=words):
        prune_channels(model, 50, torch.ones(1, 8), keep=keep)
