from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import reference
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from rpgmt import Bank, RPGConv2d, RPGConvTranspose2d, RPGLinear, bake, convert, report
from rpgmt.config import ModelConfig
from rpgmt.models import build
from rpgmt.rpg.layers import GeneratedLayer
from rpgmt.rpg.size import split


class Branched(nn.Module):
    """Two stages with a skip: what an hourglass is made of."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.ModuleDict(
                {
                    "down": nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
                    "norm": nn.BatchNorm2d(2 * width),
                    "mid": nn.Conv2d(2 * width, 2 * width, 3, padding=2, dilation=2, groups=2),
                    "up": nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1),
                }
            )
            for _ in range(2)
        )
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            y = F.relu(stage["norm"](stage["down"](x)))
            x = x + F.relu(stage["up"](F.relu(stage["mid"](y))))
        return self.head(x.mean((2, 3)))

    def bank_scope(self, scope: str, name: str) -> str:
        if scope != "stage":
            raise ValueError(f"`scope` is {scope!r}: must be one of global, stage")
        return ".".join(name.split(".")[:2]) if name.startswith("stages") else ""


M_BRANCHED = sum(
    p.numel() for m in Branched().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) for p in [m.weight]
)


def branched(seed: int = 0, dtype: torch.dtype = torch.float32) -> Branched:
    torch.manual_seed(seed)
    return Branched().to(dtype)


def images(count: int = 2, size: int = 10, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype)


def matrix_of(bank: Bank) -> Tensor:
    segments = [(segment.numel, segment.scale) for segment in bank.layout.segments]
    p = bank.placement
    return torch.from_numpy(reference.generating_matrix(p.size, segments, p.seed, p.bank, p.block))


LAYERS: list[tuple[type[nn.Module], type[GeneratedLayer], tuple[int, ...], dict[str, Any], tuple[int, ...]]] = [
    (nn.Conv2d, RPGConv2d, (4, 6, 3), {}, (2, 4, 9, 7)),
    (
        nn.Conv2d,
        RPGConv2d,
        (4, 6, 3),
        {"groups": 2, "dilation": 2, "stride": 2, "padding": 2, "bias": False},
        (2, 4, 9, 7),
    ),
    (nn.Conv2d, RPGConv2d, (6, 6, (1, 5)), {"groups": 6, "padding": "same", "padding_mode": "circular"}, (2, 6, 9, 7)),
    (nn.Conv2d, RPGConv2d, (4, 2, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 4, 9, 7)),
    (
        nn.Conv2d,
        RPGConv2d,
        (4, 2, 3),
        {"padding": (2, 1), "padding_mode": "replicate", "dtype": torch.float64},
        (2, 4, 9, 7),
    ),
    (
        nn.ConvTranspose2d,
        RPGConvTranspose2d,
        (4, 6, 3),
        {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 2},
        (2, 4, 5, 6),
    ),
    (nn.ConvTranspose2d, RPGConvTranspose2d, (4, 6, 2), {"stride": 2, "bias": False}, (2, 4, 5, 6)),
    (nn.Linear, RPGLinear, (7, 5), {}, (2, 3, 7)),
    (nn.Linear, RPGLinear, (7, 5), {"bias": False, "dtype": torch.float64}, (2, 7)),
]


@pytest.mark.parametrize(("plain", "generated", "arguments", "options", "shape"), LAYERS)
def test_explicit_layers_compute_what_plain_layers_with_those_weights_do(
    plain: type[nn.Module],
    generated: type[GeneratedLayer],
    arguments: tuple[int, ...],
    options: dict[str, Any],
    shape: tuple[int, ...],
) -> None:
    torch.manual_seed(0)
    dtype = options.get("dtype", torch.float32)
    model = nn.Module()
    model.bank = Bank(11, std=0.1, dtype=dtype)
    model.layer = generated(*arguments, bank=model.bank, **options)
    twin = plain(*arguments, **options)
    assert [name for name, _ in model.layer.named_parameters()] == [n for n, _ in twin.named_parameters() if n != "weight"]
    matrix = matrix_of(model.bank).to(dtype)
    with pytest.warns(UserWarning, match="lacks its generated weights"):
        own = model.layer.state_dict()
    twin.load_state_dict({**own, "weight": (matrix @ model.bank.values.detach()).view(twin.weight.shape)})
    x = torch.randn(shape, dtype=dtype)
    ours, theirs = model.layer(x), twin(x)
    torch.testing.assert_close(ours, theirs)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(model.bank.values.grad, matrix.T @ twin.weight.grad.flatten(), rtol=1e-4, atol=1e-4)
    if twin.bias is not None:
        torch.testing.assert_close(model.layer.bias.grad, twin.bias.grad)
    assert repr(model.layer) == repr(twin).replace(plain.__name__, generated.__name__)[:-1] + ", generated from 11)"


def test_the_explicit_form_equals_conversion() -> None:
    class Explicit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bank = Bank(40)
            self.a = RPGConv2d(2, 3, 3, bank=self.bank)
            self.b = RPGLinear(6, 4, bank=self.bank)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).flatten(1))

    plain = nn.Module()
    plain.a, plain.b = nn.Conv2d(2, 3, 3), nn.Linear(6, 4)
    convert(plain, 40)
    explicit = Explicit()
    # The deviations differ by the draw of the initialiser: the same scales make the same weights of the same entries.
    assert set(explicit.state_dict()) == set(plain.state_dict())
    explicit.load_state_dict(plain.state_dict())
    ours, theirs = matrix_of(explicit.bank), matrix_of(plain.bank)
    assert (ours.sign() == theirs.sign()).all()
    for layer, other in ((explicit.a, plain.a), (explicit.b, plain.b)):
        ratio = layer.weight / other.weight
        torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))
    assert report(explicit).banks == report(plain).banks == {"bank": (40, 54 + 24)}
    explicit(torch.randn(2, 2, 3, 4)).sum().backward()
    assert explicit.bank.values.grad.abs().min() > 0


@pytest.mark.parametrize("size", [3, 400, 20_000])
def test_initial_deviation_is_that_of_each_layers_own_initialiser(size: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(16, 32, 3),
        nn.Conv2d(32, 32, 3, groups=4),
        nn.ConvTranspose2d(16, 32, 2),
        nn.Linear(64, 128),
        nn.Linear(99, 50),
    )
    nn.init.kaiming_normal_(plain[4].weight)
    expected = [
        1 / (3 * 16 * 9) ** 0.5,
        1 / (3 * 8 * 9) ** 0.5,
        1 / (3 * 32 * 4) ** 0.5,
        1 / (3 * 64) ** 0.5,
        (2 / 99) ** 0.5,
    ]
    convert(plain, size)
    for layer, deviation in zip(plain[:5], expected, strict=True):
        weight = layer.weight.detach()
        # The sample is smaller where entries make several weights; the draw that the scale is taken from scatters too.
        allowed = 4 * (0.5 / min(weight.numel(), size) + 0.5 / weight.numel()) ** 0.5
        assert abs(float(weight.square().mean().sqrt()) / deviation - 1) < allowed
    scales = [segment.scale * plain.bank.std for segment in plain.bank.layout.segments]
    assert scales == pytest.approx(expected, rel=0.03)


SIZES = [1, 13, 997, M_BRANCHED - 1, M_BRANCHED, M_BRANCHED + 1, 3 * M_BRANCHED, "1%", "25%", "2%"]


@pytest.mark.parametrize("size", SIZES)
def test_any_size_trains_and_keeps_names(size: int | str) -> None:
    model = branched()
    names = [name for name, _ in model.named_modules()]
    counts = convert(model, size)
    assert [name for name, _ in model.named_modules() if name != "bank"] == names
    expected = size if isinstance(size, int) else max(1, math.floor(int(size[:-1]) * M_BRANCHED / 100 + 0.5))
    assert counts.bank == model.bank.size == expected
    assert counts.generated == M_BRANCHED
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = model.bank.values.detach().clone()
    model(images()).square().sum().backward()
    optimizer.step()
    assert model.bank.values.isfinite().all()
    assert (model.bank.values != before).any()


@pytest.mark.parametrize("block", [1, 7])
@pytest.mark.parametrize("scope", ["global", "stage"])
@pytest.mark.parametrize("size", [5, 500, M_BRANCHED - 1, M_BRANCHED + 9])
def test_gradient_is_the_folded_gradient_of_the_plain_network(size: int, scope: str, block: int) -> None:
    model = branched(dtype=torch.float64)
    convert(model, size, scope=scope, seed=4, block=block)
    banks = {name: m for name, m in model.named_modules() if isinstance(m, Bank)}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, GeneratedLayer)}
    matrices = {name: matrix_of(bank) for name, bank in banks.items()}
    x = images(dtype=torch.float64)
    model(x).square().sum().backward()
    gradients = {name: bank.values.grad.clone() for name, bank in banks.items()}
    others = {name: p.grad.clone() for name, p in model.named_parameters() if name.split(".")[0] not in banks}
    members = {name: [key for key, m in layers.items() if m.bank is bank] for name, bank in banks.items()}
    model.zero_grad(set_to_none=True)
    plain = bake(model)  # the same object, now a plain network
    plain(x).square().sum().backward()
    modules = dict(plain.named_modules())
    for name, matrix in matrices.items():
        flat = torch.cat([modules[key].weight.grad.flatten() for key in members[name]])
        torch.testing.assert_close(gradients[name], matrix.T @ flat, rtol=1e-10, atol=1e-10)
    for name, gradient in others.items():
        assert torch.equal(plain.get_parameter(name).grad, gradient)


# ---- N ≥ M


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-2),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("size", "scope", "block"), [("100%", "global", 1), ("137%", "global", 16), ("100%", "stage", 1)])
def test_a_bank_as_large_as_its_weights_trains_bit_for_bit_as_the_plain_network(
    size: str, scope: str, block: int, optimizer: str
) -> None:
    plain, model = branched(), branched()
    convert(model, size, scope=scope, block=block, seed=9)
    ours, theirs = OPTIMIZERS[optimizer](model.parameters()), OPTIMIZERS[optimizer](plain.parameters())
    x = images(4)
    target = torch.tensor([0, 1, 2, 3])
    for _ in range(8):
        losses = []
        for network, updater in ((model, ours), (plain, theirs)):
            loss = F.cross_entropy(network(x), target)
            updater.zero_grad()
            loss.backward()
            updater.step()
            losses.append(loss.detach())
        assert torch.equal(*losses)
    bake(model)
    for (name, ours_), (other, theirs_) in zip(model.state_dict().items(), plain.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(ours_, theirs_), name


def test_gradient_clipping_sees_the_plain_networks_norm() -> None:
    plain, model = branched(), branched()
    convert(model, "100%")
    norms = []
    for network in (plain, model):
        network(images()).square().sum().backward()
        norms.append(nn.utils.clip_grad_norm_(network.parameters(), 0.1))
    torch.testing.assert_close(*norms)


# ---- which layers


def test_split_by_hand() -> None:
    assert split(10, [1]) == [10]
    assert split(10, [1, 1]) == [5, 5]
    assert split(10, [1, 1, 1]) == [4, 3, 3]
    assert split(7, [5, 3, 1]) == [4, 2, 1]  # quotas 3.89, 2.33, 0.78: the units go to .89 and .78
    assert split(100, [621, 203, 176]) == [62, 20, 18]
    assert split(3, [1000, 1, 1]) == [1, 1, 1]
    assert split(5, [1000, 1, 1]) == [3, 1, 1]
    assert split(1, [8]) == [1]
    with pytest.raises(ValueError, match="`size` is 2: 3 banks need at least 1 parameter each"):
        split(2, [1, 1, 1])


def test_split_equals_its_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (1, 2, 3, 7, 30):
        for _ in range(40):
            shares = torch.randint(1, 5000, (count,), generator=generator).tolist()
            total = int(torch.randint(count, 3 * sum(shares), (), generator=generator))
            parts = split(total, shares)
            assert sum(parts) == total
            assert min(parts) >= 1
            assert parts == reference.split_by_largest_remainder(total, shares)


def test_scope_include_exclude() -> None:
    model = branched()
    counts = convert(model, 1000, scope="stage", include=("stages.*", "head"), exclude=("*.up",))
    assert counts.converted == [f"stages.{i}.{kind}" for i in range(2) for kind in ("down", "mid")] + ["head"]
    assert counts.left == {
        "stem": "not in stages.*, head",
        **{f"stages.{i}.norm": "BatchNorm2d is not generated" for i in range(2)},
        **{f"stages.{i}.up": "excluded" for i in range(2)},
    }
    per_stage = 16 * 8 * 9 + 16 * 8 * 9
    assert {name: m for name, (_, m) in counts.banks.items()} == {
        "bank_stages_0": per_stage,
        "bank_stages_1": per_stage,
        "bank": 40,
    }
    assert [n for n, _ in counts.banks.values()] == split(1000, [per_stage, per_stage, 40])
    numbers = [m.placement.bank for m in model.modules() if isinstance(m, Bank)]
    assert numbers == [0, 1, 2]  # stages of one shape get other placements
    model(images()).sum().backward()
    assert all(bank.values.grad is not None for bank in model.modules() if isinstance(bank, Bank))


def test_scope_may_be_a_function() -> None:
    model = branched()
    counts = convert(model, "50%", scope=lambda name: name.split(".")[-1])
    assert list(counts.banks) == ["bank_stem", "bank_down", "bank_mid", "bank_up", "bank_head"]


def test_counts_of_the_report() -> None:
    model = branched()
    total = sum(p.numel() for p in model.parameters())
    counts = convert(model, 500)
    assert (counts.bank, counts.generated, counts.fixed) == (500, M_BRANCHED, total - M_BRANCHED)
    assert counts.trainable == sum(p.numel() for p in model.parameters()) == 500 + total - M_BRANCHED
    assert counts.buffers == 2 * (16 + 16 + 1)
    assert report(model) == counts
    assert sum(row.generated for row in counts.rows) == M_BRANCHED
    baked = report(bake(model))
    assert (baked.bank, baked.generated, baked.fixed) == (0, 0, total)


def test_layers_that_cannot_be_generated_are_left_with_a_reason() -> None:
    class Own(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)

    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)), Own(4, 4, 1), nn.Conv1d(4, 4, 1), nn.LayerNorm(4), nn.ReLU())
    nn.init.zeros_(model[0].weight)
    nn.init.constant_(model[1].weight, 0.5)
    model[2].weight.requires_grad_(False)
    model[4].weight = model[3].weight
    counts = convert(model, 9)
    assert counts.converted == ["5"]
    assert counts.left == {
        "0": "its weight is constant",
        "1": "its weight is constant",
        "2": "its weight is frozen",
        "3": "its weight is also that of 4",
        "4": "its weight is also that of 3",
        "6": "Own has its own forward",
        "7": "Conv1d is not generated",
        "8": "LayerNorm is not generated",
    }
    assert [type(m).__name__ for m in model[:5]] == ["Linear"] * 5
    assert (counts.bank, counts.generated) == (9, 16)
    assert next(row for row in counts.rows if row.name == "4").shared == 16


def test_one_module_under_two_names_is_generated_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    model.append(model[0])
    counts = convert(model, 5)
    assert (counts.generated, model[0] is model[2]) == (16, True)
    model(torch.randn(1, 4)).sum().backward()


def test_a_sequential_root_and_a_layer_as_root() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    convert(model, 20)
    assert model(images()).shape == (2, 2, 6, 6)
    expected = model(images())
    assert torch.equal(bake(model)(images()), expected)
    assert len(model) == 3
    layer = nn.Linear(6, 6)
    assert convert(layer, 10).converted == [""]
    expected = layer(torch.ones(1, 6))
    expected.sum().backward()
    assert torch.equal(bake(layer)(torch.ones(1, 6)), expected)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_converting_the_rest_later() -> None:
    model = branched()
    convert(model, 100, include=("stages.0.*",))
    counts = convert(model, 60, include=("stages.1.*",))
    assert counts.banks == {"bank": (100, 3456), "bank_2": (60, 3456)}
    model(images()).sum().backward()
    assert model.bank.values.grad is not None
    assert model.bank_2.values.grad is not None
    with pytest.raises(ValueError, match="no layer to generate"):
        convert(model, 60, include=("stages.*",))


def test_a_second_conversion_of_everything_says_that_it_is_generated_already() -> None:
    model = branched()
    convert(model, 100)
    with pytest.raises(ValueError, match=r"no layer to generate any more: 8 are generated already \(N = 100\); `rpgmt.bake"):
        convert(model, 100)
    bake(model)
    assert convert(model, 60).bank == 60


# ---- subclasses


class Renamed(nn.Linear):
    """Built and shown in its own way, and with a method beside."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def extra_repr(self) -> str:
        return "renamed"

    def widest(self) -> float:
        return float(self.weight.detach().abs().max())


