"""Generated networks and the rest of PyTorch."""

from __future__ import annotations

import copy
import io
import os
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rpgmt import Bank, RPGLinear, bake, convert, defer_gradients
from rpgmt.rpg.layers import GeneratedLayer

# The compiler looks at `.grad` of the weights that a part is given; torch hides its warning, but not from `error`.
COMPILER_WARNING = "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"


class Net(nn.Module):
    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.GroupNorm(2, 8)
        self.b = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.c = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(self.norm(self.a(x))))).mean((2, 3)))

    def bank_scope(self, scope: str, name: str) -> str:
        return name if scope == "layer" else ""


def network(size: int = 100, *, norm: bool = True, seed: int = 0, placement: int = 0, **options: Any) -> Net:
    torch.manual_seed(seed)
    model = Net(norm)
    convert(model, size, seed=placement, **options)
    return model


def images(count: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=dtype)


def train_step(model: nn.Module, rate: float = 0.05) -> Tensor:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    optimizer.zero_grad()
    loss = model(images()).square().sum()
    loss.backward()
    optimizer.step()
    return loss.detach()


def assert_same_function(first: nn.Module, second: nn.Module) -> None:
    modes = first.training, second.training
    with torch.no_grad():
        assert torch.equal(first.eval()(images()), second.eval()(images()))
    first.train(modes[0])
    second.train(modes[1])


# ---- checkpoints


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_state_dict_round_trip(scope: str) -> None:
    model, other = network(scope=scope), network(scope=scope, seed=1)
    train_step(model)
    state = model.state_dict()
    banks = [name for name, module in model.named_modules() if isinstance(module, Bank)]
    assert [name for name in state if "weight" in name] == ["norm.weight"]
    assert [name for name in state if name.endswith("values")] == [f"{name}.values" for name in banks]
    other.load_state_dict(state, strict=True)
    assert_same_function(model, other)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"placement": 1},
            "the saved bank was placed with seed 0, this one with 1: build the model with the same network",
        ),
        ({"block": 2}, "the saved bank was placed with checksum"),
        ({"exclude": ("c",)}, "the saved bank was placed with checksum"),
    ],
)
def test_a_checkpoint_of_another_placement_is_an_error(options: dict[str, Any], words: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=words):
        network(**options).load_state_dict(network().state_dict(), strict=False)


def test_a_checkpoint_brings_the_scales_that_its_values_were_trained_with() -> None:
    # Scales are measured on the replaced weights, so a model that was built from another seed has others.
    model, other = network(gradient="balanced"), network(seed=1, gradient="balanced")
    assert [s.scale for s in model.bank.layout.segments] != [s.scale for s in other.bank.layout.segments]
    for loaded in (other, network(seed=2, gradient="balanced")):
        loaded(images()).sum().backward()
        loaded.zero_grad()
        loaded.load_state_dict(model.state_dict())
        assert loaded.bank.layout == model.bank.layout
        for network_ in (model, loaded):
            network_.zero_grad()
            network_(images()).square().sum().backward()
        assert torch.equal(loaded.bank.values.grad, model.bank.values.grad)


@pytest.mark.filterwarnings(COMPILER_WARNING)
@pytest.mark.usefixtures("fresh_dynamo")
def test_compile_before_the_first_call_of_an_explicit_bank() -> None:
    model = nn.Module()
    model.bank = Bank(5)
    model.layer = RPGLinear(3, 4, bank=model.bank)
    model.forward = lambda x: model.layer(x)
    with pytest.raises(Exception, match="call the model once before you compile or export it"):
        torch.compile(model, backend="eager", fullgraph=True)(torch.ones(1, 3))
    expected = model(torch.ones(1, 3))
    torch._dynamo.reset()
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(torch.ones(1, 3)), expected)


def test_a_checkpoint_of_another_number_or_version_is_an_error() -> None:
    state = network().state_dict()
    for position, name in enumerate(("version", "seed", "bank number", "checksum")):
        extra = state["bank._extra_state"].clone()
        extra[position] += 1
        with pytest.raises((RuntimeError, ValueError), match=f"placed with {name} "):
            network().load_state_dict({**state, "bank._extra_state": extra})


