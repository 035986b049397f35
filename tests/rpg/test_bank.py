"""When a bank generates, what it keeps, and which mistakes it reports."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from rpgmt import Bank, RPGLinear, bake, convert, report


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.c = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))


def network(size: int = 100, **options: Any) -> Net:
    torch.manual_seed(0)
    model = Net()
    convert(model, size, **options)
    return model


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def twin_output(model: nn.Module, x: Tensor = X) -> Tensor:
    """What a freshly baked copy gives."""
    with torch.no_grad():
        return bake(copy.deepcopy(model))(x)


def gradients(model: nn.Module, run: Callable[[], Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    run().square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class Count(TorchDispatchMode):
    """Counts the calls of the two operators."""

    def __init__(self) -> None:
        super().__init__()
        self.generate = self.fold = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.generate += func is torch.ops.rpgmt.generate.default
        self.fold += func is torch.ops.rpgmt.fold.default
        return func(*args, **(kwargs or {}))


def test_a_training_step_generates_once_and_folds_once() -> None:
    model = network()
    for _ in range(2):
        with Count() as count:
            model(X).sum().backward()
        assert (count.generate, count.fold) == (1, 1)
        assert model.bank._weights.now.kept is model.bank._weights.shared is None  # dropped with the forward


def test_counting_and_printing_generate_nothing() -> None:
    with Count() as count:
        model = network()
        report(model)
        repr(model)
        model.state_dict()
    assert count.generate == 0


def _step(model: Net) -> None:
    model.bank.values.grad = torch.ones_like(model.bank.values)
    torch.optim.SGD([model.bank.values], lr=0.1).step()


CHANGES: dict[str, Callable[[Net], object]] = {
    "an optimizer step": _step,
    "a change in place": lambda m: m.bank.values.detach().mul_(2),
    "a change past the version counter": lambda m: m.bank.values.data.mul_(2),
    "another storage": lambda m: setattr(m.bank.values, "data", m.bank.values.data * 2),
    "load_state_dict": lambda m: m.load_state_dict({k: v if "_extra" in k else v * 2 for k, v in m.state_dict().items()}),
    "load_state_dict with assign": lambda m: m.load_state_dict(
        {k: v if "_extra" in k else v * 2 for k, v in m.state_dict().items()}, assign=True
    ),
    "another parameter": lambda m: setattr(m.bank, "values", nn.Parameter(m.bank.values.detach() * 2)),
    "vector_to_parameters": lambda m: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(m.parameters()).detach() * 2, m.parameters()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_weights_are_kept_until_the_bank_changes(change: str, mode: Callable[[], Any]) -> None:
    model = network()
    with Count() as count:
        for _ in range(3):
            with mode():
                before = model(X)
    assert count.generate == 1
    CHANGES[change](model)
    with Count() as count:
        for _ in range(2):
            with mode():
                after = model(X)
    assert count.generate == 1
    assert not torch.equal(before, after)
    assert torch.equal(after, twin_output(model))


def test_another_type_is_generated_anew() -> None:
    model = network()
    with torch.no_grad():
        model(X)
        model.double()
        assert torch.equal(model(X.double()), twin_output(model, X.double()))
        model.bfloat16()
        assert torch.equal(model(X.bfloat16()), twin_output(model, X.bfloat16()))
    model.half()
    assert model.a.weight.dtype == torch.float16


def test_evaluation_and_training_in_any_order() -> None:
    model = network()
    expected = gradients(model, lambda: model(X))
    with torch.inference_mode():
        first = model(X)
    with torch.no_grad():
        second = model(X)
    assert torch.equal(first, second)
    for name, gradient in gradients(model, lambda: model(X)).items():
        assert torch.equal(gradient, expected[name])
    _step(model)
    with torch.inference_mode():
        assert torch.equal(model(X), twin_output(model))
    with torch.no_grad():
        assert torch.equal(model(X), twin_output(model))


def test_a_model_born_in_inference_mode_runs() -> None:
    with torch.inference_mode():
        model = network()
        before = model(X)
        model.bank.values.mul_(2)
        assert not torch.equal(model(X), before)


# ---- uses outside the root's plain forward give the same gradients


def outside(model: Net) -> Tensor:
    return model.c(F.relu(model.b(F.relu(model.a(X)))).mean((2, 3)))


def with_checkpoints(model: Net) -> Tensor:
    class Checkpointed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(checkpoint(model.a, x, use_reentrant=False))
            return model.c(F.relu(checkpoint(model.b, x, use_reentrant=False)).mean((2, 3)))

    wrapper = Checkpointed()
    bank = model.bank
    del model.bank
    wrapper.bank = bank
    try:
        return wrapper(X)
    finally:
        del wrapper.bank
        model.bank = bank


WAYS: dict[str, Callable[[Net], Tensor]] = {
    "layer by layer": outside,
    "checkpointed root": lambda m: checkpoint(m, X, use_reentrant=False),
    "checkpointed layers": with_checkpoints,
    "functional_call": lambda m: functional_call(m, dict(m.named_parameters()), (X,)),
    "double forward": lambda m: (m(X) + m(X)) / 2,
    "a layer before and after": lambda m: m(X) + 0 * m.a(X).sum(),
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("gradient", ["exact", "balanced"])
@pytest.mark.parametrize("way", WAYS)
def test_gradients_do_not_depend_on_how_the_layers_are_called(way: str, gradient: str) -> None:
    model = network(gradient=gradient)
    expected = gradients(model, lambda: model(X))
    assert expected["bank.values"].abs().max() > 0
    for _ in range(2):
        for name, value in gradients(model, lambda: WAYS[way](model)).items():
            torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("gradient", ["exact", "balanced"])
def test_accumulated_gradients_outside_of_the_root(gradient: str) -> None:
    model = network(gradient=gradient)
    model.zero_grad()
    for _ in range(3):
        outside(model).square().sum().backward()
    total = model.bank.values.grad.clone()
    torch.testing.assert_close(total, 3 * gradients(model, lambda: model(X))["bank.values"])


def test_a_root_that_calls_itself_and_one_without_gradients_inside() -> None:
    class Recursive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor, depth: int = 0) -> Tensor:
            y = self.net(x)
            with torch.no_grad():
                target = self.net(x)
            inner = self(x, depth - 1) if depth else 0
            return y + self.net(x) - target + inner

    torch.manual_seed(0)
    model = Recursive()
    convert(model, 100)
    simple = gradients(model, lambda: 2 * (model.net(X)) - model.net(X).detach())
    for name, value in gradients(model, lambda: model(X)).items():
        torch.testing.assert_close(value, simple[name])
    nested = gradients(model, lambda: model(X, 1))
    for name, value in gradients(model, lambda: model(X) + model(X)).items():
        torch.testing.assert_close(value, nested[name])


def test_two_roots_in_one_step() -> None:
    first, second = network(), network(50, seed=3)
    expected = gradients(first, lambda: first(X) + second(X).detach())
    second.zero_grad()
    both = gradients(first, lambda: first(X) + second(X))
    for name, value in both.items():
        assert torch.equal(value, expected[name])
    assert second.bank.values.grad.abs().max() > 0


def test_functional_call_sees_the_values_that_it_is_given() -> None:
    model = network()
    values = model.bank.values.detach()
    with torch.no_grad():
        for factor in (1.0, 2.0, 3.0):  # a freed tensor's address comes back
            output = functional_call(model, {"bank.values": values * factor}, (X,))
            other = copy.deepcopy(model)
            other.bank.values.mul_(factor)
            assert torch.equal(output, twin_output(other))
    given = (values * 2).requires_grad_()
    functional_call(model, {"bank.values": given}, (X,)).sum().backward()
    assert given.grad.abs().max() > 0
    assert model.bank.values.grad is None


def test_an_error_in_forward_leaves_no_trace() -> None:
    model = network()
    expected = gradients(model, lambda: model(X))
    with pytest.raises(RuntimeError, match="channels"):
        model(torch.randn(1, 5, 6, 6))
    assert model.bank._weights.now.kept is model.bank._weights.shared is None
    for name, value in gradients(model, lambda: model(X)).items():
        assert torch.equal(value, expected[name])


def test_a_forward_that_switches_gradients_off_for_good() -> None:
    class Careless(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            torch.set_grad_enabled(False)
            return y

    torch.manual_seed(0)
    model = Careless()
    convert(model, 100)
    try:
        model(X)
    finally:
        torch.set_grad_enabled(True)
    assert torch.equal(model.a.weight.detach(), bake(copy.deepcopy(model)).a.weight.detach())


def test_a_frozen_bank_trains_the_rest() -> None:
    model = network()
    model.bank.requires_grad_(False)
    with Count() as count:
        for _ in range(2):
            names = set(gradients(model, lambda: model(X)))
    assert names == {"a.bias", "b.bias", "c.bias"}
    assert count.generate == 1


def test_the_meta_device() -> None:
    model = network().to("meta")
    assert model(X.to("meta")).shape == (2, 4)
    with torch.no_grad():
        assert model(X.to("meta")).shape == model(X.to("meta")).shape == (2, 4)


def test_double_backward_through_a_network() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    convert(model, 7)
    x = torch.randn(2, 3, dtype=torch.float64)

    def run(values: Tensor) -> Tensor:
        return functional_call(model, {"bank.values": values}, (x,))

    assert torch.autograd.gradgradcheck(run, (model.bank.values.detach().clone().requires_grad_(),))


# ---- mistakes


def test_copying_a_part_without_its_bank() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="a part of a model was copied without its bank") as error:
        copy.deepcopy(model.a)
    assert "\n" not in str(error.value)
    assert isinstance(copy.deepcopy(bake(model).a), nn.Conv2d)


def test_assigning_a_generated_weight() -> None:
    model = network()
    for value in (nn.Parameter(torch.zeros(6, 3, 3, 3)), torch.zeros(6, 3, 3, 3), None):
        with pytest.raises(RuntimeError, match="the generated weight of `a`, a RPGConv2d, cannot be assigned: "):
            model.a.weight = value
    with pytest.warns(UserWarning, match="the `state_dict` of a RPGConv2d lacks its generated weights"):
        assert list(model.a.state_dict()) == ["bias"]


def test_initialising_a_generated_weight_again() -> None:
    model = network()
    with pytest.raises(RuntimeError, match="cannot be initialised again"):
        model.a.reset_parameters()
    with pytest.raises(RuntimeError, match="the generated weight of `a`, a RPGConv2d, cannot be changed in place"):
        nn.init.normal_(model.a.weight)


def test_changing_a_generated_weight_inside_the_forward() -> None:
    class Careless(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.a.weight.mul_(2)
            return super().forward(x)

    model = Careless()
    convert(model, 100)
    for mode in (torch.enable_grad, torch.no_grad):
        with mode(), pytest.raises(RuntimeError, match="a generated weight was changed in place"):
            model(X)


def test_training_with_an_unregistered_bank() -> None:
    bank = Bank(10)
    layer = RPGLinear(3, 4, bank=bank)
    with pytest.raises(RuntimeError, match="a bank of 10 entries would train unseen by the optimizer"):
        layer(torch.ones(1, 3))
    with torch.no_grad():
        assert layer(torch.ones(1, 3)).shape == (1, 4)
    bank.requires_grad_(False)
    layer(torch.ones(1, 3)).sum().backward()
    model = network()
    del model.bank
    with pytest.raises(RuntimeError, match="would train unseen"):
        model(X)


def test_a_bank_is_registered_once() -> None:
    model = network()
    with pytest.raises(ValueError, match="registered on another module already"):
        nn.Module().bank = model.bank
    with pytest.raises(ValueError, match="put under the name `again` too"):
        model.again = model.bank
    model.bank = model.bank  # the same place is no second one
    assert list(model.state_dict()).count("bank.values") == 1
    with Count() as count:
        model(X)
    assert count.generate == 1


@pytest.mark.parametrize("container", [nn.ModuleList, lambda banks: nn.ModuleDict({"x": banks[0]})])
def test_a_bank_in_a_container_without_a_forward(container: Callable[[list[Bank]], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"a bank was put into an? Module(List|Dict): make it an attribute"):
        container([Bank(3)])


def test_a_bank_that_moves_to_another_root() -> None:
    inner = network()
    bank = inner.bank
    del inner.bank
    outer = nn.Sequential(inner)
    outer.bank = bank
    with Count() as count:
        outer[0](X)  # outside of the root's forward
    assert count.generate == 1
    with Count() as count:
        outer(X).sum().backward()
    assert (count.generate, count.fold) == (1, 1)
    assert not inner._forward_pre_hooks


def test_report_of_a_part() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3)))
    convert(model, 4)
    with pytest.raises(ValueError, match="`0` draws on a bank that is not part of the Sequential: give the root"):
        report(model[1])
