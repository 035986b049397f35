"""Our layers make the authors' network when they are given the authors' tables (arXiv 2107.07110, and its official code).

The construction, from its formula: one ring W of N entries; an index table of ⌊M/N⌋ copies of 0 … N-1 and M mod N further
entries, all M shuffled; a table of M independent signs; both are cut into consecutive chunks, one a layer. In every forward a
layer's kernel is

    K = c · sign ⊙ W[index],    c = √(4608 / (out · k²))

with W of deviation √(2 / 4608), so that K has that of Kaiming's initialiser over the fan-out. All 3×3 convolutions of the
residual blocks and the 1×1 convolutions of the short cuts are generated; the stem, the norms and the classifier are not.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rpgmt import Bank, RPGConv2d, bake
from rpgmt.rpg.backends.index_tables import IndexTables
from rpgmt.rpg.generate import BY_INDEX
from rpgmt.rpg.layers import GeneratedLayer

FAN = 4608  # 512 · 3 · 3: the shape that the ring is initialised as
STD = math.sqrt(2 / FAN)
WIDTHS = (8, 8, 16, 24)  # of the stem and of three blocks; the last two halve the map and so have a short cut


class Block(nn.Module):
    def __init__(self, before: int, after: int, bank: Bank) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = RPGConv2d(before, after, 3, stride, padding=1, bias=False, bank=bank)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = RPGConv2d(after, after, 3, padding=1, bias=False, bank=bank)
        self.bn2 = nn.BatchNorm2d(after)
        self.down = None
        if stride == 2:
            self.down = nn.Sequential(RPGConv2d(before, after, 1, stride, bias=False, bank=bank), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


class Net(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.bank = Bank(size, std=STD)
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        self.blocks = nn.Sequential(*(Block(a, b, self.bank) for a, b in pairwise(WIDTHS)))
        self.fc = nn.Linear(WIDTHS[-1], 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(F.relu(self.bn(self.stem(x)))).mean((2, 3)))


def layers_of(model: Net) -> dict[str, GeneratedLayer]:
    return {name: module for name, module in model.named_modules() if isinstance(module, GeneratedLayer)}


def scale_of(layer: nn.Module) -> float:
    return math.sqrt(FAN / (layer.out_channels * layer.kernel_size[0] ** 2))


def authors_tables(size: int, generated: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Index and sign of every generated weight of the network."""
    generator = np.random.default_rng(seed)
    copies = [np.arange(size)] * (generated // size)
    index = np.concatenate([*copies, generator.choice(size, generated % size, replace=False)])
    return generator.permutation(index), 2 * generator.binomial(1, 0.5, generated) - 1


def plug_in(bank: Bank, index: np.ndarray, sign: np.ndarray, scales: list[float]) -> None:
    """Makes a bank generate by the given tables and scales in place of its placement's."""
    bank.generator = bank.generator.rescaled(scales)
    layout = bank.layout
    entries = np.full(layout.offsets[-1], 2 * bank.size)  # padding reads the 0 of [bank, -bank, 0]
    for segment, offset in enumerate(layout.offsets[:-1]):
        chunk = slice(layout.starts[segment], layout.starts[segment + 1])
        entries[offset : offset + layout.lengths[segment]] = index[chunk] + bank.size * (sign[chunk] < 0)
    tables = IndexTables(torch.from_numpy(entries), bank.size, layout.offsets, layout.lengths, layout.scales)
    bank.generator._serve(torch.device("cpu"), BY_INDEX, tables)


class Twin:
    """The same network as a function, its kernels by the formula above."""

    def __init__(self, model: Net, index: np.ndarray, sign: np.ndarray) -> None:
        self.ring = model.bank.values.detach().clone().requires_grad_()
        self.fixed = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters() if n != "bank.values"}
        self.shapes = {name: layer.weight.shape for name, layer in layers_of(model).items()}
        self.index, self.sign = torch.from_numpy(index), torch.from_numpy(sign).double()

    def kernels(self) -> dict[str, Tensor]:
        kernels, start = {}, 0
        for name, shape in self.shapes.items():
            chunk = slice(start, start := start + shape.numel())
            multiplier = (FAN / (shape[0] * shape[2] * shape[3])) ** 0.5
            kernels[name] = (multiplier * self.ring[self.index[chunk]] * self.sign[chunk]).reshape(shape)
        return kernels

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.batch_norm(x, None, None, self.fixed[f"{name}.weight"], self.fixed[f"{name}.bias"], training=True)

    def __call__(self, x: Tensor) -> Tensor:
        k = self.kernels()
        x = F.relu(self.norm(F.conv2d(x, self.fixed["stem.weight"], padding=1), "bn"))
        for block in ("blocks.0", "blocks.1", "blocks.2"):
            stride = 1 if block == "blocks.0" else 2
            y = F.relu(self.norm(F.conv2d(x, k[f"{block}.conv1"], stride=stride, padding=1), f"{block}.bn1"))
            y = self.norm(F.conv2d(y, k[f"{block}.conv2"], padding=1), f"{block}.bn2")
            if stride == 2:
                x = self.norm(F.conv2d(x, k[f"{block}.down.0"], stride=2), f"{block}.down.1")
            x = F.relu(y + x)
        return F.linear(x.mean((2, 3)), self.fixed["fc.weight"], self.fixed["fc.bias"])


