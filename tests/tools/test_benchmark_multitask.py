"""The comparison of single-task and multi-task networks: trainings that are interrupted, fail and go on; the report."""

from __future__ import annotations

import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rpgmt import cli
from rpgmt.config import ModelConfig
from rpgmt.heads import Classification, Normals
from rpgmt.heads.depth import magnification
from tasks.multitask import Config, DataConfig, build
from tools import benchmark
from tools.benchmarks.multitask.constants import constants
from tools.benchmarks.multitask.report import Report

STEPS = 150
SMALL = (
    *("--train-images", "240", "--val-images", "4", "--image-size", "48", "--input-size", "24,32", "--batch-size", "2"),
    *("--stages", "2", "--channels", "4", "--depth", "1", "--heads", "depth=1", "--precision", "32", "--device", "cpu"),
    *("--epochs", "1", "--max-steps", str(STEPS)),
)


def test_trainings_are_interrupted_fail_and_go_on(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["multitask", "--data-root", str(tmp_path / "data"), "--out", str(out), *SMALL]
    single, tied, failing = (out / f"{row}-seed0" for row in ("single-depth", "tied", "one-stage"))

    command = [sys.executable, benchmark.__file__, *arguments, "--rows", "single"]
    process = start(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (single / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate()
    assert process.returncode == 130
    assert "the same command goes on" in text
    assert 0 < json.loads((single / "metrics.json").read_text())["steps"] < STEPS  # it ended in order, and has ended

    failing.mkdir()
    (failing / "notes.txt").touch()
    assert benchmark.main([*arguments, "--rows", "constant,single,one-stage,tied", "--jobs", "2"]) == 1
    text = capsys.readouterr().out
    assert f"resuming {single}" in (out / "single-depth-seed0.log").read_text()
    for line in ("end 1 of 3: single-depth-seed0", "FAILED 2 of 3: one-stage-seed0, status 2", "end 3 of 3: tied-seed0"):
        assert line in text
    assert f"`out` is {failing}: not an empty folder" in text

    assert benchmark.main([*arguments, "--rows", "constant,single,tied"]) == 0
    text = capsys.readouterr().out
    assert "2 of 2 trainings are finished already" in text
    assert "start" not in text
    record = json.loads((out / "benchmark.json").read_text())
    assert [row["name"] for row in record["rows"]] == ["constant", "single-depth", "single-task, all", "tied"]
    value, base = (json.loads((folder / "metrics.json").read_text())["val"]["depth.abs"] for folder in (tied, single))
    assert record["rows"][3]["figures"]["0"]["delta_main"] == pytest.approx(100 * (base - value) / base)
    assert (out / "benchmark.png").stat().st_size < 300_000
    with (out / "benchmark.csv").open() as file:
        rows = {(line["row"], line["seed"], line["stage"]) for line in csv.DictReader(file)}
    assert rows >= {("tied", "0", "1"), ("tied", "0", "2"), ("tied", "0", "")}

    for change, message in (
        (["--lr", "0.5"], "`lr` is 0.5: the run in"),
        (["--max-steps", "3"], "`max_steps` is 3: the run in"),
    ):
        assert cli.run(benchmark.main, [*arguments, "--rows", "tied", *change]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]


def test_constants_are_what_the_labels_alone_give(tmp_path: Path) -> None:
    """Background everywhere has its share of the pixels right; the mean depth misses by as much as plain arithmetic says."""
    heads = {"segmentation": 2, "depth": 1}
    data = DataConfig(root=tmp_path, train_images=6, val_images=4, image_size=48)
    task = build(Config(model=ModelConfig(channels=4, depth=1, heads=heads, input_size=(24, 32), sharing="none"), data=data))
    found = constants(task)["val"]
    assert found["segmentation.mIoU"] == pytest.approx(found["segmentation.accuracy"] / 2)
    assert found["stage_1/depth.abs"] == found["depth.abs"]

    known = [depth[depth > 0] for i in range(len(task.train_data)) for depth in [task.train_data[0, i]["depth"]]]
    mean = sum(float(depth.sum()) for depth in known) / sum(map(len, known))
    missed, pixels = 0.0, 0
    for i in range(len(task.val_data)):
        sample = task.val_data[0, i]
        scale = float(magnification(torch.as_tensor(sample["to_image"])[None])[0])
        depth = sample["depth"][sample["depth"] > 0]
        missed += float(abs(depth - mean).sum()) * scale
        pixels += depth.size
    assert found["depth.abs"] == pytest.approx(missed / pixels, rel=1e-4)


def record(val: dict[str, float | None], bank: int, fixed: int, stages: int = 2) -> dict[str, Any]:
    by_stage = {f"stage_{k}/{name}": value for k in range(1, stages + 1) for name, value in val.items()}
    parameters = {"bank": bank, "generated": 2 * bank, "fixed": fixed, "trainable": bank + fixed}
    return {
        "val": val | by_stage,
        "parameters": parameters,
        "bytes": {"model_file": 4 * (bank + fixed)},
        "macs": 7,
        "seconds": 2.5,
    }


def kind(accuracy: float | None) -> dict[str, float | None]:
    return {"kind.accuracy": accuracy, "kind.mean_accuracy": 0.5, "score": 0.5}


def normals(mean: float, within_30: float) -> dict[str, float | None]:
    return {"normals.mean": mean, "normals.median": 10.0, "normals.within_30": within_30, "score": within_30}


@pytest.fixture
def report() -> Report:
    """Two tasks, two seeds. The means of normals, 20 and 25 for the single-task network, are the ones that vary."""
    heads = {"kind": Classification("kind", ["cat", "dog"]), "normals": Normals("normals")}
    both = [kind(0.6) | normals(18, 0.8) | {"score": 0.7}, kind(0.8) | normals(30, 0.6) | {"score": 0.7}]
    runs = {
        "constant": {seed: {"val": both[0]} for seed in (0, 1)},
        "single-kind": {0: record(kind(0.5), 0, 100), 1: record(kind(0.0), 0, 100)},
        "single-normals": {0: record(normals(20, 0.4), 0, 200), 1: record(normals(25, 0.6), 0, 200)},
        "rpg-stage": {0: record(both[0], 40, 10), 1: record(both[1], 40, 10)},
        "none": {0: record(both[0], 0, 150)},
    }
    return Report("made up", [0, 1], heads, runs)


def row(report: Report, name: str) -> Any:
    return next(row for row in report.rows if row.name == name)


def test_deltas_are_against_the_networks_of_the_same_seed(report: Report) -> None:
    """By hand. Seed 0: accuracy +20 %, mean accuracy 0, mean angle 10 % less, median 0, within 30° +100 %. Seed 1: accuracy
    has a baseline of 0 and is left out, mean accuracy 0, mean angle 20 % more, median and within 30° 0.
    """
    rpg = row(report, "rpg-stage")
    assert rpg.figures[0]["delta_metrics"] == pytest.approx(-(20 + 0 + 10 + 0 + 100) / 5)
    assert rpg.figures[1]["delta_metrics"] == pytest.approx(20 / 4)
    assert rpg.figures[0]["delta_tasks"] == pytest.approx((10 + 110 / 3) / 2)
    assert rpg.figures[1]["delta_tasks"] == pytest.approx((0 - 20 / 3) / 2)
    assert rpg.statistics("delta_main") == pytest.approx((-2.5, statistics.stdev([15, -20])))
    assert rpg.statistics("kind.accuracy") == pytest.approx((0.7, 0.2 / 2**0.5))
    assert row(report, "none").statistics("kind.accuracy") == (0.6, None)
    assert "kind.accuracy" in {entry["metric"] for entry in report.left_out if entry["seed"] == 1}
    assert "Left out of Δm of constant, rpg-stage, not known or 0 in the baseline: kind.accuracy (seed 1)" in " ".join(
        report.notes()
    )


def test_single_task_networks_are_summed_up(report: Report) -> None:
    together = row(report, "single-task, all")
    assert together.figures[0]["parameters.trainable"] == 300
    assert together.figures[0]["bytes"] == 1200
    assert together.figures[0]["macs"] == 14
    assert together.figures[0]["seconds"] == 5
    assert [together.figures[seed]["score"] for seed in (0, 1)] == [pytest.approx(0.45), pytest.approx(0.55)]
    assert together.figures[0]["stage_1/normals.mean"] == 20


def test_tables(report: Report, tmp_path: Path) -> None:
    accuracy, cost, by_stage = report.grids()
    assert "Δm against the single-task networks of the same seed" in accuracy.title
    assert [column for column in accuracy.columns if "is better" in column] == [
        "Δm over metrics, %, lower is better",
        "Δm over tasks, %, higher is better",
        "Δm of main metrics, %, higher is better",
    ]
    lines = {line[0]: list(line) for line in accuracy.rows}
    assert list(lines) == [
        "constant", "single-kind", "single-normals", "single-task, all", "rpg-stage", "none (1 of 2 seeds)",
    ]  # fmt: skip
    assert lines["rpg-stage"][1:4] == ["0.700 ± 0.141", "24.000 ± 8.485", "0.700"]
    assert lines["none (1 of 2 seeds)"][1:] == ["0.600", "18.000", "0.700", "-26.00", "+23.33", "+15.00"]
    assert lines["single-kind"][2:4] == ["", ""]
    assert list(cost.rows[3]) == ["rpg-stage", "40", "80", "10", "50", "200", "7", "2"]
    assert "not MACs" in cost.title
    assert list(by_stage.rows[1]) == ["kind.accuracy ↑", "rpg-stage", "0.700 ± 0.141", "0.700 ± 0.141"]
    report.write(tmp_path, {}, tmp_path / "also.json")
    assert "| rpg-stage | 40 | 80 | 10 | 50 | 200 | 7 | 2 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "also.json").read_text() == (tmp_path / "benchmark.json").read_text()


def test_without_single_task_networks_there_is_no_delta(tmp_path: Path) -> None:
    val = kind(0.6)
    report = Report("made up", [3], {"kind": Classification("kind", ["cat", "dog"])}, {"constant": {3: {"val": val}}})
    (accuracy,) = report.grids()
    assert accuracy.title == "accuracy, made up, seed 3"
    assert list(accuracy.columns) == ["network", "kind.accuracy ↑", "score ↑"]
    assert list(accuracy.rows[0]) == ["constant", "0.600", "0.500"]
    report.write(tmp_path, {})
    assert json.loads((tmp_path / "benchmark.json").read_text())["baseline"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "tide"], "`--rows` is 'tide': did you mean `tied`? rows: constant, single"),
        (["--seeds", "0,0"], "`--seeds` is '0,0': give different whole numbers"),
        (["--seeds", "a"], "`--seeds` is 'a': give different whole numbers"),
        (["--jobs", "0"], "`--jobs` is 0: give at least 1"),
        (["--stop-after", "1"], "`--stop-after` is 1: all stages are compared"),
        (["--rpg-size", "2", "--rows", "rpg-stage", "--device", "cpu"], "--rpg-size 2"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(benchmark.main, ["multitask", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_run_folder_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert cli.run(benchmark.main, ["multitask", "--out", str(tmp_path)]) == 2
    assert "the folder of one run" in capsys.readouterr().err
