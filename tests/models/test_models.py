"""The network: published counts, shapes of any size, and what its stages share."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rpgmt
from rpgmt.config import ModelConfig
from rpgmt.errors import UserError
from rpgmt.models import build
from rpgmt.models.blocks import Residual
from rpgmt.models.counting import count, count_macs
from rpgmt.models.hourglass import Hourglass
from rpgmt.models.refinement import Refinement

SMALL = ModelConfig(stages=3, channels=16, depth=2, rpg_size="25%", heads={"keypoints": 5, "depth": 1})


def conv_weights(stage: nn.Module) -> list[torch.Tensor]:
    return [module.weight for module in stage.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize(
    ("stages", "parameters", "giga_macs"),
    [(1, 3.59, 4.35), (2, 6.73, 6.74), (4, 13.02, 11.52), (8, 25.60, 21.08)],
)
def test_counts_are_those_of_the_stacked_hourglass_in_use(stages: int, parameters: float, giga_macs: float) -> None:
    """256 channels, depth 4, 17 key points, 256×192, residual trunk, biased convolutions, independent stages."""
    model = build(ModelConfig(stages=stages, channels=256, depth=4, sharing="none", heads={"keypoints": 17}))
    counts = count(model, (192, 256))
    assert round(counts["parameters"]["trainable"] / 1e6, 2) == parameters
    assert round(counts["macs"] / 1e9, 2) == giga_macs


def test_counts_of_a_generated_network_add_up() -> None:
    plain = count(build(dataclasses.replace(SMALL, sharing="none")), (64, 48))
    model = build(SMALL)
    counts = count(model, (64, 48))
    parameters = counts["parameters"]
    assert parameters["generated"] + parameters["fixed"] == plain["parameters"]["trainable"]
    assert parameters["bank"] == round(parameters["generated"] / 4)
    assert parameters["trainable"] == sum(p.numel() for p in model.parameters())
    assert counts["macs"] == plain["macs"]
    assert isinstance(next(m for m in model.modules() if isinstance(m, rpgmt.RPGConv2d)), nn.Conv2d)  # left as it was


def test_macs_of_one_convolution_by_hand() -> None:
    assert count_macs(nn.Conv2d(3, 8, 3, padding=1), (10, 6)) == 8 * 3 * 9 * 10 * 6


@pytest.mark.parametrize("sharing", ["rpg", "tied", "none"])
@pytest.mark.parametrize("size", [(64, 64), (72, 100), (96, 4), (4, 4)])
def test_every_stage_predicts_every_head_at_any_size(sharing: str, size: tuple[int, int]) -> None:
    height, width = size
    model = build(dataclasses.replace(SMALL, sharing=sharing)).eval()
    outputs = model(torch.randn(2, 3, height, width))
    assert len(outputs) == 3
    for output in outputs:
        assert {name: tuple(value.shape) for name, value in output.items()} == {
            "keypoints": (2, 5, height // 4, width // 4),
            "depth": (2, 1, height // 4, width // 4),
        }


@pytest.mark.parametrize("stages", [1, 2, 5])
def test_any_number_of_stages(stages: int) -> None:
    assert len(build(dataclasses.replace(SMALL, stages=stages))(torch.randn(2, 3, 32, 32))) == stages


def test_stopping_early_gives_the_first_stages_predictions() -> None:
    model = build(SMALL).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        everything, first = model(images), model(images, stop_after=2)
    assert len(first) == 2
    for whole, part in zip(everything, first, strict=False):
        for name in whole:
            assert torch.equal(whole[name], part[name])


def test_stopping_early_costs_only_the_stages_before() -> None:
    """Counted by hand: the trunk, and for each stage its layers, its heads and, but for the last, its feedback."""
    model = build(dataclasses.replace(SMALL, sharing="none")).eval()

    def macs(parts: nn.Module) -> int:
        return count_macs(parts, (64, 48))

    stage = count_macs(nn.Sequential(model.trunk, model.stages[0]), (64, 48)) - macs(model.trunk)
    cells = (64 // 4) * (48 // 4)
    heads = 16 * (5 + 1) * cells
    feedback = 16 * 16 * cells + heads
    for k in (1, 2, 3):
        expected = macs(model.trunk) + k * (stage + heads) + (k - 1) * feedback
        assert count_macs(model, (64, 48), stop_after=k) == expected
    assert count_macs(model, (64, 48)) == count_macs(model, (64, 48), stop_after=3)
    assert count_macs(build(SMALL), (64, 48), stop_after=1) == count_macs(model, (64, 48), stop_after=1)


@pytest.mark.parametrize("stop_after", [0, -1, 4])
def test_stopping_after_a_stage_that_is_not_there_is_one_clear_line(stop_after: int) -> None:
    with pytest.raises(UserError, match=rf"^`stop_after` is {stop_after}: give 1 to 3, the stages of the model$"):
        build(SMALL)(torch.randn(2, 3, 32, 32), stop_after=stop_after)


def test_later_stages_see_the_predictions_and_features_of_the_ones_before() -> None:
    model = build(SMALL)
    outputs = model(torch.randn(2, 3, 32, 32))
    outputs[2]["depth"].sum().backward()
    for name in ("keypoints", "depth"):
        assert model.heads[0][name].weight.grad.abs().sum() > 0
        assert model.heads[1][name].weight.grad.abs().sum() > 0
    assert model.heads[2]["keypoints"].weight.grad is None  # the other head of the last stage


def test_independent_stages_share_nothing() -> None:
    model = build(dataclasses.replace(SMALL, sharing="none"))
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    assert len(set(pointers)) == len(pointers)


def test_tied_stages_share_convolution_weights_alone() -> None:
    model = build(dataclasses.replace(SMALL, sharing="tied"))
    first, second, third = (conv_weights(stage) for stage in model.stages)
    assert all(a is b is c for a, b, c in zip(first, second, third, strict=True))
    for name, parameter in model.stages[0].named_parameters():
        module = model.stages[0].get_submodule(name.rpartition(".")[0])
        is_shared = parameter is model.stages[1].get_parameter(name)
        assert is_shared == (isinstance(module, nn.Conv2d) and name.endswith("weight")), name
    assert model.heads[0]["depth"].weight is not model.heads[1]["depth"].weight


def test_generated_stages_have_distinct_weights() -> None:
    for scope in ("stage", "global", "block"):
        model = build(dataclasses.replace(SMALL, rpg_scope=scope))
        for a, b in zip(conv_weights(model.stages[0]), conv_weights(model.stages[1]), strict=True):
            correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
            assert abs(correlation) < 6 / a.numel() ** 0.5


def test_generated_are_all_convolutions_of_the_stages_and_nothing_else() -> None:
    model = build(SMALL)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            assert isinstance(module, rpgmt.RPGConv2d) == name.startswith("stages."), name


def test_scope_names_the_banks() -> None:
    def banks(scope: str) -> dict[str, tuple[int, int]]:
        return rpgmt.report(build(dataclasses.replace(SMALL, rpg_scope=scope))).banks

    assert list(banks("global")) == ["bank"]
    assert list(banks("stage")) == ["bank_stage_1", "bank_stage_2", "bank_stage_3"]
    # hourglass: 2 levels of 3 residuals and the bottom; then a residual and the features
    assert len(banks("block")) == 2 * 3 + 1 + 1 + 1
    assert banks("block")["bank_features"][1] == 3 * 16 * 16  # the same block of all three stages


def test_a_bank_too_small_for_its_parts_is_an_error_of_one_line() -> None:
    with pytest.raises(UserError, match=r"--rpg-size 2: `size` is 2: 3 banks need at least 1 parameter each"):
        build(dataclasses.replace(SMALL, rpg_size=2))


def slow_hourglass(x: torch.Tensor, hourglass: Hourglass, level: int = 0) -> torch.Tensor:
    """The paper's recursion: by + up(inner(down(pool(x)))), the innermost being one residual."""
    if level == len(hourglass.levels):
        return hourglass.bottom(x)
    here = hourglass.levels[level]
    low = slow_hourglass(here.down(F.max_pool2d(x, 2)), hourglass, level + 1)
    return here.by(x) + here.up(low).repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_hourglass_equals_the_papers_recursion_where_sizes_halve_evenly() -> None:
    hourglass = Hourglass(3, 8).double().eval()
    x = torch.randn(2, 8, 16, 24, dtype=torch.float64)
    assert torch.allclose(hourglass(x), slow_hourglass(x, hourglass), atol=1e-12)