def test_a_subclass_that_computes_what_its_base_does_is_generated_and_keeps_its_methods() -> None:
    model = nn.Sequential(Renamed(6), nn.ReLU(), nn.modules.linear.NonDynamicallyQuantizableLinear(6, 3))
    assert convert(model, "25%").converted == ["0", "2"]
    assert isinstance(model[0], Renamed)
    assert isinstance(model[0], RPGLinear)
    assert repr(model[2]) == ("RPGNonDynamicallyQuantizableLinear(in_features=6, out_features=3, bias=True, generated from 14)")
    assert "RPGRenamed(\n  renamed, generated from 14\n" in repr(model[0])  # and its child, the bank
    assert model[0].widest() == float(model[0].weight.detach().abs().max()) > 0
    x = torch.randn(2, 6)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
        assert type(twin[0]) is type(model[0])
        twin(x).sum().backward()
        assert twin.bank.values.grad is not None
    assert model.bank.values.grad is None
    expected = model(x)
    assert [type(layer) for layer in bake(model)][::2] == [Renamed, nn.modules.linear.NonDynamicallyQuantizableLinear]
    assert torch.equal(model(x), expected)


def test_a_subclass_with_rules_of_its_own_is_left_and_says_which() -> None:
    class Standardised(nn.Conv2d):
        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return super()._conv_forward(x, weight - weight.mean(), bias)

    class Computed(nn.Linear):
        @property
        def weight(self) -> Tensor:  # type: ignore[override]
            return self._parameters["weight"].abs()

    class Saved(nn.Linear):
        def __setstate__(self, state: dict[str, Any]) -> None:
            self.__dict__.update(state)

    model = nn.Sequential(Standardised(3, 4, 3), nn.Linear(4, 4), Saved(4, 4), nn.GRU(4, 4), nn.Linear(4, 4))
    model[1].__class__ = Computed
    left = convert(model, 5).left
    assert left == {
        "0": "Standardised has its own _conv_forward",
        "1": "Computed has its own weight",
        "2": "Saved has its own __setstate__",
        "3": "GRU must have its weights in one piece",
    }