def test_a_checkpoint_that_was_averaged_with_its_placement_is_an_error() -> None:
    state = network().state_dict()
    averaged = {name: (tensor + tensor) / 2 for name, tensor in state.items()}
    with pytest.raises((RuntimeError, ValueError), match=r"is torch\.float32, no longer int64: copy it, do not average"):
        network().load_state_dict(averaged)
    network().load_state_dict({**averaged, "bank._extra_state": state["bank._extra_state"]})


def test_a_checkpoint_of_another_size_is_an_error() -> None:
    with pytest.raises((RuntimeError, ValueError)):
        network(99).load_state_dict(network(100).state_dict())


def test_safetensors(tmp_path: Path) -> None:
    model, other = network(), network(seed=1)
    train_step(model)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert_same_function(model, other)
    tensors = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    header = (tmp_path / "model.safetensors").stat().st_size - tensors
    assert 0 < header < 160 * len(model.state_dict()) + 8192


def test_deepcopy_is_independent_and_keeps_sharing() -> None:
    model = network(scope="layer")
    with torch.no_grad():
        model.eval()(images())  # there is something kept to go wrong
    twin = copy.deepcopy(nn.ModuleDict({"inner": model})).inner.train()
    model.train()
    assert_same_function(model, twin)
    for module in twin.modules():
        if isinstance(module, GeneratedLayer):
            assert any(module.bank is bank for bank in twin.children())
            assert all(module.bank is not bank for bank in model.children())
    before = copy.deepcopy(model.state_dict())
    train_step(twin)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    train_step(model)
    assert_same_function(model, twin)
    bake(twin)
    model(images()).sum().backward()  # the copy's hooks were its own
    assert model.bank_a.values.grad is not None


@pytest.mark.parametrize("way", ["pickle", "torch.save"])
def test_pickled_modules(way: str) -> None:
    model = network(scope="layer")
    train_step(model)
    with torch.no_grad():
        model(images())
    if way == "pickle":
        other = pickle.loads(pickle.dumps(model))
    else:
        stream = io.BytesIO()
        torch.save(model, stream)
        assert stream.tell() < 40_000  # no tables, no generated weights
        other = torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    assert_same_function(model, other)
    assert torch.equal(train_step(model), train_step(other))
    assert_same_function(model, bake(other))


# ---- averages


@pytest.mark.parametrize("average", ["mean", "ema"])
def test_averaged_model(average: str) -> None:
    model = network()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7) if average == "ema" else None, use_buffers=True)
    expected: Tensor | None = None
    for step in range(5):
        train_step(model)
        averaged.update_parameters(model)
        now = model.bank.values.detach().clone()
        if expected is None:
            expected = now
        else:
            expected = 0.7 * expected + 0.3 * now if average == "ema" else expected + (now - expected) / (step + 1)
        with torch.no_grad():
            torch.testing.assert_close(averaged.module.a.weight, _weight_from(model, expected))
    torch.testing.assert_close(averaged.module.bank.values.detach(), expected)
    assert torch.equal(averaged.module.bank.get_extra_state(), model.bank.get_extra_state())
    with torch.no_grad():
        averaged.eval()(images())
    other = AveragedModel(network(seed=1))
    other.load_state_dict(averaged.state_dict())
    assert_same_function(averaged, other)
    baked = bake(copy.deepcopy(averaged.module))
    assert_same_function(averaged, baked)


def _weight_from(model: Net, values: Tensor) -> Tensor:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bank.values.copy_(values)
        return other.a.weight.clone()


# ---- several processes


