"""What the benchmarks share: checks of flags, statistics, stopwatches, tables, files."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
import torch

from rpgmt.errors import UserError
from tools.benchmarks.common import files
from tools.benchmarks.common.figures import Figures, seeds_label
from tools.benchmarks.common.flags import check_positive, read_names, read_numbers
from tools.benchmarks.common.grid import Grid
from tools.benchmarks.common.stopwatch import DeviceStopwatch, ThreadStopwatch
from tools.benchmarks.common.turns import quartiles, ratios, shuffled

CPU = torch.device("cpu")

# ---- flags


def test_numbers_are_different_and_in_range() -> None:
    assert read_numbers("--seeds", "2, 0,1", "seeds") == [2, 0, 1]
    assert read_numbers("--wire", "2,64", "numbers", least=2, most=64) == [2, 64]
    for text in ("", "1,", "a", "-1", "1.5", "1,01"):
        with pytest.raises(UserError, match=rf"^`--seeds` is '{text}': give different seeds, e\.g\. 0,1$"):
            read_numbers("--seeds", text, "seeds, e.g. 0,1")
    for text in ("1,2", "2,65"):
        with pytest.raises(UserError, match=f"`--wire` is '{text}'"):
            read_numbers("--wire", text, "numbers", least=2, most=64)


def test_names_are_known_and_come_in_their_own_order() -> None:
    known = ("none", "tied", "rpg")
    assert read_names("--rows", "rpg, none,rpg", known) == ["none", "rpg"]
    with pytest.raises(UserError, match=r"^`--rows` is 'tide': did you mean `tied`[?] rows: none, tied, rpg$"):
        read_names("--rows", "tide", known)


def test_less_than_one_is_refused() -> None:
    check_positive("--rounds", 1)
    with pytest.raises(UserError, match=r"^`--rounds` is 0: give at least 1$"):
        check_positive("--rounds", 0)


# ---- time


def test_quartiles() -> None:
    assert quartiles([5, 1, 3, 2, 4]) == (2, 3, 4)


def test_ratios_are_of_neighbouring_turns() -> None:
    assert ratios([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == {"ratio": 3.0, "ratio_quartiles": [2.0, 4.0]}


def test_every_turn_has_all_names_in_an_order_of_its_own() -> None:
    turns = [shuffled("abc", turn) for turn in range(20)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert turns == [shuffled("abc", turn) for turn in range(20)]
    assert len(set(map(tuple, turns))) > 3


def test_phases_of_one_name_add_up() -> None:
    clock = DeviceStopwatch(CPU)
    for phase in ("a", "b", "a"):
        time.sleep(0.01)
        clock.mark(phase)
    seconds = clock.stop()
    assert seconds["a"] > 0.019
    assert seconds["step"] == pytest.approx(seconds["a"] + seconds["b"], abs=1e-3)


def test_a_thread_that_sleeps_takes_no_time() -> None:
    watch = ThreadStopwatch()
    watch.mark()
    time.sleep(0.1)
    watch.mark("sleep")
    ends = time.thread_time() + 0.05
    while time.thread_time() < ends:
        pass
    watch.mark("work")
    watch.mark()
    assert watch.seconds.keys() == {"sleep", "work"}
    assert watch.seconds["sleep"] < 0.05 <= watch.seconds["work"]


# ---- tables and files


def test_figures_by_seed() -> None:
    own = Figures("tied", {0: {"AP": 0.25, "bytes": 7, "Δ": -0.5}, 1: {"AP": 0.75, "bytes": 7, "Δ": None}})
    assert own.statistics("AP") == (0.5, pytest.approx(0.125**0.5))
    assert own.mean("AP") == 0.5
    assert own.cell("AP", ".1f", 100) == "50.0 ± 35.4"
    assert own.cell("AP", "+.2f") == "+0.50 ± 0.35"
    assert own.cell("AP", ".2f", spread=False) == "0.50"
    assert own.cell("bytes", ",.0f") == "7"  # they do not differ
    assert own.statistics("Δ") == (-0.5, None)
    assert own.cell("Δ", "+.1f") == "-0.5"
    assert own.statistics("PCK") is None
    assert own.cell("PCK", ".2f") == ""


def test_a_row_says_which_seeds_it_has() -> None:
    own = Figures("tied", {3: {}})
    assert (own.label([3]), own.label([3, 4])) == ("tied", "tied (1 of 2 seeds)")
    assert (seeds_label([3]), seeds_label([3, 4])) == ("seed 3", "seeds 3, 4, mean ± standard deviation")


def test_a_grid_is_the_same_table_twice() -> None:
    grid = Grid("accuracy", ["metric", "network", "AP"], [["a", "b", "1"], ["c", "d", "2"]], labels=2)
    lines = grid.markdown().splitlines()
    assert lines == ["**accuracy**", "", "| metric | network | AP |", "| --- | --- | ---: |", "| a | b | 1 |", "| c | d | 2 |"]
    table = grid.rich()
    assert [(column.header, column.justify, [*column.cells]) for column in table.columns] == [
        ("metric", "left", ["a", "c"]), ("network", "left", ["b", "d"]), ("AP", "right", ["1", "2"]),
    ]  # fmt: skip


@pytest.mark.parametrize("drawn", [True, False])
def test_the_files_of_a_comparison(drawn: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    also = tmp_path / "also" / "figures.json"
    files.write(
        tmp_path,
        ("row", "value"),
        [("tied", 1.5), ("a, b", None)],
        ["first", "second"],
        {"rows": []},
        (lambda path: path.touch()) if drawn else None,
        also,
    )
    with (tmp_path / "benchmark.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["row", "value"], ["tied", "1.5"], ["a, b", ""]]
    assert (tmp_path / "table.md").read_text() == "first\n\nsecond\n"
    assert json.loads((tmp_path / "benchmark.json").read_text()) == json.loads(also.read_text()) == {"rows": []}
    assert (tmp_path / "benchmark.png").exists() == drawn
    assert ("benchmark.png" in capsys.readouterr().out) == drawn
