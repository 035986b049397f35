"""What a training step keeps of generated weights: shared between forwards, or nothing at all."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from rpgmt import Bank, bake, convert, defer_gradients


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect")
        self.b = nn.ConvTranspose2d(6, 6, 2, stride=2)
        self.c = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))).mean((2, 3)))

    def bank_scope(self, scope: str, name: str) -> str:
        return name


def network(size: int = 100, dtype: torch.dtype = torch.float64, **options: Any) -> Net:
    torch.manual_seed(0)
    model = Net().to(dtype)
    convert(model, size, **options)
    return model


def images(count: int = 1, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(i), dtype=dtype) for i in range(count)]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name], rtol=1e-12, atol=1e-14, msg=name)


class Calls(TorchDispatchMode):
    """Counts generations and folds, and remembers the memory of what was generated."""

    def __init__(self) -> None:
        super().__init__()
        self.generated: list[StorageWeakRef] = []
        self.folds = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "rpgmt":
            if "generate" in func.name():
                self.generated.append(StorageWeakRef(result.untyped_storage()))
            else:
                self.folds += 1
        return result


# ---- deferred gradients


def accumulate(model: nn.Module, batches: Sequence[Tensor], deferring: Sequence[bool]) -> dict[str, Tensor]:
    model.zero_grad()
    for batch, waits in zip(batches, deferring, strict=True):
        with defer_gradients(model) if waits else nullcontext():
            model(batch).square().sum().backward()
    return gradients(model)


@pytest.mark.parametrize("options", [{}, {"block": 16}, {"gradient": "balanced"}, {"scope": "layer"}, {"size": 1000}])
def test_deferred_gradients_are_the_sum_of_the_batches(options: dict[str, Any]) -> None:
    model = network(**options)
    banks = sum(isinstance(module, Bank) for module in model.modules())
    plain = accumulate(model, images(4), [False] * 4)
    for _ in range(2):
        with Calls() as calls:
            deferred = accumulate(model, images(4), [True, True, True, False])
        assert (len(calls.generated), calls.folds) == (banks, banks)
        assert_close(deferred, plain)
        with torch.no_grad():
            for bank in model.modules():
                if isinstance(bank, Bank):
                    bank.values.sub_(0.1 * bank.values.grad)
        plain = accumulate(model, images(4), [False] * 4)


def test_until_the_last_batch_the_banks_gradient_is_zero() -> None:
    model = network()
    assert not accumulate(model, images(2), [True, True])["bank.values"].any()
    with torch.no_grad():
        model(images()[0])  # a validation in between
    model(images(3)[2]).square().sum().backward()
    expected = accumulate(network(), images(3), [False] * 3)
    torch.testing.assert_close(model.bank.values.grad, expected["bank.values"])


def test_several_forwards_for_one_backward() -> None:
    model = network()
    a, b, c, d = images(4)
    with defer_gradients(model):
        (model(a).square().sum() + model(b).square().sum()).backward()
    (model(c).square().sum() + model(d).square().sum()).backward()
    assert_close(gradients(model), accumulate(network(), [a, b, c, d], [False] * 4))


@pytest.mark.parametrize("order", ["joint", "reversed"])
def test_backwards_in_any_order(order: str) -> None:
    model = network()
    losses = []
    for batch, waits in zip(images(4), [True, True, True, False], strict=True):
        with defer_gradients(model) if waits else nullcontext():
            losses.append(model(batch).square().sum())
    if order == "joint":
        torch.stack(losses).sum().backward()
    else:
        for loss in reversed(losses):
            loss.backward()
    assert_close(gradients(model), accumulate(network(), images(4), [False] * 4))
    # The next step is another one.
    model.zero_grad()
    assert_close(accumulate(model, images(2), [True, False]), accumulate(network(), images(2), [False, False]))


def test_gradients_wait_for_a_backward_and_not_for_a_forward() -> None:
    model = network()
    a, b = images(2)
    with defer_gradients(model):
        model(a).square().sum().backward()
    model(b)  # looked at, not learned from
    with pytest.raises(RuntimeError):
        model(b[:, :1])
    model(b).square().sum().backward()
    assert_close(gradients(model), accumulate(network(), [a, b], [False, False]))


@pytest.mark.parametrize("when", ["before the forward", "before the backward", "after a step"])
@pytest.mark.parametrize("waits", [False, True])
def test_zero_grad_drops_what_waits(when: str, waits: bool) -> None:
    model = network()
    a, b, c = images(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with defer_gradients(model):
        model(a).square().sum().backward()
    if when == "after a step":
        optimizer.step()
    if when != "before the backward":
        optimizer.zero_grad()
    with defer_gradients(model) if waits else nullcontext():
        loss = model(b).square().sum()
    if when == "before the backward":
        optimizer.zero_grad()
    loss.backward()
    model(c).square().sum().backward()
    assert_close(gradients(model), accumulate(network(), [b, c], [False, False]))


def test_deferring_under_autocast_adds_in_float32() -> None:
    batches = images(4, torch.float32)
    model = network(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        plain = accumulate(model, batches, [False] * 4)["bank.values"]
        deferred = accumulate(model, batches, [True, True, True, False])["bank.values"]
        mixed = accumulate(model, batches[:3], [True, True, False])
        with defer_gradients(model):
            model.zero_grad()
            model(batches[0]).square().sum().backward()
    assert deferred.dtype == torch.float32
    torch.testing.assert_close(deferred, plain, rtol=1e-5, atol=1e-6)
    model(batches[1]).square().sum().backward()  # the weights are now of another type; nothing is lost
    assert F.cosine_similarity(model.bank.values.grad, mixed["bank.values"], dim=0) > 0.5
    with torch.autocast("cpu", torch.bfloat16):
        expected = accumulate(model, batches[:2], [False, False])["bank.values"]
    torch.testing.assert_close(accumulate(model, batches[:2], [True, False])["bank.values"], expected, rtol=0.05, atol=0.05)


def test_a_step_that_loses_waiting_gradients_is_an_error() -> None:
    model = network()
    accumulate(model, images(1), [True])
    with torch.no_grad():
        model.bank.values.mul_(2)
    with pytest.raises(RuntimeError, match=r"and these are lost: run the last forward and backward .* outside"):
        model(images()[0])
    fresh = network()
    with torch.no_grad():
        fresh.bank.values.mul_(2)
    assert_close(accumulate(model, images(2), [True, False]), accumulate(fresh, images(2), [False, False]))


def test_copies_do_not_share_what_waits() -> None:
    model = network()
    accumulate(model, images(1), [True])
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_close(accumulate(twin, images(2), [False, False]), accumulate(network(), images(2), [False, False]))
    with defer_gradients(model):
        assert copy.deepcopy(model).bank.deferral.on is False


# ---- nothing kept


def both(**options: Any) -> tuple[Net, Net]:
    return network(**options), network(regenerate=True, **options)


@pytest.mark.parametrize(
    "options", [{}, {"block": 16, "size": 96}, {"gradient": "balanced"}, {"scope": "layer"}, {"size": 1000}]
)
def test_regenerating_changes_nothing_but_memory(options: dict[str, Any]) -> None:
    kept, dropped = both(**options)
    x = images()[0]
    with Calls() as calls:
        output = dropped(x)
    assert all(memory.expired() for memory in calls.generated)
    assert len(calls.generated) == 3
    assert torch.equal(output, kept(x))
    with Calls() as calls:
        output.square().sum().backward()
    assert len(calls.generated) == 3
    assert calls.folds == sum(isinstance(module, Bank) for module in kept.modules())
    kept.zero_grad()
    kept(x).square().sum().backward()
    assert_close(gradients(dropped), gradients(kept))
    assert torch.equal(bake(copy.deepcopy(dropped))(x), output)


def test_without_gradients_weights_are_kept_as_ever() -> None:
    model = network(regenerate=True)
    with Calls() as calls, torch.no_grad():
        model(images()[0])
        model(images()[0])
    assert len(calls.generated) == 1


@pytest.mark.parametrize("channels_last", [False, True])
def test_regenerating_under_autocast(channels_last: bool) -> None:
    kept, dropped = both(dtype=torch.float32)
    x = images(dtype=torch.float32)[0]
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for model in (kept, dropped):
        with torch.autocast("cpu", torch.bfloat16), Calls() as calls:
            output = model(x)
        assert all(memory.expired() for memory in calls.generated) == (model is dropped)
        output.float().square().sum().backward()
    assert_close(gradients(dropped), gradients(kept))


def test_regenerating_under_activation_checkpoints() -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(super().forward, x, use_reentrant=False)

    results = []
    for regenerate in (False, True):
        torch.manual_seed(0)
        model = Checkpointed().double()
        convert(model, 100, regenerate=regenerate)
        model(images()[0]).square().sum().backward()
        results.append(gradients(model))
    assert_close(*results)


def test_second_derivatives_of_regenerated_weights() -> None:
    results = []
    for model in both():
        x = images()[0].requires_grad_()
        (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        slope.square().sum().backward()
        results.append(gradients(model))
    assert_close(*results)


def test_gradcheck_through_regenerated_weights() -> None:
    model = network(20, regenerate=True)
    x = images()[0][:1, :, :3, :3]

    def output(values: Tensor) -> Tensor:
        with torch.no_grad():
            model.bank.values.copy_(values)
        (gradient,) = torch.autograd.grad(model(x).square().sum(), model.bank.values)
        return gradient

    values = model.bank.values.detach().clone()
    slope = output(values)
    for entry in range(0, 20, 7):
        change = torch.zeros(20, dtype=torch.float64)
        change[entry] = 1e-6
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                model.bank.values.copy_(values + sign * change)
                losses.append(model(x).square().sum())
        torch.testing.assert_close((losses[0] - losses[1]) / 2e-6, slope[entry], rtol=1e-6, atol=1e-8)


def test_a_bank_that_changes_before_the_backward_is_an_error() -> None:
    model = network(regenerate=True)
    loss = model(images()[0]).square().sum()
    model.bank.values.detach().mul_(2)
    with pytest.raises(RuntimeError, match="values changed between a forward and its backward"):
        loss.backward()


@pytest.mark.parametrize("regenerate", [False, True])
def test_parameters_of_a_functional_call(regenerate: bool) -> None:
    model, twin = network(regenerate=regenerate), network()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    own = {name: (p.detach() * 1.5).requires_grad_() for name, p in model.named_parameters()}
    functional_call(model, own, (images()[0],)).square().sum().backward()
    twin(images()[0]).square().sum().backward()
    assert_close({name: p.grad for name, p in own.items() if p.grad is not None}, gradients(twin))
    assert model.bank.values.grad is None


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_models_ignore_regeneration() -> None:
    torch._dynamo.reset()
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(*[nn.Linear(16, 16) for _ in range(9)])
        convert(model, "50%", regenerate=True)
        run = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        x = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
        for _ in range(2):
            run(x).sum().backward()
        model.eval()
        with torch.no_grad():
            results.append((run(x), model(x), model.bank.values.grad.clone()))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second)


def test_a_weight_that_is_read_outside_of_its_layer() -> None:
    kept, dropped = both()
    for model in (kept, dropped):
        model.zero_grad()
        (model(images()[0]).square().sum() + model.a.weight.square().sum()).backward()
    assert_close(gradients(dropped), gradients(kept))


def test_regenerating_banks_ignore_deferring() -> None:
    contexts: list[AbstractContextManager[None]] = []
    model = network(regenerate=True)
    contexts.append(defer_gradients(model))
    with contexts[0]:
        model(images()[0]).square().sum().backward()
    assert_close(gradients(model), accumulate(network(), images(1), [False]))