M = Net(1).bank.generated
# Many uses, so that a layer meets an entry several times; the 4.73 uses of their ResNet-18; whole laps; one use each; entries
# that nothing uses.
SIZES = [50, round(M / 4.73), M // 2, M, M + 100]


def authors_network(size: int) -> tuple[Net, Twin]:
    torch.manual_seed(0)
    model = Net(size).double()
    index, sign = authors_tables(size, M)
    plug_in(model.bank, index, sign, [scale_of(layer) for layer in layers_of(model).values()])
    return model, Twin(model, index, sign)


@pytest.mark.parametrize("size", SIZES)
def test_weights(size: int) -> None:
    model, twin = authors_network(size)
    with torch.no_grad():
        kernels = twin.kernels()
        for name, layer in layers_of(model).items():
            torch.testing.assert_close(layer.weight, kernels[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("regenerate", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_outputs_and_gradients_over_training_steps(size: int, regenerate: bool) -> None:
    model, twin = authors_network(size)
    model.bank.regenerate = regenerate
    named = dict(model.named_parameters())
    assert list(named) == ["bank.values", *twin.fixed]
    optimizers = [
        torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4)
        for parameters in (named.values(), [twin.ring, *twin.fixed.values()])
    ]
    for step in range(3):
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        outputs = []
        for optimizer, network in zip(optimizers, (model, twin), strict=True):
            optimizer.zero_grad()
            outputs.append(network(x))
            F.cross_entropy(outputs[-1], torch.arange(4)).backward()
        torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model.bank.values.grad, twin.ring.grad, rtol=1e-12, atol=1e-12)
        for name, parameter in twin.fixed.items():
            torch.testing.assert_close(named[name].grad, parameter.grad, rtol=1e-12, atol=1e-12)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(model.bank.values, twin.ring, rtol=1e-12, atol=1e-12)


def test_a_baked_network_holds_the_kernels() -> None:
    model, twin = authors_network(SIZES[1])
    kernels = twin.kernels()
    baked = bake(model)
    for name in twin.shapes:
        torch.testing.assert_close(baked.get_submodule(name).weight, kernels[name], rtol=1e-12, atol=0)


def test_the_scale_rule_is_ours_for_weights_of_kaimings_deviation() -> None:
    # Ours measures σ of the weight that the layer's initialiser gave; theirs is the formula of that initialiser.
    bank = Bank(1000, std=STD)
    for before, after, k in ((64, 64, 3), (128, 256, 3), (256, 512, 1)):
        weight = torch.empty(after, before, k, k)
        nn.init.kaiming_normal_(weight, mode="fan_out", generator=torch.Generator().manual_seed(0))
        bank.add(weight.shape, float(weight.square().mean().sqrt()))
        assert bank.layout.scales[-1] == pytest.approx(math.sqrt(FAN / (after * k * k)), rel=0.01)


def test_every_entry_is_used_equally_often_by_their_tables_and_by_ours() -> None:
    for size in SIZES:
        index, _ = authors_tables(size, M)
        t = np.arange(M)
        for entries in (index, Bank(size).placement.entries(t // size, t % size)):
            uses = np.bincount(entries, minlength=size)
            assert set(uses) <= {M // size, -(-M // size)}