# ---- sizes that may not be meant


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 32, 3), nn.Linear(64, 200))  # 13,664 weights


def test_a_bank_much_larger_than_its_weights_is_noted() -> None:
    with pytest.warns(
        UserWarning, match="`size` is 1M: the layers have 13664 weights, so 986336 of the bank's entries are"
    ) as notes:
        counts = convert(small(), "1M")
    assert notes[0].filename == __file__
    assert str(counts).endswith("986,336 of the N make no weight: there are more than weights")
    assert "make no weight" not in str(convert(small(), "100%"))
    convert(small(), "1000%")  # a warning would be an error


@pytest.mark.parametrize("size", [10**9, "1G", 2 * 10**7])
def test_a_bank_that_a_machine_may_not_hold_for_nothing_is_refused_at_once(size: int | str) -> None:
    model = small()
    with pytest.raises(ValueError, match=rf"^`size` is {size}: the layers have 13664 weights, so \d+ entries would make none"):
        convert(model, size)
    assert report(model) == report(small())


@pytest.mark.parametrize("size", ["25", " 100 "])
def test_a_number_that_may_be_meant_in_percent_is_noted(size: str) -> None:
    with pytest.warns(UserWarning, match=rf"that is {size.strip()} parameters for 13664 .* give '{size.strip()}%'"):
        assert convert(small(), size).bank == int(size)