def test_residual_is_pre_activated() -> None:
    """With the last convolution at zero a residual is the identity, negative values included."""
    residual = Residual(8, 8)
    nn.init.zeros_(residual.conv3.weight)
    nn.init.zeros_(residual.conv3.bias)
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(residual(x), x)


def test_feedback_is_a_sum_of_1x1_convolutions() -> None:
    model = build(SMALL)
    assert isinstance(model, Refinement)
    feedback = model.feedback[0].double()
    x, features = torch.randn(2, 2, 16, 4, 4, dtype=torch.float64)
    predictions = {"keypoints": torch.randn(2, 5, 4, 4).double(), "depth": torch.randn(2, 1, 4, 4).double()}
    expected = x + feedback.features(features)
    expected = expected + feedback.predictions["keypoints"](predictions["keypoints"])
    expected = expected + feedback.predictions["depth"](predictions["depth"])
    assert torch.allclose(feedback(x, features, predictions), expected)


def tasks_that_reach(model: Refinement) -> dict[str, set[str]]:
    """For each parameter the tasks whose loss, summed over the stages, has a gradient there."""
    outputs = model(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    reached: dict[str, set[str]] = {name: set() for name, _ in model.named_parameters()}
    for task in model.tasks:
        loss = sum(output[task].square().sum() for output in outputs)
        gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(reached, gradients, strict=True):
            if gradient is not None and gradient.any():
                reached[name].add(task)
    return reached


@pytest.mark.parametrize(
    "sharing",
    [
        *({"sharing": "rpg", "rpg_scope": scope} for scope in ("stage", "global", "block")),
        {"sharing": "tied"},
        {"sharing": "none"},
    ],
    ids=lambda sharing: "-".join(sharing.values()),
)
@pytest.mark.parametrize("stages", [1, 3])
def test_shared_parameters_are_those_that_all_tasks_reach(sharing: dict[str, str], stages: int) -> None:
    model = build(dataclasses.replace(SMALL, stages=stages, **sharing)).double()
    assert model.tasks == ("keypoints", "depth")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    claimed = {names[id(p)]: set(model.tasks) for p in model.shared_parameters()}
    for task in model.tasks:
        claimed |= {names[id(p)]: {task} for p in model.task_parameters(task)}
    assert claimed == tasks_that_reach(model)
    parts = [model.shared_parameters(), *map(model.task_parameters, model.tasks)]
    assert sum(map(len, parts)) == len(names)  # each once


def test_a_bank_that_makes_the_heads_is_shared_and_so_is_a_head_with_two_names() -> None:
    model = build(dataclasses.replace(SMALL, sharing="none", heads={"a": 2, "b": 2}))
    rpgmt.convert(model, "25%", scope="global", include=["heads.*"])
    assert model.bank.values in set(model.shared_parameters())
    own = model.task_parameters("a")
    assert [id(p) for p in own] == [id(model.heads[2]["a"].bias)]
    model.heads[2]["b"].bias = model.heads[2]["a"].bias
    assert model.task_parameters("a") == model.task_parameters("b") == []
    assert id(own[0]) in {id(p) for p in model.shared_parameters()}


def test_parameters_of_one_task_alone_and_of_an_unknown_one() -> None:
    model = build(dataclasses.replace(SMALL, heads={"depth": 1}))
    own = model.task_parameters("depth")
    assert [id(p) for p in own] == [id(p) for p in model.heads[2]["depth"].parameters()]
    own[0].requires_grad_(False)
    assert len(model.task_parameters("depth")) == 1
    assert len(model.shared_parameters()) == len(list(model.parameters())) - 2
    with pytest.raises(UserError, match=r"^the task is 'deph': the model has depth$"):
        model.task_parameters("deph")
