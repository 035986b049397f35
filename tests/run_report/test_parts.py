"""The parts of a report by themselves: ranks, curves, correlations, HTML."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from rpgmt.config import ModelConfig
from rpgmt.models import build
from rpgmt.rpg.bake import bake
from rpgmt.run_report.curves import MOST_POINTS, chart, short, stage_colours, thinned, ticks
from rpgmt.run_report.facts import saved
from rpgmt.run_report.gallery import RANKS, ranked
from rpgmt.run_report.html import Html, tag
from rpgmt.run_report.stage_weights import of_stages


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7, 100])
def test_ranks_are_those_of_sorting(count: int, higher: bool) -> None:
    figures = np.random.default_rng(count).random(count + 2).astype(np.float32)
    figures[[0, -1]] = np.nan
    found = ranked(figures, 2, higher=higher)
    order = sorted(range(1, count + 1), key=lambda i: figures[i], reverse=higher)
    each = min(2, max(1, count // 3))
    assert list(found) == [rank for rank in RANKS if rank in found]
    chosen = [place for places in found.values() for place in places]
    assert len(set(chosen)) == len(chosen) == min(3 * each, count)
    assert chosen == [place for place in order if place in chosen]  # the best first, the worst last
    if count >= 3:
        assert (found["best"], found["worst"]) == (order[:each], order[-each:])
        middle = np.median(figures[1:-1])
        nearer = sorted(order, key=lambda i: abs(order.index(i) - (count - 1) / 2))
        assert set(found["median"]) <= set(nearer[: each + 1])
        assert figures[order[-1 if higher else 0]] <= middle <= figures[order[0 if higher else -1]]


def test_equal_figures_are_ranked_by_their_place() -> None:
    assert ranked(np.ones(6), 1, higher=True) == {"best": [0], "median": [2], "worst": [5]}


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 7), (0.5, 0.50001), (1e-7, 2e-7), (0, 123456), (41, 42), (-1e6, 1e6)])
def test_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])
    assert float(f"{steps[0]:.0e}") == pytest.approx(steps[0], rel=1e-6)  # 1, 2 or 5 times a power of ten
    assert all(low - 1e-9 * abs(low) <= tick <= high + 1e-9 * abs(high) for tick in found)


def test_short_numbers() -> None:
    numbers = (0, 0.25, 1, 999, 1500, 2000, 12_000, 1_500_000, 25_000_000, -0.5, 0.00001)
    assert [short(n) for n in numbers] == ["0", "0.25", "1", "999", "1.5k", "2k", "12k", "1.5M", "25M", "-0.5", "1.0e-05"]


def test_long_curves_keep_their_ends_and_shape() -> None:
    points = [(float(step), math.sin(step / 500)) for step in range(5003)]
    few = thinned(points)
    assert len(few) <= MOST_POINTS + 1
    assert (few[0], few[-1]) == (points[0], points[-1])
    assert set(few) <= set(points)
    assert thinned(points[:200]) == points[:200]


def heights(drawing: Html) -> list[float]:
    (points,) = re.findall(r'points="([^"]+)"', drawing)
    return [float(pair.split(",")[1]) for pair in points.split()]


def test_a_curve_lies_where_its_values_are() -> None:
    colours = stage_colours([""])
    ys = heights(chart("val/AP", "step", {"": [(0, 0.2), (10, 0.4), (20, 0.3)]}, colours))
    assert ys[0] > ys[2] > ys[1]  # down the page
    assert ys[0] - ys[2] == pytest.approx(ys[2] - ys[1], abs=0.11)
    falling = chart("train/loss", "step", {"": [(0, 100.0), (1, 10.0), (2, 1.0)]}, colours)
    ys = heights(falling)
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.11)
    assert "logarithmic" in falling
    for values in ([0.0, 0.0], [5.0, 5.0], [math.nan, 1.0], [-2.0], [1e-12, 2e-12]):
        drawn = chart("val/AP", "step", {"": list(enumerate(values))}, colours)
        assert all(0 <= y <= 210 for y in heights(drawn))


def test_stages_colours_differ() -> None:
    names = ["", *(f"stage {k}" for k in range(1, 9))]
    assert len(set(stage_colours(names).values())) == 9


def conv_stages(*seeds: int) -> nn.ModuleList:
    def stage(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1))

    return nn.ModuleList(map(stage, seeds))


def test_correlations_are_numpys_weighed_by_the_layers_sizes() -> None:
    stages = conv_stages(1, 2, 3)
    with torch.no_grad():
        stages[2][2].weight.copy_(0.5 * stages[0][2].weight + 0.02 * torch.randn(8, 16, 1, 1))
        stages[1][0].weight.copy_(-3 * stages[0][0].weight + 1)
    found = of_stages(stages)
    assert list(found.layers) == ["0", "2"]
    for name, (count, matrix) in found.layers.items():
        rows = [stage.get_submodule(name).weight.detach().flatten().numpy() for stage in stages]
        assert count == rows[0].size
        np.testing.assert_allclose(matrix, np.corrcoef(rows), atol=1e-6)
    sizes = [8 * 16 * 9, 16 * 8]
    mean = sum(n * matrix for n, (_, matrix) in zip(sizes, found.layers.values(), strict=True)) / sum(sizes)
    np.testing.assert_allclose(found.mean, mean, atol=1e-9)
    layer, i, j, r = found.strongest()
    assert (layer, i, j, round(r, 4)) == ("0", 1, 2, -1.0)


def test_constant_weights_have_no_correlation() -> None:
    stages = conv_stages(1, 2)
    nn.init.zeros_(stages[0][0].weight)
    assert of_stages(stages).layers["0"][1].tolist() == [[0, 0], [0, pytest.approx(1)]]


@pytest.mark.parametrize(
    ("sharing", "scope", "size"),
    [
        ("tied", "stage", None),
        ("none", "stage", None),
        ("rpg", "stage", "50%"),
        ("rpg", "global", "20%"),
        ("rpg", "block", "10%"),
        ("signed", "stage", "25%"),
    ],
)
def test_fresh_networks_share_what_their_sharing_says(sharing: str, scope: str, size: str | None) -> None:
    """Copies are alike, independent stages are not; nor are generated ones, from however few banks: places and signs differ."""
    torch.manual_seed(0)
    options = {"rpg_size": size} if size else {}
    config = ModelConfig(stages=3, channels=16, depth=2, sharing=sharing, rpg_scope=scope, **options)  # type: ignore[arg-type]
    found = of_stages(bake(build(config)).stages)  # type: ignore[arg-type]
    between = found.mean[~np.eye(3, dtype=bool)]
    np.testing.assert_allclose(np.diag(found.mean), 1)
    if sharing == "tied":
        np.testing.assert_allclose(between, 1)
    else:
        assert np.abs(between).max() < 2 * found.by_chance


@pytest.mark.parametrize(
    ("bank", "than", "then"),
    [
        (500, "48.0% smaller than", "That saves parameters that are stored and communicated"),
        (980, "as many as", "The bank is as large as the network: nothing is saved"),
        (8936, "795.6% larger than", "The bank is larger than the network: nothing is saved"),
    ],
)
def test_a_bank_saves_only_where_it_is_smaller(bank: int, than: str, then: str) -> None:
    found = saved({"bank": bank, "generated": 980, "fixed": 20, "trainable": bank + 20})
    assert f"trainable parameters are {than} the 1,000 of the same network without sharing" in found
    assert found.endswith(f"{then}; the multiply-accumulates stay the same.")
    assert ("saves" in found) == (bank == 500)


def test_all_but_html_is_escaped() -> None:
    inner = tag("b", "<&>", None, 3)
    assert inner == "<b>&lt;&amp;&gt;3</b>"
    assert tag("p", inner, "<", class_="x\"'<", aria_label=None) == '<p class="x&quot;&#x27;&lt;"><b>&lt;&amp;&gt;3</b>&lt;</p>'
    assert tag("img", alt=">", text_anchor="end") == '<img alt="&gt;" text-anchor="end" />'