@pytest.mark.parametrize("size", [25, "25%", "0.025K", "101", "137"])
def test_a_size_that_is_clear_is_not_noted(size: int | str) -> None:
    convert(small(), size)  # a warning would be an error


@pytest.mark.parametrize("size", [25, "25"])
def test_configs_and_the_command_line_note_it_too(size: int | str) -> None:
    with pytest.warns(UserWarning, match=r"`size` is 25: that is 25 parameters for \d+ weights; for a part of them give '25%'"):
        build(ModelConfig(stages=2, channels=16, depth=2, rpg_size=size))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scope": "planet"}, "`scope` is 'planet': must be one of global, stage"),
        ({"include": ("stagse.*",)}, "`stagse.*` matches no module of the Branched"),
        ({"exclude": ("nothing",)}, "`nothing` matches no module of the Branched"),
        ({"exclude": ("*",)}, "the Branched has no layer to generate (stem: excluded; "),
        ({"include": ("*.norm",)}, "the Branched has no layer to generate (stem: not in *.norm; "),
        ({"size": 2, "scope": "stage"}, "`size` is 2: 3 banks need at least 1 parameter each"),
        ({"size": 0}, "`size` is 0: give at least 1"),
        ({"size": "1Q"}, "`size` is '1Q': not a size"),
        ({"seed": -1}, "`seed` is -1: "),
        ({"block": 0}, "`block` is 0: "),
        ({"gradient": "fair"}, "`gradient` is 'fair': must be one of "),
    ],
)
def test_errors_of_convert_are_one_line_and_leave_the_model_as_it_was(options: dict[str, Any], words: str) -> None:
    model = branched()
    with pytest.raises(ValueError, match=r"`|no layer") as error:
        convert(model, **{"size": 100, **options})
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)
    assert report(model) == report(branched())


