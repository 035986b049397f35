from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rpgmt import Bank, convert, learn_signs
from rpgmt.baselines.quantize import FORMAT, GROUP, _halves, _paired, pack, quantize, unpack


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3)
        self.b.bias = self.a.bias  # one tensor with two names

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.norm(self.a(x))))

    def bank_scope(self, scope: str, name: str) -> str:
        return name


def network(size: int = 700, seed: int = 0, scope: str = "global") -> Net:
    torch.manual_seed(seed)
    model = Net()
    convert(model, size, scope=scope)
    return model


def set_values(model: Net, values: Tensor) -> Net:
    model.bank.values = nn.Parameter(values)
    return model


def steps_of(values: Tensor, bits: int) -> Tensor:
    """The step that each entry is a multiple of, from the definition."""
    largest = 2 ** (bits - 1) - 1
    groups = [values[i : i + GROUP] for i in range(0, len(values), GROUP)]
    return torch.cat([torch.full_like(group, float(group.abs().max()) / largest) for group in groups])


VALUES = {
    "gaussian": lambda n: torch.randn(n),
    "groups of different size": lambda n: torch.randn(n) * torch.logspace(-6, 6, n),
    "huge": lambda n: torch.randn(n) * 3e37,
    "the largest": lambda n: torch.full((n,), torch.finfo(torch.float32).max),
    "tiny": lambda n: torch.randn(n) * 1e-37,
    "a group of zeros": lambda n: torch.randn(n) * (torch.arange(n) >= GROUP),
    "zeros": lambda n: torch.zeros(n),
    "below the smallest normal number": lambda n: torch.randn(n) * 1e-42,
}


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", VALUES)
def test_rounding(kind: str, bits: int) -> None:
    model = network()
    values = VALUES[kind](700)
    quantize(set_values(model, values.clone()), bits)
    rounded = model.bank.values.detach().clone()
    steps = steps_of(values.double(), bits).clamp(min=torch.finfo(torch.float32).tiny)
    # Half a step; a step is up to 2⁻¹⁵ shorter than the definition's, so that its multiples are exact.
    assert ((rounded.double() - values.double()).abs() <= steps / 2 * (1 + 2**-14)).all()
    assert (rounded[values == 0] == 0).all()
    for start in range(0, 700, GROUP):
        assert len(rounded[start : start + GROUP].unique()) <= 2**bits - 1
    quantize(model, bits)
    assert torch.equal(model.bank.values, rounded)
    for sign in (-1, 1):  # symmetric
        other = network()
        quantize(set_values(other, sign * values), bits)
        assert torch.equal(other.bank.values, sign * rounded)


@pytest.mark.parametrize(("bits", "error"), [(8, 4.9e-5), (4, 1.6e-2)])
def test_the_error_of_a_gaussian_bank(bits: int, error: float) -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    bank = nn.Module()
    bank.bank = Bank(100_000)
    bank.bank.values = nn.Parameter(values.clone())
    quantize(bank, bits)
    relative = (bank.bank.values.detach() - values).square().sum() / values.square().sum()
    assert float(relative) == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("size", [2, 3, 255, 256, 257, 701])
def test_what_is_packed_is_what_was_rounded(tmp_path: Path, size: int, scope: str, bits: int) -> None:
    model, other = network(size, scope=scope), network(size, seed=1, scope=scope)
    model(torch.randn(2, 3, 8, 8))  # statistics of the norm that are not the first
    before = copy.deepcopy(model.state_dict())
    written = pack(tmp_path / "packed", model, bits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert written == (tmp_path / "packed").stat().st_size == quantize(model, bits) == pack(tmp_path / "again", model, bits)
    assert (tmp_path / "packed").read_bytes() == (tmp_path / "again").read_bytes()
    unpack(tmp_path / "packed", other)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
        if "values" not in name:
            assert torch.equal(tensor, before[name]), name
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), other.eval()(x))


@pytest.mark.parametrize(("bits", "entries"), [(8, 701), (4, 351)])
def test_bytes(tmp_path: Path, bits: int, entries: int) -> None:
    model = network(701)
    written = pack(tmp_path / "packed", model, bits)
    tensors = load_file(tmp_path / "packed")
    assert tensors["bank.values.packed"].nbytes == entries
    assert tensors["bank.values.steps"].nbytes == 4 * 3
    fixed = 8 + 2 * 8  # the shared bias once, the norm
    buffers = 4 * 2 * 8 + 8  # statistics, and their int64 count
    extra = 8 * (4 + 2)
    header = written - (entries + 4 * 3 + 4 * fixed + buffers + extra)
    assert 0 < header < 1024


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_two_entries_a_byte(count: int) -> None:
    q = torch.randint(-8, 8, (count,), dtype=torch.int8, generator=torch.Generator().manual_seed(count))
    packed = _paired(q)
    assert packed.tolist() == [int(q[i] + 8) + 16 * (int(q[i + 1] + 8) if i + 1 < count else 8) for i in range(0, count, 2)]
    assert torch.equal(_halves(packed)[:count], q)


