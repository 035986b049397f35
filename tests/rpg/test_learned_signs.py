"""Learned signs: what is shared, how it is trained, what a file holds."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
import torch.nn.utils.prune as prune
from numpy.typing import NDArray
from torch import Tensor, nn

import rpgmt
from rpgmt.baselines.pruning import prune_weights
from rpgmt.rpg.learned_signs import SignedConv2d, pack, set_firmness, stored_numbers, unpack

SIZES = ["9%", "25%", "40%", "99%"]


def layer_of(size: str, dtype: torch.dtype = torch.float32) -> SignedConv2d:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1, dtype=dtype))
    return rpgmt.learn_signs(plain, size)[0]


def shared_by_hand(weight: NDArray[np.float64], entries: int) -> NDArray[np.float64]:
    """Entry by entry: the mean of its uses' magnitudes, with each use's sign."""
    flat = weight.flatten()
    shared = np.empty_like(flat)
    for entry in range(entries):
        uses = range(entry, len(flat), entries)
        magnitude = sum(abs(flat[use]) for use in uses) / len(uses)
        for use in uses:
            shared[use] = -magnitude if flat[use] < 0 else magnitude
    return shared.reshape(weight.shape)


@pytest.mark.parametrize("size", SIZES)
def test_weights_share_the_mean_magnitude_of_their_entry(size: str) -> None:
    layer = layer_of(size, torch.float64)
    assert len(layer.magnitudes()) == layer.entries < layer.weight.numel() == 432
    expected = shared_by_hand(layer.weight.detach().numpy(), layer.entries)
    np.testing.assert_allclose(layer.shared_weight().numpy(), expected, rtol=1e-13)


def test_the_shared_weights_are_the_nearest_with_these_signs() -> None:
    layer = layer_of("25%", torch.float64)
    free, shared = layer.weight.detach(), layer.shared_weight()
    distance = (free - shared).square().sum()
    for _ in range(20):
        others = (layer.magnitudes() + 0.01 * torch.randn(layer.entries, dtype=torch.float64)).abs()
        laps = -(-free.numel() // layer.entries)
        moved = torch.copysign(others.repeat(laps)[: free.numel()].view(free.shape), free)
        assert (free - moved).square().sum() > distance


@pytest.mark.parametrize("size", SIZES)
def test_sharing_what_is_shared_changes_no_bit(size: str) -> None:
    layer = layer_of(size)
    once = layer.shared_weight()
    with torch.no_grad():
        layer.weight.copy_(once)
    assert torch.equal(layer.shared_weight(), once)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_holds_magnitudes_and_bits_of_which_the_same_weights_are_made(size: str) -> None:
    layer = layer_of(size)
    held = pack(layer)
    assert held["magnitudes"].shape == (layer.entries,)
    assert held["signs"].dtype == torch.uint8
    bits = np.unpackbits(held["signs"].numpy(), bitorder="little")[: layer.weight.numel()]
    assert np.array_equal(bits, np.signbit(layer.weight.detach().numpy().flatten()))
    assert torch.equal(unpack(layer, **held), layer.shared_weight())
    assert sum(tensor.nbytes for tensor in held.values()) <= 4 * stored_numbers(layer)


@pytest.mark.parametrize("firmness", [0.0, 0.3, 1.0])
def test_the_gradient_of_the_weights_in_use_goes_to_the_free_ones(firmness: float) -> None:
    layer = layer_of("25%", torch.float64).train()
    layer.firmness.fill_(firmness)
    free = layer.weight.detach()
    used = (free + firmness * (layer.shared_weight() - free)).requires_grad_()
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)

    def outputs(weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, layer.bias, padding=1).sin()

    assert torch.autograd.gradcheck(lambda weight: outputs(weight).sum(), used)
    expected = torch.autograd.grad(outputs(used).sum(), used)[0]
    torch.testing.assert_close(layer(x).sin(), outputs(used))
    torch.testing.assert_close(torch.autograd.grad(layer(x).sin().sum(), layer.weight)[0], expected)


def test_free_weights_make_the_plain_network_and_firm_ones_the_stored_one() -> None:
    layer, plain = layer_of("25%").train(), nn.Conv2d(6, 8, 3, padding=1)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 5, 5)
    set_firmness([layer], 0.0)
    assert torch.equal(layer(x), plain(x))
    stored = rpgmt.bake(nn.Sequential(copy.deepcopy(layer)))
    assert type(stored[0]) is nn.Conv2d
    assert not torch.equal(stored(x), plain(x))
    assert torch.equal(layer.eval()(x), stored(x))  # measured is what a file holds, at any time
    set_firmness([layer], 1.0)
    assert torch.equal(layer.train()(x), stored(x))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)).train()
    set_firmness(rpgmt.learn_signs(model, "25%"), 0.3)
    return model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("autocast", [False, True])
def test_weights_that_are_made_together_are_those_that_each_layer_makes(training: bool, autocast: bool) -> None:
    model, x = network().train(training), torch.randn(2, 6, 9, 9)
    found = []
    for together in (nullcontext(), rpgmt.made_together(model)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), together:
            outputs = model(x)
        outputs.float().square().sum().backward()
        found.append([outputs, *[parameter.grad for parameter in model.parameters()]])
    for own, other in zip(*found, strict=True):
        assert torch.equal(own, other)
    assert all("made" not in vars(layer) for layer in model)


def test_weights_are_made_once_for_all_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, calls = network(), torch.randn(2, 6, 9, 9), []
    between = SignedConv2d._between
    monkeypatch.setattr(SignedConv2d, "_between", lambda layer, firmness: calls.append(layer) or between(layer, firmness))
    with rpgmt.made_together(model):
        model(x), model(x)
    assert calls == list(model)


def test_a_layer_that_runs_in_another_way_makes_its_own_weight() -> None:
    model, x = network(), torch.randn(2, 6, 9, 9)
    others = {name: 2 * tensor.detach() for name, tensor in model.named_parameters()}
    evaluated, called = model.eval()(x), torch.func.functional_call(model.train(), others, x)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, parameters, x).square().sum()

    gradients = torch.func.grad(loss)(others)
    with rpgmt.made_together(model):
        assert torch.equal(model.eval()(x), evaluated)
        assert torch.equal(torch.func.functional_call(model.train(), others, x), called)
        for name, gradient in torch.func.grad(loss)(others).items():
            assert torch.equal(gradient, gradients[name])
        with torch.autocast("cpu", torch.bfloat16):
            assert model(x).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16), rpgmt.made_together(model), torch.autocast("cpu", enabled=False):
        assert torch.equal(model(x), copy.deepcopy(model)(x))


def test_weights_that_were_made_together_are_gone_after_an_error() -> None:
    model = network()

    def fail() -> None:
        with rpgmt.made_together(model):
            assert all(layer.made for layer in model)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not any(layer.made for layer in model)


def test_frozen_and_unused_layers_get_no_gradient_of_weights_made_together() -> None:
    model = network()
    model[0].requires_grad_(False)
    with rpgmt.made_together(model):
        model[1](model[0](torch.randn(2, 6, 9, 9))).sum().backward()
    assert model[1].weight.grad is not None
    assert model[0].weight.grad is model[2].weight.grad is None


def test_weights_become_firm_in_the_course_of_training() -> None:
    layer = layer_of("25%")
    course = []
    for progress in np.linspace(0, 1, 101):
        set_firmness([layer], float(progress))
        course.append(float(layer.firmness))
    assert course[0] == 0
    assert course[-1] == 1
    assert course == sorted(course)
    assert len(set(course)) > 40


def test_one_compilation_serves_all_of_a_training() -> None:
    compiled, layer = torch._dynamo.testing.CompileCounter(), layer_of("25%").train()
    step, x = torch.compile(layer, backend=compiled, fullgraph=True), torch.randn(2, 6, 5, 5)
    for progress in (0.0, 0.2, 0.5, 1.0):
        set_firmness([layer], progress)
        torch.testing.assert_close(step(x), layer(x))
    assert compiled.frame_count == 1


def test_layers_have_shares_of_the_numbers_and_signs_count_a_32nd() -> None:
    model = nn.Sequential(nn.Conv2d(64, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 64, 1), nn.Linear(4, 4))
    layers = rpgmt.learn_signs(model, "25%")
    assert [layer.entries for layer in layers] == [448, 2016, 448]  # whole rows: 7 of 32, 7 of 32, 14 of 64
    counts = rpgmt.report(model)
    assert counts.generated == 13312
    assert counts.bank == 13312 // 4 == sum(map(stored_numbers, layers))
    assert counts.fixed == 32 + 32 + 64 + 20
    assert counts.trainable == counts.bank + counts.fixed
    assert counts.converted == ["0", "2", "3"]


def test_as_many_numbers_as_weights_leave_the_plain_network() -> None:
    for size, remark in (("100%", nullcontext()), (10**6, pytest.warns(UserWarning, match="so none is shared"))):
        model = nn.Sequential(nn.Conv2d(4, 4, 3))
        with remark:
            assert rpgmt.learn_signs(model, size) == []
        assert type(model[0]) is nn.Conv2d


def test_patterns_choose_layers() -> None:
    model = nn.ModuleDict({"a": nn.Conv2d(4, 4, 3), "b": nn.Conv2d(4, 4, 3), "c": nn.Conv2d(4, 4, 3)})
    layers = rpgmt.learn_signs(model, "25%", include=["a", "b"], exclude=["b"])
    assert layers == [model["a"]]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("3%", "144 signs take 5 numbers, and 1 layers need a magnitude each: give at least 6"),
        ("many", "`size` is 'many': not a size|`size` is many: not a size"),
    ],
)
def test_a_size_that_cannot_be_is_refused_and_nothing_is_changed(size: str, message: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match=message):
        rpgmt.learn_signs(model, size)
    assert type(model[0]) is nn.Conv2d


def test_a_model_without_convolutions_is_refused() -> None:
    with pytest.raises(ValueError, match="the Linear has no plain convolution whose signs could be learned"):
        rpgmt.learn_signs(nn.Linear(2, 2), "25%")


def test_a_deep_copy_and_a_pickle_give_the_same(tmp_path: Path) -> None:
    model = nn.Sequential(layer_of("25%"))
    x = torch.randn(1, 6, 5, 5)
    torch.save(model, tmp_path / "model.pt")
    for other in (copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)):
        assert torch.equal(other.eval()(x), model.eval()(x))


def test_what_is_frozen_shared_or_pruned_is_left_alone() -> None:
    frozen, shared, pruned, plain = (nn.Conv2d(4, 4, 3) for _ in range(4))
    frozen.weight.requires_grad_(False)
    other = nn.Conv2d(4, 4, 3)
    other.weight = shared.weight
    prune.l1_unstructured(pruned, "weight", 0.5)
    model = nn.Sequential(frozen, shared, other, pruned, plain)
    assert rpgmt.learn_signs(model, "25%") == [plain]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["backbone.*"]}, r"`backbone\.\*` matches no module of the Sequential"),
        ({"exclude": ["zz"]}, "`zz` matches no module of the Sequential"),
        ({"include": "0"}, "`include` is '0': give a list of patterns"),
    ],
)
def test_patterns_that_choose_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rpgmt.learn_signs(nn.Sequential(nn.Conv2d(4, 4, 3)), "25%", **options)


def test_masks_norms_and_baselines_refuse_free_weights() -> None:
    """They would change the weights that are trained, and not those in use."""
    model = nn.Sequential(layer_of("25%"))
    with pytest.raises(RuntimeError, match=r"cannot have a `weight_orig`: `rpgmt\.bake\(model\)` makes it plain"):
        prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(ValueError, match="`0` learns its signs and cannot be pruned"):
        prune_weights(model, 100)
    assert rpgmt.report(model).signed == 432
    assert "magnitudes and signs, N" in str(rpgmt.report(model))
    assert f"{model[0].entries} magnitudes" in repr(model)