def test_an_unknown_scope_of_a_model_without_scopes() -> None:
    with pytest.raises(ValueError, match="`scope` is 'stage': a Linear knows only 'global'"):
        convert(nn.Linear(2, 2), 2, scope="stage")


def test_a_model_without_layers() -> None:
    with pytest.raises(ValueError, match=r"the Sequential has no layer to generate \(no parameters\)"):
        convert(nn.Sequential(nn.ReLU()), 2)


# ---- bake


@pytest.mark.parametrize("size", [50, "100%"])
@pytest.mark.parametrize("training", [True, False])
def test_bake_gives_the_plain_network_bit_for_bit_and_twice_the_same(size: int | str, training: bool) -> None:
    model, plain = branched(), branched()
    convert(model, size, scope="stage")
    model.train(training)
    expected = model(images())
    assert bake(model) is model
    for _ in range(2):
        assert {type(m) for m in model.modules()} == {type(m) for m in plain.modules()}
        assert [n for n, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
        assert [(n, p.shape) for n, p in model.named_parameters()] == [(n, p.shape) for n, p in plain.named_parameters()]
        assert list(model.state_dict()) == list(plain.state_dict())
        if not training:
            assert torch.equal(model(images()), expected)
        bake(model)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    plain.load_state_dict(model.state_dict())
    plain.train(training)
    assert torch.equal(plain(images()), model(images()))
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())


