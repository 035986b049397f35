"""The benchmark of the training step: that each part runs, and adds up to what can be counted by hand."""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rpgmt
from rpgmt import cli, models
from rpgmt.config import ModelConfig, TrainConfig
from rpgmt.errors import UserError
from tasks import pose
from tools import benchmark
from tools.benchmarks.step import fresh_processes, inference, memory
from tools.benchmarks.step.networks import KINDS, choose_kinds
from tools.benchmarks.step.training_step import TimedStep

MODEL: dict[str, Any] = {"channels": 8, "depth": 1, "stages": 2, "rpg_size": "20%", "input_size": (24, 24)}
TINY = ["--channels", "8", "--depth", "1", "--stages", "2", "--rpg-size", "20%", "--input-size", "24,24"]
TINY += ["--batch-size", "2", "--device", "cpu"]
CPU = torch.device("cpu")


def config(**train: Any) -> pose.Config:
    defaults: dict[str, Any] = {"batch_size": 2, "device": "cpu"}
    return pose.Config(model=ModelConfig(**MODEL), train=TrainConfig(**{**defaults, **train}))


def run(tmp_path: Path, *flags: str) -> dict[str, Any]:
    path = tmp_path / "step.json"
    assert benchmark.main(["step", *TINY, "--rounds", "2", "--json", str(path), *flags]) == 0
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def test_the_table_has_every_kind_and_its_phases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(tmp_path, "--ema", "0.9", "--accumulate", "3")
    text = capsys.readouterr().out
    for word in ("ratio to none", "ms beyond none", "rpg-undeferred", "ema", "3 batches a step", "a copy of the weights"):
        assert word in text
    assert [row["kind"] for row in record["rows"]] == list(KINDS)
    for row in record["rows"]:
        assert set(row["phases_ms"]) == {"forward", "backward", "optimizer", "ema"}
        assert row["ratio_quartiles"][0] <= row["ratio"] <= row["ratio_quartiles"][1]
    assert record["rows"][0]["ratio"] == 1.0
    counts = rpgmt.report(models.build(ModelConfig(**MODEL)))
    assert (record["generation"]["N"], record["generation"]["M"]) == (counts.bank, counts.generated)
    assert record["generation"]["of_step"] > 0


def test_chosen_kinds_alone_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(tmp_path, "--kinds", "tied,none", "--inference")
    assert [row["kind"] for row in record["rows"]] == ["none", "tied"]
    assert record["generation"] is None
    assert not {"memory", "wire"} & set(record)
    assert [row["network"] for row in record["inference"]] == ["none", "rpg, baked", "rpg"]
    assert "inference, 2 stages" in capsys.readouterr().out


def test_processes_reduce_four_bytes_a_parameter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run(tmp_path, "--kinds", "none", "--wire", "2")["wire"]
    counts = rpgmt.report(models.build(ModelConfig(**MODEL)))
    floats = sum(buffer.numel() for buffer in models.build(ModelConfig(**MODEL)).buffers() if buffer.is_floating_point())
    (reduced,) = record["reduced"]
    assert (reduced["processes"], reduced["ring"]) == (2, 1.0)
    for kind, generated in (("none", counts.generated), ("rpg", counts.bank)):
        parts = {"generated": 4 * generated, "rest": 4 * counts.fixed, "all": 4 * (generated + counts.fixed)}
        assert reduced["bytes"][kind] == parts
        assert record["optimizer"]["bytes"][kind] == {part: 2 * size for part, size in parts.items()}
        average = {"rest": parts["rest"] + 4 * floats, "all": parts["all"] + 4 * floats}
        assert record["ema"]["bytes"][kind] == {**parts, **average}
    assert reduced["ratios"]["generated"] == counts.bank / counts.generated
    assert "all-reduced by 2 processes" in capsys.readouterr().out


def _touch(size: int) -> None:
    """Takes memory from the system and gives it back."""
    with mmap.mmap(-1, size) as pages:
        for start in range(0, size, mmap.PAGESIZE):
            pages[start] = 1


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak is read from /proc")
def test_the_memory_of_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = run(tmp_path, "--kinds", "none", "--memory")["memory"]
    assert row["kind"] == "none"
    assert row["ratio"] == 1.0
    assert 0 < row["held_bytes"] <= row["peak_bytes"]
    assert "MiB at the peak" in capsys.readouterr().out


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak is read from /proc")
def test_the_meter_sees_a_peak_that_is_over_and_none_of_before() -> None:
    size = 64 * memory.MIB
    meter = memory._ResidentMeter()
    _touch(2 * size)  # gone before the start
    meter.start()
    _touch(size)
    assert 0.9 * size < meter.peak() < 1.5 * size
    assert meter.held() < 0.5 * size


