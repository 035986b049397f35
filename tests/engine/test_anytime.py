"""What stopping early costs, and the table of it."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import rpgmt
from rpgmt.config import ModelConfig
from rpgmt.engine.anytime import stage_costs
from rpgmt.models import build
from rpgmt.models.counting import count_macs
from rpgmt.models.refinement import Refinement
from rpgmt.tables import anytime_table

MODEL = ModelConfig(stages=3, channels=16, depth=1, rpg_size="25%", heads={"keypoints": 5})


def test_costs_of_every_number_of_stages() -> None:
    model = rpgmt.bake(build(MODEL))
    costs = stage_costs(model, (48, 64), "cpu", batch_size=2, rounds=2)
    assert [cost["stage"] for cost in costs] == [1, 2, 3]
    assert [cost["macs"] for cost in costs] == [count_macs(model, (48, 64), stop_after=k) for k in (1, 2, 3)]
    assert all(cost["ms"] > 0 for cost in costs)
    assert not model.training


class Sleeper(nn.Module):
    """A stage that takes 4 ms at least, and keeps the shapes that it met."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = shapes

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "meta":  # where multiply-accumulates are counted
            time.sleep(0.004)
            self.shapes.append(tuple(x.shape))
        return x


def test_time_is_that_of_one_image_and_grows_with_the_stages() -> None:
    shapes: list[tuple[int, ...]] = []
    model = Refinement(nn.Identity(), [Sleeper(shapes), Sleeper(shapes)], 3, {"depth": 1})
    first, second = (cost["ms"] for cost in stage_costs(model, (8, 4), "cpu", batch_size=4, rounds=3))
    assert first >= 1  # a batch of four
    assert second >= 2
    assert set(shapes) == {(4, 3, 4, 8)}
    assert len(shapes) == 4 * (1 + 2)  # three rounds and the first pass, of one and of two stages


def test_random_numbers_of_the_program_are_left_alone() -> None:
    model = rpgmt.bake(build(MODEL))
    before = torch.get_rng_state()
    stage_costs(model, (32, 32), "cpu", rounds=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_rounds_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"^`rounds` is 0: give at least 1$"):
        stage_costs(build(MODEL), (32, 32), "cpu", rounds=0)


def test_the_table_has_a_row_a_stage() -> None:
    metrics = {"AP": 0.5, "AR": None, "stage_1/AP": 0.25, "stage_1/AR": None, "stage_2/AP": 0.5, "stage_2/AR": 0.75}
    costs: list[dict[str, Any]] = [
        {"stage": 1, "macs": 1_500_000_000, "ms": 2.0},
        {"stage": 2, "macs": 2_000_000_000, "ms": 5.0},
    ]
    table = anytime_table(metrics, costs, ["AP", "AR"], "on two cores")
    assert [column.header for column in table.columns] == ["stop after", "AP", "AR", "MACs (G)", "of all", "ms", "of all"]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "│" in line]
    assert lines == [
        ["1", "0.250", "n/a", "1.500", "75%", "2.0", "40%"],
        ["2", "0.500", "0.750", "2.000", "100%", "5.0", "100%"],
    ]
