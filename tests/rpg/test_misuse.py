"""What users do to converted models as to plain ones, where the bank makes a difference: it works, or says what to do."""

from __future__ import annotations

import copy
import functools
import gc
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, grad, jacfwd, jacrev, vmap
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from rpgmt import Bank, RPGLinear, bake, convert, parameter_groups, report
from rpgmt.rpg import old_optimizers, untrained_banks

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


def chain(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))
    convert(model, "50%", **options)
    return model


class Net(nn.Module):
    """A root with a body and a head by name."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8, bias=False), nn.LayerNorm(8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def net(**options: Any) -> Net:
    torch.manual_seed(0)
    model = Net()
    convert(model, "50%", **options)
    return model


def bank_moves(model: nn.Module, bank: Bank, parameters: Any = None) -> bool:
    before = bank.values.detach().clone()
    optimizer = torch.optim.SGD(model.parameters() if parameters is None else parameters, lr=0.1)
    model(X).square().sum().backward()
    optimizer.step()
    return not torch.equal(before, bank.values)


# ---- the bank is not counted


def test_a_sequential_counts_indexes_and_slices_as_before() -> None:
    model = chain()
    layers = list(model)
    assert len(model) == 4
    assert [name for name, _ in model.named_children()] == ["0", "1", "2", "3"]
    assert all(model[i] is layers[i] and model[i - 4] is layers[i] for i in range(4))
    assert isinstance(model[-1], nn.Linear)
    assert [list(model[part]) for part in (slice(2), slice(-1), slice(None, None, 2))] == [
        layers[:2],
        layers[:-1],
        layers[::2],
    ]
    y = model(X).detach()
    model.append(nn.ReLU()).insert(0, nn.Identity()).extend([nn.Identity()])
    assert [type(layer).__name__ for layer in model[:2]] == ["Identity", "RPGLinear"]
    assert torch.equal(model(X), y.relu())
    assert isinstance(model.pop(-1), nn.Identity)
    del model[0]
    model[-1] = nn.Identity()
    assert torch.equal(model(X), y)
    assert len(model) == 5
    assert [name for name in model.state_dict() if "values" in name] == ["0.bank.values"]
    assert bank_moves(model, model.bank)


class Listed(nn.ModuleList):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


class Named(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = layer(x)
        return x


@pytest.mark.parametrize("kind", [Listed, Named])
def test_lists_and_dicts_with_a_forward_are_roots(kind: type[nn.Module]) -> None:
    layers = [nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)]
    model = kind(layers if kind is Listed else dict(zip("abc", layers, strict=True)))  # type: ignore[call-arg]
    convert(model, "50%")
    assert list(model.children()) == layers
    assert len(model) == 3  # type: ignore[arg-type]
    y = model(X)
    assert bank_moves(model, model.bank)
    assert not torch.equal(model(X), y)
    with torch.no_grad():
        assert torch.equal(model(X), bake(copy.deepcopy(model))(X))


def test_the_bank_goes_with_the_first_layer_that_is_there_once() -> None:
    shared = nn.Linear(8, 8)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(8, 8))
    convert(model, "50%")
    assert [name for name in model.state_dict() if "values" in name] == ["3.bank.values"]


def test_states_that_were_saved_with_the_bank_as_a_child_of_the_root_are_read() -> None:
    model, other = chain(), chain(seed=0)
    bank_moves(model, model.bank)
    old = {name.replace("0.bank.", "bank."): tensor for name, tensor in model.state_dict().items()}
    assert "bank.values" in old
    other.load_state_dict(old)
    outer = nn.ModuleDict({"inner": copy.deepcopy(other).requires_grad_(True)})
    nn.init.zeros_(outer["inner"].bank.values)
    outer.load_state_dict({f"inner.{name}": tensor for name, tensor in old.items()})
    with torch.no_grad():
        assert torch.equal(other(X), model(X))
        assert torch.equal(outer["inner"](X), model(X))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({name: tensor for name, tensor in old.items() if "values" not in name})


# ---- parts without their bank


def test_a_part_that_holds_the_bank_trains_and_bakes_with_its_root() -> None:
    for take in (lambda m: nn.Sequential(*list(m.children())[:-1]), lambda m: m[:-1], lambda m: nn.Sequential(m[:2], m[2])):
        model = chain()
        part = take(model)
        expected = model[2](model[1](model[0](X))).detach()
        assert torch.equal(part(X), expected)
        assert bank_moves(part, model.bank, parameter_groups(part, "sgd", 0.1))
        model[0] = nn.Identity()  # the root has lost the bank, and the part has it
        assert bank_moves(part, part.get_submodule("0.0" if isinstance(part[0], nn.Sequential) else "0").bank)
    with pytest.raises(RuntimeError, match="a bank of 76 entries would train unseen by the optimizer: it is not registered on"):
        model(X)


PARTS: dict[str, Callable[[], nn.Module]] = {
    "a slice": lambda: chain()[2:],
    "a named part": lambda: nn.Sequential(net().body, nn.Linear(8, 2)),
    "children by position": lambda: nn.Sequential(*list(net().children())[:-1]),
    "a layer in a list": lambda: nn.Sequential(nn.ModuleList([net().head])[0]),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.filterwarnings("error")
def test_a_part_without_its_bank_is_refused_with_gradients_and_runs_without(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = []  # kept, as by who takes them apart
    made = Net.__init__
    monkeypatch.setattr(Net, "__init__", lambda self: (made(self), roots.append(self))[0])
    model = PARTS[part]()
    for _ in range(2):
        with pytest.raises(
            RuntimeError, match=r"^`[02](\.0)?` of a Sequential runs with gradients and without its bank"
        ) as error:
            model(X)
        assert "\n" not in str(error.value)
        with torch.no_grad():
            assert model(X).isfinite().all()
    for parameter in model.parameters():
        assert parameter.grad is None


def test_what_looks_alike_and_is_right_stays_so() -> None:
    model = net()

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.top = model, nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            features = checkpoint(self.inner.body, x, use_reentrant=False)
            return self.top(self.inner.head(features))

    class Loss(nn.Module):  # that holds no layer of the model
        def forward(self, x: Tensor) -> Tensor:
            return model.body(x).square().sum()

    wrapper = Wrapper()
    assert bank_moves(wrapper, model.bank)
    model.body(X).sum().backward()  # a part by itself
    model.body[0](X).sum().backward()
    Loss()(X).backward()
    checkpoint(model, X, use_reentrant=False).sum().backward()
    parallel = nn.Sequential(model)  # as those who wrap do
    assert bank_moves(parallel, model.bank)


@pytest.mark.filterwarnings("error")
def test_the_state_of_a_part_without_its_bank_is_told_of_once() -> None:
    for take in (lambda m: m.body, lambda m: m.head, lambda m: nn.Sequential(m.body)):
        model = net()
        part = take(model)
        with pytest.warns(
            UserWarning, match=r"^the `state_dict` of a \w+ lacks its generated weights.*of the Net.*bake"
        ) as notes:
            part.state_dict()
        assert len(notes) == 1
        assert "\n" not in str(notes[0].message)
        part.state_dict()
    model, sequential = net(), chain()
    for whole in (model, nn.Sequential(model), copy.deepcopy(model), bake(net()).body, sequential, sequential[:2]):
        whole.state_dict()
        whole.state_dict(prefix="module.", keep_vars=True)
    torch.optim.swa_utils.AveragedModel(model).state_dict()


# ---- written weights

WRITES: dict[str, Callable[[Any], object]] = {
    "data.normal_": lambda layer: layer.weight.data.normal_(),
    "data +=": lambda layer: layer.weight.data.__iadd__(1.0),
    "data.copy_": lambda layer: layer.weight.data.copy_(torch.zeros(8, 8)),
    "data =": lambda layer: setattr(layer.weight, "data", torch.zeros(8, 8)),
    "data[0] =": lambda layer: layer.weight.data.__setitem__(0, 1.0),
    "detach().mul_": lambda layer: layer.weight.detach().mul_(2),
    "a view": lambda layer: layer.weight.data.view(-1)[3:].zero_(),
    "split": lambda layer: layer.weight.data.chunk(2)[1].fill_(1.0),
    "add_": lambda layer: layer.weight.add_(1.0),
    "nn.init": lambda layer: nn.init.xavier_uniform_(layer.weight),
    "out=": lambda layer: torch.add(torch.ones(8, 8), 1.0, out=layer.weight.data),
    "_foreach": lambda layer: torch._foreach_mul_([layer.weight.data], 2.0),
    "requires_grad": lambda layer: layer.weight.data.requires_grad_(False),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("write", WRITES)
def test_writing_to_a_generated_weight_is_refused_in_every_mode(write: str, mode: Callable[[], Any]) -> None:
    model = chain()
    with torch.no_grad():
        y = model(X)
    with mode(), pytest.raises(RuntimeError, match=r"^the generated weight of `2`, a RPGLinear, cannot be ") as error:
        WRITES[write](model[2])
    assert "\n" not in str(error.value)
    assert "rpgmt.bake" in str(error.value)
    with torch.no_grad():
        assert torch.equal(model(X), y)


def test_a_generated_weight_reads_like_a_tensor() -> None:
    model = chain()
    plain = bake(copy.deepcopy(model))[2].weight
    weight = model[2].weight
    assert torch.equal(weight, plain)
    assert torch.equal(weight.data.clone().mul_(2), 2 * plain.data)
    target = torch.zeros(8, 8)
    target.copy_(weight.data).add_(weight.data)
    assert torch.equal(target, 2 * plain)
    assert type(weight + 1) is type(torch.cat([weight, weight])) is Tensor
    assert repr(weight.data) == repr(plain.data)
    assert torch.equal(copy.deepcopy(weight.data), plain)
    assert weight.norm().item() == plain.norm().item()
    assert torch.equal(nn.functional.linear(X, weight), nn.functional.linear(X, plain))
    weight.square().sum().backward()
    assert model.bank.values.grad.abs().max() > 0


def test_what_is_written_behind_its_back_is_told_before_it_is_copied_or_saved() -> None:
    class Careless(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.body[0].weight
            return super().forward(x)

    torch.manual_seed(0)
    model = Careless()
    convert(model, "50%")
    for look in (copy.deepcopy, lambda m: m.state_dict(), lambda m: m(X), lambda m: m.head.weight):
        with torch.no_grad():
            model(X)
            model.kept.mul_(2)
            with pytest.raises(RuntimeError, match=r"was changed in place, that of `body\.0`, which the next generation"):
                look(model)
        del model.kept


# ---- convert checks everything before it changes anything


def _scope(name: str) -> str:
    if name == "2":
        raise KeyError(name)
    return name


REFUSED: dict[str, tuple[Callable[[nn.Sequential], object], dict[str, Any]]] = {
    "lazy": (lambda m: m.append(nn.LazyLinear(4)), {}),
    "lazy and excluded": (lambda m: m.append(nn.LazyConv2d(4, 3)), {"exclude": ["4"]}),
    "lazy norm": (lambda m: m.append(nn.LazyBatchNorm1d()), {}),
    "meta": (lambda m: m.append(nn.Linear(3, 3, device="meta")), {}),
    "not finite": (lambda m: m[3].weight.data.fill_(float("nan")), {}),
    "types": (lambda m: m[3].double(), {"scope": lambda name: "a" if name == "0" else "b"}),
    "a lost bank": (lambda m: m.append(RPGLinear(3, 3, bank=Bank(4))), {}),
    "size": (lambda m: None, {"size": 0}),
    "size of many": (lambda m: None, {"size": 2, "scope": lambda name: name}),
    "too large": (lambda m: None, {"size": 2**31}),
    "gradient": (lambda m: None, {"gradient": "none"}),
    "init": (lambda m: None, {"init": "none"}),
    "block": (lambda m: None, {"block": 0}),
    "seed": (lambda m: None, {"seed": -1}),
    "scope": (lambda m: None, {"scope": "stage"}),
    "a scope that fails": (lambda m: None, {"scope": _scope}),
    "include": (lambda m: None, {"include": ["x"]}),
    "nothing left": (lambda m: None, {"exclude": ["*"]}),
    "a note that is an error": (lambda m: None, {"size": "3"}),
}


def shape_of(model: nn.Module) -> list[Any]:
    """All that a conversion may change."""
    return [
        (name, type(m), sorted(m.__dict__), [*m._modules], len(m._forward_pre_hooks), len(m._load_state_dict_pre_hooks))
        for name, m in model.named_modules()
    ]


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_conversion_leaves_the_model_as_it_was(case: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 8), nn.Linear(8, 3))
    break_it, options = REFUSED[case]
    break_it(model)
    before = shape_of(model)
    parameters = dict(model.named_parameters())
    values = {name: p.detach().clone() for name, p in parameters.items() if not isinstance(p, nn.UninitializedParameter)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, KeyError, UserWarning)) as error:
            convert(model, **{"size": "50%", **options})
    assert "\n" not in str(error.value)
    assert shape_of(model) == before
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    for name, value in values.items():
        assert parameters[name].is_meta or torch.equal(parameters[name].nan_to_num(9), value.nan_to_num(9))


# ---- threads


def test_what_a_traced_or_parametrized_model_cannot_do_is_refused_before_anything_is_changed() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with pytest.raises(ValueError, match="is a traced GraphModule, whose copies would lose the bank: convert before it is"):
        convert(fx.symbolic_trace(model), "50%")
    convert(model, "50%")
    x = torch.randn(3, 8)
    nn.utils.parametrize.register_parametrization(model[0], "bias", nn.Tanh())
    before = model(x)
    with pytest.raises(RuntimeError, match="`0` has a parametrization: take it off by `remove_parametrizations`, then bake"):
        bake(model)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("options", [{}, {"regenerate": True}, {"gradient": "balanced"}])
def test_threads_run_one_model(options: dict[str, Any]) -> None:
    model = chain(**options).eval()
    modes = [torch.enable_grad, torch.no_grad, torch.enable_grad, torch.inference_mode]
    expected = bake(copy.deepcopy(model))(X).detach()
    failures: list[object] = []

    def serve(mode: Callable[[], Any]) -> None:
        try:
            for _ in range(40):
                with mode():
                    y = model(X)
                if not torch.equal(y, expected):
                    failures.append(y)
                if y.requires_grad and torch.autograd.grad(y.sum(), model.bank.values)[0].abs().max() == 0:
                    failures.append("no gradient")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=serve, args=(mode,)) for mode in modes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- transforms and tracers


def both(options: dict[str, Any]) -> tuple[nn.Module, dict[str, Tensor], Callable[[dict[str, Tensor], Tensor], Tensor]]:
    model = chain(**options).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    return model, parameters, lambda p, x: functional_call(model, p, (x[None],)).square().sum()


@pytest.mark.parametrize("options", [{}, {"gradient": "balanced"}, {"regenerate": True}])
def test_gradients_of_each_sample(options: dict[str, Any]) -> None:
    model, parameters, loss = both(options)
    x = X.double()
    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for i, sample in enumerate(x):
        model.zero_grad()
        loss(dict(model.named_parameters()), sample).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(each[name][i], parameter.grad)
    assert model.bank._weights.now.kept is None
    values = torch.stack([parameters["0.bank.values"], 2 * parameters["0.bank.values"]])  # an ensemble of banks
    several = vmap(lambda v: loss({**parameters, "0.bank.values": v}, x[0]))(values)
    torch.testing.assert_close(several[0], loss(parameters, x[0]))


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:FutureWarning")  # torch's own, of forward mode
def test_forward_mode_and_second_derivatives() -> None:
    _, parameters, loss = both({})
    x = X.double()[0]

    def of_bank(values: Tensor) -> Tensor:
        return loss({**parameters, "0.bank.values": values}, x)

    values = parameters["0.bank.values"]
    torch.testing.assert_close(jacfwd(of_bank)(values), grad(of_bank)(values))
    torch.testing.assert_close(jacfwd(grad(of_bank))(values), jacrev(grad(of_bank))(values))


TOOLS: dict[str, Callable[[nn.Sequential], object]] = {
    "jit.trace": lambda m: torch.jit.trace(m, X),
    "jit.trace of a part": lambda m: torch.jit.trace(m[2], X),
    "jit.script": torch.jit.script,
    "fx": fx.symbolic_trace,
    "fx of a whole": lambda m: fx.symbolic_trace(nn.Sequential(m)),
    "weight_norm": lambda m: nn.utils.weight_norm(m[2]),
    "spectral_norm": lambda m: nn.utils.spectral_norm(m[2]),
    "prune": lambda m: prune.l1_unstructured(m[2], "weight", 0.5),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.filterwarnings("ignore:.*torch.* is deprecated:FutureWarning")
def test_what_cannot_work_says_to_bake_first(tool: str, mode: Callable[[], Any]) -> None:
    model = chain()
    before = shape_of(model)
    with mode(), pytest.raises(RuntimeError, match=r"call `rpgmt\.bake\(model\)` first$") as error:
        TOOLS[tool](model)
    assert "\n" not in str(error.value)
    assert shape_of(model) == before
    assert bank_moves(model, model.bank)


# ---- frozen too late, optimizers made too early


@pytest.mark.filterwarnings("error")
def test_parts_that_are_frozen_after_the_conversion_are_told_of_once() -> None:
    for part, name in (("head", "head"), ("body", "body")):  # with parameters of its own, and without
        model = net()
        model(X)
        model.get_submodule(part).requires_grad_(False)
        with pytest.warns(UserWarning, match=f"^`{name}` of the Net is frozen, but generated weights are not its") as notes:
            model(X)
        assert len(notes) == 1
        assert "\n" not in str(notes[0].message)
        model(X)
    model = copy.deepcopy(net())
    model.head.requires_grad_(False)
    with pytest.warns(UserWarning, match="`head` of the Net is frozen"):
        model(X)


@pytest.mark.filterwarnings("error")
def test_freezing_the_layer_that_holds_the_bank_is_told_of() -> None:
    model = chain()
    model[0].requires_grad_(False)
    with pytest.warns(UserWarning, match="^`0` of the Sequential is frozen, and the bank in it"):
        model(X)
    model(X)
    model = chain()
    model.bank.requires_grad_(False)  # the bank alone: on purpose
    model(X)


@pytest.mark.filterwarnings("error")
def test_what_was_frozen_before_is_left_and_no_cause() -> None:
    torch.manual_seed(0)
    model = Net()
    model.body.requires_grad_(False)
    model.head.bias.requires_grad_(False)
    left = convert(model, "50%").left
    assert left["body.0"] == "its weight is frozen"
    assert bank_moves(model, model.bank)
    model.requires_grad_(False)  # all of it, for evaluation
    model(X)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("has_gradients", [False, True])
def test_an_optimizer_that_was_made_before_the_conversion_is_told_of_once(has_gradients: bool) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if has_gradients:
        model(X).sum().backward()
    convert(model, "50%")
    model(X).sum().backward()
    with pytest.warns(UserWarning, match="^the SGD steps weights that `rpgmt.convert` took out of the Net, and not") as notes:
        optimizer.step()
    assert len(notes) == 1
    assert "\n" not in str(notes[0].message)
    for _ in range(3):
        optimizer.step()  # and nothing else is noted
    assert not old_optimizers._watches


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("has_gradients", [False, True])
def test_an_optimizer_that_was_made_before_bake_is_told_of_once(has_gradients: bool) -> None:
    model = net()
    optimizer = torch.optim.SGD(parameter_groups(model, "sgd", 0.1))
    if has_gradients:
        model(X).sum().backward()
        optimizer.step()
    bake(model)
    model(X).sum().backward()
    with pytest.warns(UserWarning, match="^the SGD steps a bank that `rpgmt.bake` took out of the Net, and not its") as notes:
        optimizer.step()
    assert len(notes) == 1
    assert "\n" not in str(notes[0].message)
    optimizer.step()
    later = torch.optim.SGD(bake(net()).parameters(), lr=0.1)
    frozen = net()
    frozen.bank.requires_grad_(False)
    biases = torch.optim.SGD(frozen.parameters(), lr=0.1)
    for right, trained in ((later, None), (biases, bake(frozen))):
        if trained is not None:
            trained(X).sum().backward()
        right.step()


@pytest.mark.filterwarnings("error")
def test_optimizers_that_do_right_are_not() -> None:
    model = net()
    assert not old_optimizers._watches  # nobody held what was replaced
    first = Net()
    shared = first.head.weight  # kept on purpose, and trained elsewhere
    convert(first, "50%", include=["head"])
    other = torch.optim.SGD([shared], lr=0.1)
    shared.sum().backward()
    other.step()
    assert bank_moves(first, first.bank)
    late = Net()
    optimizer = torch.optim.SGD(late.parameters(), lr=0.1)
    convert(late, "50%")
    optimizer.add_param_group({"params": [late.bank.values]})
    late(X).sum().backward()
    optimizer.step()
    assert len(old_optimizers._watches) == 2
    del shared, other, optimizer
    gc.collect()
    assert bank_moves(model, model.bank)
    assert not old_optimizers._watches  # gone with the weights


SGD = functools.partial(torch.optim.SGD, lr=0.01)

WITHOUT_THE_BANK: dict[str, Callable[[Net], list[torch.optim.Optimizer]]] = {
    "groups by part": lambda m: [SGD([{"params": m.body.parameters()}, {"params": m.head.parameters()}])],
    "by name": lambda m: [SGD([p for name, p in m.named_parameters() if name.endswith(("weight", "bias"))])],
    "two": lambda m: [SGD(m.body.parameters()), SGD(m.head.parameters())],
    "norms": lambda m: [SGD(m.body.parameters())],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", WITHOUT_THE_BANK)
def test_optimizers_without_the_bank_are_told_of_once(case: str) -> None:
    model = copy.deepcopy(net())
    optimizers = WITHOUT_THE_BANK[case](model)
    told = []
    for _ in range(4):
        model(X).square().sum().backward()
        for optimizer in optimizers:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                optimizer.step()
            told.append([str(note.message) for note in notes])
        model.zero_grad()
    assert told[: len(optimizers)] == [[]] * len(optimizers)  # another one may follow
    (note,) = [note for notes in told for note in notes]
    assert re.match("^the SGD steps parameters of the Net, and none steps its bank, .*`rpgmt.parameter_groups`", note)
    assert "\n" not in note


def _head_alone(model: Net) -> list[torch.optim.Optimizer]:
    model.bank.requires_grad_(False)
    return [SGD(model.head.parameters())]


WITH_THE_BANK: dict[str, Callable[[Net], list[torch.optim.Optimizer]]] = {
    "groups": lambda m: [SGD(parameter_groups(m, "sgd", 0.01))],
    "part by part": lambda m: [SGD([{"params": part.parameters()} for part in m.children()])],
    "two, the bank last": lambda m: [SGD(m.body.parameters()), SGD([*m.head.parameters(), m.bank.values])],
    "one for each": lambda m: [SGD([parameter]) for parameter in m.parameters()],
    "another model's": lambda m: [SGD(nn.Linear(2, 2).parameters())],
    "a frozen bank": _head_alone,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", WITH_THE_BANK)
def test_optimizers_with_the_bank_are_not(case: str) -> None:
    model = net()
    optimizers = WITH_THE_BANK[case](model)
    for _ in range(3):
        model(X).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
    assert (model.bank in untrained_banks._untrained) == (case in ("another model's", "a frozen bank"))


@pytest.mark.filterwarnings("error")
def test_a_plain_head_may_be_trained_by_itself() -> None:
    model = net(include=["body.*"])
    optimizer = SGD(model.head.parameters())
    for _ in range(3):
        model(X).square().sum().backward()
        optimizer.step()


def test_the_report_counts_a_bank_in_a_layer_once() -> None:
    model = chain()
    counts = report(model)
    assert counts.banks == {"0.bank": (model.bank.size, model.bank.generated)}
    assert counts.trainable == sum(p.numel() for p in model.parameters())