def test_all_batches_of_a_step_give_one_gradient() -> None:
    """The kinds of generated networks differ in time alone."""
    values = {}
    for kind in ("rpg", "rpg-undeferred", "rpg-regenerate"):
        step = TimedStep(config(accumulate=3, precision="32"), kind, CPU)
        seconds = step.run()
        assert set(seconds) == {"step", "forward", "backward", "optimizer"}
        assert sum(seconds.values()) == pytest.approx(2 * seconds["step"], abs=1e-3)
        (values[kind],) = [
            parameter.detach() for name, parameter in step.task.model.named_parameters() if name == "bank_stage_1.values"
        ]
    for other in values.values():
        torch.testing.assert_close(other, values["rpg"])


def test_kinds_that_training_cannot_show_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose_kinds(None, TrainConfig()) == ["none", "tied", "rpg", "rpg-regenerate", "signed"]
    assert capsys.readouterr().out == ""
    assert choose_kinds(None, TrainConfig(compile=True)) == ["none", "tied", "rpg", "signed"]
    assert capsys.readouterr().out.startswith("rpg-regenerate is left out: ")
    assert choose_kinds("none,rpg-undeferred", TrainConfig()) == ["none"]
    assert capsys.readouterr().out.startswith("rpg-undeferred is left out: ")


def test_a_baked_network_that_is_another_is_an_error() -> None:
    plain = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU())
    inference.check_same(plain, nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU()))
    with pytest.raises(RuntimeError, match=r"not the plain one: module `1` is .*ReLU"):
        inference.check_same(plain, nn.Sequential(nn.Conv2d(2, 3, 1), nn.Identity()))
    with pytest.raises(RuntimeError, match=r"tensor `0.weight` is \(\(3, 2, 1, 1\), torch.float32\) there"):
        inference.check_same(plain, nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("[][0, 1]", "a process of the benchmark failed: TypeError: list indices must be integers"),
        ("__import__('rpgmt.cli').cli.Parser().error('give more')", "^give more$"),
        ("__import__('os')._exit(7)", "a process of the benchmark died with status 7"),
    ],
)
def test_a_process_that_fails_ends_the_others(expression: str, message: str) -> None:
    """`eval` is of no module that takes long to import."""
    started = time.monotonic()
    with pytest.raises(UserError, match=message):
        fresh_processes.run_all(eval, [("__import__('time').sleep(60)",), (expression,)])
    assert time.monotonic() - started < 30


def test_results_come_in_the_order_of_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_TEST", "before")
    assert fresh_processes.run_all(os.getenv, [("BENCHMARK_TEST",), ("NO_SUCH", "none")], {"BENCHMARK_TEST": "inside"}) == [
        "inside",
        "none",
    ]
    assert os.environ["BENCHMARK_TEST"] == "before"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rounds", "0"], "`--rounds` is 0: give at least 1"),
        (["--kinds", "none,rgp"], "`--kinds` is 'none,rgp': did you mean `rpg`? kinds: none, tied, rpg, rpg-undeferred"),
        (["--kinds", "rpg"], "`--kinds` is 'rpg': the others are compared with none, add it"),
        (["--wire", "1"], "`--wire` is '1': give different numbers of processes from 2 to 64, e.g. 2,4"),
        (["--wire", "2,2"], "`--wire` is '2,2'"),
        (["--wire", "two"], "`--wire` is 'two'"),
        (["--memory", "--device", "tpu"], "`--device` is 'tpu'"),
        (["--batch-size", "1", "--input-size", "12,12", "--depth", "4"], "`batch_size` is 1"),
    ],
)
def test_bad_input_is_one_line(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(benchmark.main, ["step", *TINY, *flags]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_memory_is_refused_where_it_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.check_memory("cuda")
    with pytest.raises(UserError, match="no figures of mps"):
        memory.check_memory("mps")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UserError, match="from /proc, which only Linux has"):
        memory.check_memory("cpu")
