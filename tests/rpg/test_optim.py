"""One learning rate serves plain and generated networks."""

from __future__ import annotations

import functools
import math
from itertools import chain

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rpgmt import Bank, RPGLinear, convert, parameter_groups


class Net(nn.Module):
    """A small hourglass-like classifier of 12×12 images: 1×1 and 3×3 convolutions of unequal widths."""

    def __init__(self) -> None:
        super().__init__()
        shapes = ((3, 12, 3), (12, 24, 3), (24, 12, 1), (12, 24, 3), (24, 24, 3))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, padding=k // 2, bias=False) for i, o, k in shapes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _ in shapes)
        self.head = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)))
            if i in (1, 3):
                x = F.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))

    def bank_scope(self, scope: str, name: str) -> str:
        return name


@pytest.mark.parametrize(("optimizer", "power", "decayed"), [("adam", 0.5, False), ("adamw", 0.5, True), ("sgd", 0.0, False)])
@pytest.mark.parametrize("size", [100, "25%", "100%", "400%"])
def test_groups(size: int | str, optimizer: str, power: float, decayed: bool) -> None:
    model = Net()
    convert(model, size, scope="layer", exclude=("head",))
    model.norms[0].weight.requires_grad_(False)
    groups = parameter_groups(model, optimizer, lr=0.01, weight_decay=0.2)
    members = list(chain.from_iterable(group["params"] for group in groups))
    assert len({id(p) for p in members}) == len(members)
    assert {id(p) for p in members} == {id(p) for p in model.parameters() if p.requires_grad}
    assert groups[0]["name"] == "fixed"
    assert (groups[0]["lr"], groups[0]["weight_decay"]) == (0.01, 0.2)
    banks = {name: module for name, module in model.named_modules() if isinstance(module, Bank)}
    assert [group["name"] for group in groups[1:]] == list(banks)
    for group, bank in zip(groups[1:], banks.values(), strict=True):
        assert group["params"] == [bank.values] or group["params"][0] is bank.values
        factor = max(1.0, bank.generated / bank.size) ** power
        assert group["lr"] == pytest.approx(0.01 * factor)
        assert group["weight_decay"] == pytest.approx(0.2 / factor if decayed else 0.2)
    torch.optim.AdamW(groups)


def test_groups_of_a_plain_and_of_a_frozen_network() -> None:
    model = Net()
    (group,) = parameter_groups(model, "adam", 0.1)
    assert len(group["params"]) == len(list(model.parameters()))
    convert(model, 100)
    model.bank.requires_grad_(False)
    assert [group["name"] for group in parameter_groups(model, "adam", 0.1)] == ["fixed"]


def test_a_multiplicative_schedule_keeps_the_ratio() -> None:
    model = Net()
    convert(model, "25%")
    optimizer = torch.optim.Adam(parameter_groups(model, "adam", 0.1))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    fixed, bank = (group["lr"] for group in optimizer.param_groups)
    assert fixed == 0.05
    assert bank / fixed == pytest.approx(math.sqrt(model.bank.uses))


def test_errors() -> None:
    with pytest.raises(ValueError, match="`optimizer` is 'lion': must be one of adam, adamw, sgd"):
        parameter_groups(Net(), "lion", 0.1)
    model = nn.Sequential(RPGLinear(3, 4, bank=Bank(5)))
    with pytest.raises(ValueError, match="`0` draws on a bank that is not part of the Sequential: give the root"):
        parameter_groups(model, "adam", 0.1)


# ---- training curves


BATCHES = 100


@functools.cache
def batches() -> list[tuple[Tensor, Tensor]]:
    """Classes of 3 smooth patterns each, shifted round the image, in noise; no batch comes twice."""
    generator = torch.Generator().manual_seed(5)
    patterns = F.interpolate(torch.randn(24, 3, 5, 5, generator=generator), 12, mode="bilinear")
    patterns = patterns / patterns.std()
    result = []
    for _ in range(BATCHES):
        label = torch.randint(8, (32,), generator=generator)
        which = label * 3 + torch.randint(3, (32,), generator=generator)
        shift = torch.randint(12, (2,), generator=generator).tolist()
        noise = torch.randn(32, 3, 12, 12, generator=generator)
        result.append((torch.roll(patterns[which], shift, (2, 3)) + 0.7 * noise, label))
    return result


@functools.cache
def final_loss(optimizer: str, lr: float, size: str | None, factor: bool = True) -> float:
    """Mean loss of the last fifth of the training, over two seeds."""
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = Net()
        if size:
            convert(model, size, exclude=("head",), seed=seed)
        groups = parameter_groups(model, optimizer if factor else "sgd", lr)
        updater = torch.optim.Adam(groups) if optimizer == "adam" else torch.optim.SGD(groups, momentum=0.9)
        for step, (images, labels) in enumerate(batches()):
            loss = F.cross_entropy(model(images), labels)
            updater.zero_grad()
            loss.backward()
            updater.step()
            if step >= 0.8 * BATCHES:
                losses.append(float(loss.detach()))
    return sum(losses) / len(losses)


START = math.log(8)


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 3e-3), ("sgd", 0.05)])
def test_the_plain_networks_rate_trains_the_generated_one(optimizer: str, lr: float) -> None:
    plain, generated = final_loss(optimizer, lr, None), final_loss(optimizer, lr, "25%")
    assert plain < 0.6 * START
    assert START - generated > 0.75 * (START - plain)


def test_without_the_factor_adam_is_slower() -> None:
    with_factor, without = final_loss("adam", 3e-3, "25%"), final_loss("adam", 3e-3, "25%", factor=False)
    assert without > with_factor + 0.05


if __name__ == "__main__":
    for arguments in (
        ("adam", 3e-3, None),
        ("adam", 3e-3, "25%"),
        ("adam", 3e-3, "25%", False),
        ("sgd", 0.05, None),
        ("sgd", 0.05, "25%"),
    ):
        print(*arguments, f"{final_loss(*arguments):.3f}")