def test_bake_leaves_a_plain_model_alone() -> None:
    model = branched()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bake(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_bake_keeps_frozen_what_was_frozen() -> None:
    model = branched()
    convert(model, 50)
    model.bank.requires_grad_(False)
    bake(model)
    assert not model.stem.weight.requires_grad
    assert model.stem.bias.requires_grad


def test_bake_sees_the_banks_values_of_now() -> None:
    model = branched()
    convert(model, 50)
    with torch.no_grad():
        before = model.stem.weight.clone()
    model.bank.values.data.mul_(2)  # past the version counter
    assert torch.equal(bake(model).stem.weight, 2 * before)


def test_a_part_of_a_model_cannot_be_baked_from_under_the_rest() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    convert(model, "50%")
    with pytest.raises(RuntimeError, match="bake the root"):
        bake(model[0])
    assert "0.bank.values" in model.state_dict()
    bake(model)
    assert type(model[0]) is nn.Linear


def test_a_conversion_that_fails_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4).double())
    with pytest.raises(ValueError, match="differ in type or device"):
        convert(model, "50%", scope=lambda name: "a" if name == "0" else "b")
    assert [type(module) for module in model] == [nn.Linear] * 3


def test_a_second_conversion_is_placed_independently() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    convert(model, "50%", include=["0"])
    convert(model, "50%", include=["1"])
    assert [module.placement.bank for module in model.modules() if isinstance(module, Bank)] == [0, 1]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_weights_that_are_no_plain_parameters_are_left_alone() -> None:
    model = nn.Sequential(
        nn.Linear(8, 8),
        nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)),
        nn.utils.spectral_norm(nn.Linear(8, 8)),
        prune.l1_unstructured(nn.Linear(8, 8), "weight", 3),
        nn.Linear(8, 0),
        nn.Linear(8, 8, dtype=torch.complex64),
    )
    convert(model, "50%")
    left = model.bank.left
    assert left["2"] == left["3"] == "its weight is computed"
    assert left["4"] == "its weight is empty"
    assert left["5"] == "its weight is not real"
    assert type(model[0]).__name__ == "RPGLinear"