def _distributed_gradients(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = network(norm=False, scope="layer").double()
    if rank == 1:
        nn.init.zeros_(model.bank_a.values)  # rank 0's values are sent to rank 1
    parallel = nn.parallel.DistributedDataParallel(model)
    for half in images(8, torch.float64).chunk(2)[rank].chunk(2):  # accumulated without a message but the last
        with parallel.no_sync(), defer_gradients(model):
            (parallel(half).square().sum() / 8).backward()
    (0 * parallel(images(1, torch.float64)).sum()).backward()
    if rank == 1:
        torch.save({name: p.grad for name, p in model.named_parameters()}, f"{folder}/gradients.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_get_the_gradients_of_one_on_the_joint_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_distributed_gradients, (port, str(tmp_path)), nprocs=2)
    distributed = torch.load(tmp_path / "gradients.pt", weights_only=True)
    model = network(norm=False, scope="layer").double()
    (model(images(8, torch.float64)).square().sum() / 16).backward()
    assert list(distributed) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - distributed[name]).abs().max() <= 1e-12, name


# ---- compilation


@pytest.fixture
def fresh_dynamo() -> None:
    torch._dynamo.reset()


@pytest.mark.filterwarnings(COMPILER_WARNING)
@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("gradient", ["exact", "balanced"])
def test_compile_whole(gradient: str) -> None:
    model = network(scope="layer", gradient=gradient)
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        torch.testing.assert_close(train_step(compiled), train_step(twin))
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    model.eval()
    twin.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), twin(images()))
        assert torch.equal(model(images()), twin.load_state_dict(model.state_dict()) and twin(images()))
        model.bank_a.values.mul_(2)
        twin.bank_a.values.mul_(2)
        torch.testing.assert_close(compiled(images()), twin(images()))  # the values of now
        torch.testing.assert_close(model(images()), twin(images()))  # compiled and eager calls take turns


@pytest.mark.filterwarnings(COMPILER_WARNING)
@pytest.mark.usefixtures("fresh_dynamo")
def test_compile_parts() -> None:
    model = network()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model(images())
    for layer in (model.a, model.b, model.c):
        layer.compile(backend="aot_eager", fullgraph=True)
    model.norm.load_state_dict(twin.norm.state_dict())
    for _ in range(3):
        torch.testing.assert_close(train_step(model), train_step(twin))
    part, other = torch.compile(model.a, backend="aot_eager"), twin.a
    for _ in range(3):  # outside of the root's forward: new values after every step, and a gradient
        results = []
        for layer, root in ((part, model), (other, twin)):
            root.zero_grad()
            loss = layer(images()).square().mean()
            loss.backward()
            torch.optim.SGD(root.parameters(), lr=0.1).step()
            results.append(loss.detach())
        torch.testing.assert_close(*results)
    torch.testing.assert_close(model.bank.values, twin.bank.values)


@pytest.mark.slow
@pytest.mark.filterwarnings(COMPILER_WARNING)
@pytest.mark.usefixtures("fresh_dynamo")
def test_compile_by_inductor() -> None:
    model = network()
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(train_step(compiled), train_step(twin))


def test_torch_export() -> None:
    model = network().eval()
    exported = torch.export.export(model, (images(),))
    exported = exported.module()
    assert torch.equal(exported(images()), model(images()))
    exported(images()).square().sum().backward()
    model(images()).square().sum().backward()
    torch.testing.assert_close(exported.get_parameter("bank.values").grad, model.bank.values.grad)  # no constant


# ---- number formats, other runtimes


def test_autocast() -> None:
    model = network(norm=False)
    model(images()).square().sum().backward()
    expected = model.bank.values.grad.clone()
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(images())
        assert output.dtype == torch.bfloat16
        assert model.a.weight.dtype == torch.bfloat16  # made in the type in which it is used
        loss = output.float().square().sum()
    loss.backward()
    gradient = model.bank.values.grad
    assert gradient.dtype == model.bank.values.dtype == torch.float32
    assert gradient.isfinite().all()
    assert F.cosine_similarity(gradient, expected, dim=0) > 0.99
    torch.testing.assert_close(output.float(), model(images()), rtol=0.05, atol=0.02)


# torch's ONNX exporter, and the packages under it, warn of what they themselves will change.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_onnx_after_bake(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = network().eval()
    with torch.no_grad():
        expected = model(images())
    path = tmp_path / "model.onnx"
    torch.onnx.export(bake(model), (images(),), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: images().numpy()})
    np.testing.assert_allclose(output, expected.numpy(), rtol=1e-5, atol=1e-5)
