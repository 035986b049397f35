"""The comparison of ways of sharing: intervals, and the report of what is stored, by hand."""

from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.benchmarks.sharing.intervals import closed, difference, exponent, rising, worth
from tools.benchmarks.sharing.report import Report, at
from tools.benchmarks.sharing.store import Result, Store, StoredRow, run_name, write_grid

# ---- intervals


def result(score: float, draws: Any = (0.0,), seed: int = 0, order: str = "same") -> Result:
    record = {"val": {"AP": score}, "monitor": "AP", "order": order}
    return Result(seed, 0.1, record, 1.0, np.asarray(draws, float), {})


def row_of(*scores: float, spread: float = 0.0) -> dict[int, Result]:
    """Results of the seeds 0, 1, …; their draws lie around the score."""
    return {seed: result(score, [score - spread, score + spread], seed) for seed, score in enumerate(scores)}


ROWS_OF_TWO = {"a": row_of(0.5), "b": row_of(0.4)}
"""The first seed of each is there."""


def test_a_paired_difference_by_hand() -> None:
    """Differences 0.1, 0.2, 0.3: mean 0.2, deviation 0.1, and t of two degrees of freedom is 4.303."""
    found = difference(row_of(0.5, 0.7, 0.6), row_of(0.4, 0.5, 0.3))
    assert found is not None
    assert found.mean == pytest.approx(0.2)
    assert found.half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert found.images == pytest.approx(0, abs=1e-12)
    one = difference({3: result(0.5, [0.4, 0.6], 3)}, {3: result(0.4, [0.4, 0.4], 3), 4: result(9)})
    assert one is not None
    assert (one.seeds, one.half) == ((3,), None)
    assert one.images == pytest.approx(1.96 * statistics.stdev([0.0, 0.2]))


def test_what_does_not_have_the_same_order_is_not_paired() -> None:
    assert difference({0: result(0.5)}, {0: result(0.4, order="another")}) is None
    assert difference({0: result(0.5)}, {1: result(0.4)}) is None


@pytest.mark.parametrize(
    ("score", "stages"), [(0.2, 1.0), (0.3, 1.0), (0.4, 1.5), (0.5, 2.0), (0.55, 2.5), (0.7, 4.0), (0.9, 4.0)]
)
def test_worth_on_a_ruler_by_hand(score: float, stages: float) -> None:
    ruler = {1: row_of(0.3, 0.3), 2: row_of(0.5, 0.5), 3: row_of(0.6, 0.6), 4: row_of(0.7, 0.7)}
    found = worth(row_of(score, score), ruler)
    assert found is not None
    assert (found.value, found.low, found.high, found.seeds) == pytest.approx((stages, stages, stages, 2))
    assert exponent(found, 4).value == pytest.approx(math.log(stages) / math.log(4))


def test_an_interval_covers_seeds_and_images() -> None:
    ruler = {1: row_of(0.3, 0.3), 2: row_of(0.5, 0.5)}
    by_seeds, by_images = worth(row_of(0.35, 0.45), ruler), worth(row_of(0.4, 0.4, spread=0.05), ruler)
    assert by_seeds is not None
    assert (by_seeds.value, by_seeds.low, by_seeds.high) == pytest.approx((1.5, 1.25, 1.75))
    assert by_images is not None
    assert (by_images.value, by_images.low, by_images.high) == pytest.approx((1.5, 1.25, 1.75))


def test_what_goes_on_are_the_last_commands_that_ask_for_all_that_is_missing() -> None:
    rows = {
        name: StoredRow(name, "none", 4, None, None, 8, 99, [0, 1, 2], {}, results) for name, results in ROWS_OF_TWO.items()
    }
    commands = {
        "a and b": {"a": [0, 1], "b": [0, 1]},
        "the same with more jobs": {"a": [0, 1], "b": [0, 1]},
        "what is there": {"a": [0]},
        "b and more": {"b": [0, 1, 2]},
    }
    assert Store(Path("out"), {}, rows, commands).commands_to_go_on() == ["the same with more jobs", "b and more"]


def test_a_ruler_that_does_not_rise_says_nothing_of_worth() -> None:
    assert worth(row_of(0.0, 0.0), {1: row_of(0.0, 0.0), 2: row_of(0.0, 0.0)}) is None
    assert worth(row_of(0.5), {1: row_of(0.4), 2: row_of(0.2), 3: row_of(0.3)}) is None  # evened out, it is flat
    drawn = worth(row_of(0.5, spread=0.1), {1: row_of(0.4), 2: {0: result(0.6, [0.6, 0.3])}})
    assert drawn is not None
    assert (drawn.value, drawn.low, drawn.high) == (pytest.approx(1.5), -math.inf, math.inf)  # flat in half of the draws


def test_rows_with_other_numbers_of_draws_are_not_paired() -> None:
    own, other = {0: result(0.5, [0.4, 0.6])}, {0: result(0.4, [0.3, 0.4, 0.5])}
    assert difference(own, other) is None
    assert closed(own, {0: result(0.3, [0.3, 0.3])}, other) is None