def test_shared_weights_name_the_other_layer() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    left = convert(model, "50%").left
    assert left["0"] == "its weight is also that of 1"
    assert left["1"] == "its weight is also that of 0"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"block": 2**31}, "`block` is 2147483648: give an integer from 1 to 2147483647"),
        ({"block": 2**70}, "`block` is 1180591620717411303424"),
        ({"block": 1.5}, "`block` is 1.5"),
        ({"block": "a"}, "`block` is 'a'"),
        ({"seed": 1.5}, "`seed` is 1.5"),
        ({"include": "conv"}, "`include` is 'conv': give a list of patterns"),
    ],
)
def test_what_is_out_of_range_changes_nothing(options: dict[str, Any], words: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with pytest.raises(ValueError, match="`") as error:
        convert(model, 20, **options)
    assert str(error.value).startswith(words)
    assert [type(layer).__name__ for layer in model] == ["Linear", "Linear"]


def test_weights_without_values_are_one_clear_error() -> None:
    with pytest.raises(ValueError, match="`0` is on the meta device: convert a model that has its weights"):
        convert(nn.Sequential(nn.Linear(8, 8, device="meta")), "50%")
    model = nn.Sequential(nn.Linear(8, 8))
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="the weight of `0` is not finite"):
        convert(model, "50%")


@pytest.mark.parametrize("kind", [nn.ModuleList, nn.ModuleDict])
def test_a_container_without_a_forward_is_refused_before_anything_changes(kind: type[nn.Module]) -> None:
    layer = nn.Linear(4, 4)
    container = kind([layer]) if kind is nn.ModuleList else kind({"a": layer})  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=f"`model` is a {kind.__name__}, which has no forward"):
        convert(container, "50%")
    assert type(next(iter(container.children()))) is nn.Linear
    assert layer.weight.shape == (4, 4)
