"""The moving average of weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from rpgmt.engine.ema import Ema


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        self.register_buffer("cache", torch.zeros(3), persistent=False)

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor([2**53 + 1])

    def set_extra_state(self, state: torch.Tensor) -> None:
        assert state.item() == 2**53 + 1


def disturb(model: Model) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
        model.layers(torch.randn(4, 1, 2, 2))
        model.cache.add_(1)


def test_average_equals_a_slow_twin() -> None:
    model = Model()
    ema = Ema(model, 0.3)
    twin = {name: t.clone().double() for name, t in model.state_dict().items() if t.is_floating_point()}
    for number in range(6):
        disturb(model)
        ema.update(number)
        decay = min(0.3, (1 + number) / (10 + number))
        twin = {name: decay * t + (1 - decay) * model.state_dict()[name].double() for name, t in twin.items()}
    assert ema.state_dict().keys() == twin.keys()  # running statistics too; no integers, cache or extra state
    for name, average in ema.state_dict().items():
        torch.testing.assert_close(average.double(), twin[name], rtol=1e-6, atol=1e-6)


def test_applied_swaps_in_place_and_back() -> None:
    model = Model()
    ema = Ema(model, 0.9)
    before = copy.deepcopy(model.state_dict())
    disturb(model)
    ema.update(0)
    live = copy.deepcopy(model.state_dict())
    versions = [p._version for p in model.parameters()]
    with ema.applied():
        for name, average in ema.state_dict().items():
            assert torch.equal(model.state_dict()[name], average)
        assert int(model.layers[1].num_batches_tracked) == 1  # counted, not averaged
        assert all(p._version > v for p, v in zip(model.parameters(), versions, strict=True))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, live[name])
    assert not torch.equal(live["layers.0.weight"], before["layers.0.weight"])


def test_constant_weights_stay_exact() -> None:
    model = Model()
    ema = Ema(model, 0.999)
    for number in range(50):
        ema.update(number)
    assert all(torch.equal(model.state_dict()[name], average) for name, average in ema.state_dict().items())