def test_double_precision() -> None:
    model, twin = network().double(), network()
    quantize(model, 4)
    quantize(twin, 4)
    assert torch.equal(model.bank.values, twin.bank.values.double())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused_before_anything_changes(value: float) -> None:
    model = network(scope="layer")
    before = model.bank_a.values.detach().clone()
    with torch.no_grad():
        model.bank_b.values[3] = value
    with pytest.raises(ValueError, match="`bank_b` holds a value that is not a finite float32: it cannot be quantised"):
        quantize(model, 8)
    assert torch.equal(model.bank_a.values, before)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("damage", ["no steps", "few steps", "steps of no value", "two dimensions"])
def test_a_damaged_file_is_refused(tmp_path: Path, bits: int, damage: str) -> None:
    path = tmp_path / "packed"
    pack(path, network(), bits)
    tensors = load_file(path)
    packed, steps = "bank.values.packed", "bank.values.steps"
    if damage == "no steps":
        del tensors[steps]
    elif damage == "few steps":
        tensors[steps] = tensors[steps][:-1].clone()
    elif damage == "steps of no value":
        tensors[steps][0] = torch.nan
    else:
        tensors[packed] = tensors[packed][:, None].clone()
    save_file(tensors, path, {"format": FORMAT})
    with pytest.raises(ValueError, match=r"`bank\.values` is not the same in the file and in the model"):
        unpack(path, network())


def test_other_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`bits` is 5: must be one of 8, 4"):
        quantize(network(), 5)
    with pytest.raises(ValueError, match="the Net has no bank to quantise: convert it first"):
        quantize(Net(), 8)
    with pytest.raises(ValueError, match=r"`bank` holds values of torch\.bfloat16"):
        quantize(network().bfloat16(), 8)
    path = tmp_path / "packed"
    pack(path, network(), 4)
    for other in (network(20), network(698), network(1400), network(scope="layer")):
        with pytest.raises(ValueError, match="is not the same in the file and in the model: build the network of the file"):
            unpack(path, other)
    with pytest.raises(ValueError, match="the saved bank was placed with checksum"):
        unpack(path, network(699))  # in as many bytes
    torch.manual_seed(0)
    model = Net()
    convert(model, 700, seed=1)
    with pytest.raises(ValueError, match="the saved bank was placed with seed 0, this one with 1"):
        unpack(path, model)
    save_file({"x": torch.zeros(1)}, tmp_path / "plain")
    with pytest.raises(ValueError, match=re.escape("has format None, not 'rpgmt-quantized-1'")):
        unpack(tmp_path / "plain", network())
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValueError, match="is not a quantised model"):
        unpack(tmp_path / "text", network())


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_of_plain_layers_are_rounded_as_a_bank(bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = Net(), Net()
    model.b = nn.Conv2d(3, 8, 3)
    model.b.weight = model.a.weight  # shared: once in the file
    other.b = nn.Conv2d(3, 8, 3)
    other.b.weight = other.a.weight
    bank = network(216)
    set_values(bank, model.a.weight.detach().flatten().clone())
    quantize(bank, bits)
    before = copy.deepcopy(model.state_dict())
    written = pack(tmp_path / "packed", model, bits, ["*"])
    assert written == quantize(model, bits, ["a", "b"])
    assert torch.equal(model.a.weight.flatten(), bank.bank.values)
    unpack(tmp_path / "packed", other)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
        assert name.endswith(("a.weight", "b.weight")) or torch.equal(tensor, before[name])
    tensors = load_file(tmp_path / "packed")
    assert [name for name in tensors if name.endswith(".packed")] == ["a.weight.packed"]
    assert tensors["a.weight.packed"].nbytes == 216 * bits // 8
    with pytest.raises(ValueError, match="the Net has no layer c to quantise"):
        quantize(Net(), 8, ["c"])


@pytest.mark.parametrize("bits", [8, 4])
def test_magnitudes_are_rounded_as_a_bank_is_and_signs_kept(tmp_path: Path, bits: int) -> None:
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Conv2d(8, 32, 3), nn.Conv2d(32, 8, 1)) for _ in range(2))
    layers = [*learn_signs(model, "25%"), *learn_signs(other, "25%")]
    bank = network(layers[0].entries)
    set_values(bank, layers[0].magnitudes())
    quantize(bank, bits)
    signs = [torch.signbit(layer.weight) for layer in layers[:2]]
    written = pack(tmp_path / "packed", model, bits, ["*"])
    assert written == quantize(model, bits) == (tmp_path / "packed").stat().st_size
    assert torch.equal(layers[0].magnitudes(), bank.bank.values)
    assert all(torch.equal(torch.signbit(layer.weight), sign) for layer, sign in zip(layers, signs, strict=False))
    rounded = copy.deepcopy(model.state_dict())
    quantize(model, bits)
    unpack(tmp_path / "packed", other)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, rounded[name])
        assert torch.equal(tensor, model.state_dict()[name])
    tensors = load_file(tmp_path / "packed")
    assert tensors["0.magnitudes.packed"].nbytes == -(-layers[0].entries * bits // 8)
    assert tensors["0.signs"].nbytes == 8 * 32 * 9 // 8
    assert "0.weight" not in tensors