def test_a_quarter_without_a_validation_near_it_is_empty() -> None:
    course = {5.0: 0.1, 10.0: 0.2, 12.0: 0.3}
    assert [at(course, part) for part in (0.25, 0.5, 0.75, 1.0)] == [None, 0.1, None, 0.3]
    each = {float(epoch): epoch / 10 for epoch in range(1, 11)}
    assert [at(each, part) for part in (0.25, 0.5, 0.75, 1.0)] == [0.2, 0.5, 0.7, 1.0]
    assert at({}, 0.5) is None


def test_the_distance_that_is_closed() -> None:
    found = closed(row_of(0.45, 0.55), row_of(0.4, 0.4), row_of(0.6, 0.6))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.25, 0.75))
    assert closed(row_of(0.5), row_of(0.6), row_of(0.6)) is None


def test_a_ruler_never_falls() -> None:
    assert rising([1, 2, 3]) == [1, 2, 3]
    assert rising([1, 3, 2, 4]) == [1, 2.5, 2.5, 4]
    assert rising([3, 2, 1]) == [2, 2, 2]


# ---- the report of what is stored


def store_run(out: Path, name: str, rate: float, seed: int, score: float, held_out: float, order: str = "same") -> None:
    """What a run and its measurement leave, as far as the report reads it."""
    run = out / run_name(name, rate, seed)
    run.mkdir(parents=True)
    ended = {"val": {"AP": held_out}, "ended": {"by": "length"}, "seconds": 5.0}
    (run / "metrics.json").write_text(json.dumps(ended))
    (run / "metrics.csv").write_text(f"epoch,step,val/AP\n0.5,1,\n1,2,{held_out / 2}\n2,4,{held_out}\n")
    val = {"AP": score, "stage_1/AP": score / 2, "stage_2/AP": score}
    parameters = {"trainable": 100, "bank": 0, "generated": 0, "fixed": 100}
    record = {
        "val": val,
        "monitor": "AP",
        "mains": {"AP": True},
        "parameters": parameters,
        "bytes": 500,
        "tensor_bytes": 400,
        "macs": 7,
        "order": order,
    }
    (run / "val.json").write_text(json.dumps(record))
    np.savez(run / "val.npz", draws=[score - 0.01, score + 0.01])


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Two rates for tied stages, of which the higher is the better one; independent stages of another order with seed 1."""
    row = {"kind": "none", "stages": 2, "size": None, "bits": None, "source": None, "channels": 8, "parameters": 100}
    tuned = {"rates": [0.1, 0.2], "tuning_seed": 0, "tuning_epochs": 2}
    rows = {"tied-50pc-t2": {**row, "kind": "tied", "size": "50%"}, "none-t2": row, "none-t1": {**row, "stages": 1}}
    about = {"task": "pose", "monitor": "AP", "epochs": 2, "train_samples": 40, "measured_on": "made up", "config": {}}
    for name, of_row in rows.items():
        write_grid(tmp_path, about, {name: {**of_row, **tuned, "seeds": [0, 1]}})
    for seed in (0, 1):
        store_run(tmp_path, "tied-50pc-t2", 0.2, seed, 0.5 + 0.1 * seed, 0.6)
        store_run(tmp_path, "none-t2", 0.1, seed, 0.7, 0.8, order=f"{'same' if seed == 0 else 'another'}")
        store_run(tmp_path, "none-t1", 0.1, seed, 0.4, 0.3)
    store_run(tmp_path, "tied-50pc-t2", 0.1, 0, 0.9, 0.5)
    store_run(tmp_path, "none-t2", 0.2, 0, 0.9, 0.5)
    (tmp_path / run_name("none-t1", 0.2, 0)).mkdir()  # a rate too high, at which the run came to no end
    return tmp_path


def test_a_report_by_hand(stored: Path) -> None:
    report = Report(Store.read(stored))
    tied = report.figures["tied-50pc-t2"]
    assert tied.statistics("AP") == (pytest.approx(0.55), pytest.approx(0.1 / 2**0.5))  # not of the rate that was no better
    found = report.differences["tied-50pc-t2"]
    assert set(found) == {"none"}
    assert (found["none"].seeds, found["none"].mean) == ((0,), pytest.approx(-0.2))
    assert report.estimates["tied-50pc-t2"]["worth"].value == pytest.approx(1 + 1 / 3)
    tables = {grid.title.partition(" ×")[0]: {line[0]: list(line[1:]) for line in grid.rows} for grid in report.grids()}
    assert tables["accuracy"]["tied-50pc-t2"] == ["55.00 ± 7.07", "0.2"]
    courses = next(grid for grid in report.grids() if "held-out images after" in grid.title)
    assert list(courses.rows[0]) == ["tied-50pc-t2", "", "30.0", "", "60.0", ""]  # no validation near 75 %
    notes = " ".join(report.notes())
    assert "Not paired, as their samples, their order or their draws differ: tied-50pc-t2 and none-t2." in notes
    assert "The best rate is the lowest or the highest that was tried of tied-50pc-t2, none-t2, none-t1." in notes
    report.write()
    with (stored / "benchmark.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["metric"] == "AP" and line["row"] == "tied-50pc-t2"]
    assert {(line["seed"], line["stage"], float(line["value"])) for line in lines} == {
        *(("0", "", 0.5), ("0", "1", 0.25), ("0", "2", 0.5), ("1", "", 0.6), ("1", "1", 0.3), ("1", "2", 0.6)),
    }
    assert (stored / "benchmark.png").stat().st_size < 300_000
