"""The benchmark of generation: that it runs, adds up, and compares what computes the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from rpgmt import cli
from rpgmt.rpg.generate import ParameterGenerator
from rpgmt.rpg.layout import Segment
from rpgmt.rpg.placement import Placement
from tools import benchmark
from tools.benchmarks.generation import authors, compiled, floors, timing
from tools.benchmarks.generation.problem import Kind, Problem
from tools.benchmarks.generation.report import PARTS

CPU = torch.device("cpu")
SMALL = ("generation", "--generated", "20K", "--size", "3K", "--layers", "5001,900", "--device", "cpu", "--rounds", "3")


def test_the_table_has_all_kinds_and_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "generation.json"
    threads = torch.get_num_threads()
    assert benchmark.main([*SMALL, "--blocks", "1,16", "--split", "--threads", "1", "--json", str(path)]) == 0
    assert torch.get_num_threads() == threads
    text = capsys.readouterr().out
    for word in ("M = 20,000 weights of 7 layers from N = 3,000", "float32, cpu, 1 thread,", "authors'", "own / gather"):
        assert word in text
    record = json.loads(path.read_text())
    rows = {row["kind"]: row for row in record["rows"]}
    assert list(rows) == [
        *("authors' formula", "ours, block 1", "ours, block 16", "ours, block 1, split", "ours, block 16, split"),
        *("gather, 32-bit indices", "gather, 64-bit indices", "copy, same memory", "copy"),
    ]
    bytes_per_weight = {kind: row["bytes_per_weight"] for kind, row in rows.items()}
    assert bytes_per_weight["authors' formula"] == 12
    assert [bytes_per_weight[f"gather, {bits}-bit indices"] for bits in (32, 64)] == [8, 16]
    assert bytes_per_weight["copy"] == bytes_per_weight["copy, same memory"] == 0
    assert all(0 < bytes_per_weight[f"ours, block {block}"] <= 9 for block in (1, 16))  # padding has tables, too
    assert (record["generated"], record["size"], record["layers"], record["rounds"]) == (20_000, 3000, 7, 3)
    for row in rows.values():
        for part in PARTS:
            low, high = row[f"{part}_ms_quartiles"]
            assert 0 < low <= row[f"{part}_ms"] <= high
        assert row["ratio_to_copy"]["forward"]["ratio"] > 0
    for kind, base in (
        ("authors' formula", "times_as_fast_as_authors"),
        ("gather, 32-bit indices", "ratio_to_gather"),
        ("copy", "ratio_to_copy"),
    ):
        assert all(rows[kind][base][part] == {"ratio": 1, "ratio_quartiles": [1, 1]} for part in PARTS)


def test_bfloat16_is_that_of_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "generation.json"
    assert benchmark.main([*SMALL, "--blocks", "1", "--dtype", "bf16", "--size", "10%", "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert (record["dtype"], record["size"]) == ("bfloat16", 2000)


def test_a_sweep_draws_both_series_and_leaves_out_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_free_bytes", lambda device: 30_000 * timing.AUTHORS_BYTES)
    monkeypatch.setattr(timing, "POINT_SECONDS", 0.0)
    figure, path = tmp_path / "docs" / "sweep.png", tmp_path / "sweep.json"
    arguments = [*SMALL, "--blocks", "1", "--sweep", "40K", "--figure", str(figure), "--json", str(path)]
    assert benchmark.main(arguments) == 0
    assert "authors' formula is left out at 40,000 weights" in capsys.readouterr().out
    assert figure.stat().st_size <= 300_000
    assert cv2.imread(str(figure)).shape[1] > 800
    series = json.loads(path.read_text())["series"]
    assert [(point["generated"], point["size"]) for point in series["generated"]] == [(4000, 600), (12649, 1897), (40000, 6000)]
    assert [point["size"] for point in series["size"]] == [20_000 // 4**k for k in (5, 4, 3, 2, 1, 0)]
    assert {point["rounds"] for points in series.values() for point in points} == {1}
    last = series["generated"][-1]["rows"]
    assert [row["kind"] for row in last] == ["ours, block 1", "copy"]
    assert last[0]["times_as_fast_as_authors"] is None


def test_the_authors_tables_are_even() -> None:
    index, sign = authors.draw(300, 1000)
    counts = torch.bincount(index, minlength=300)
    assert (counts.min(), counts.max()) == (3, 4)
    assert (index.dtype, sign.dtype, set(sign.tolist())) == (torch.int64, torch.float32, {1.0, -1.0})
    assert abs(float(sign.mean())) < 0.1


@pytest.mark.parametrize("fault", ["weights", "gradient"])
def test_what_computes_something_else_is_not_timed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Problem(50, [Segment(70, 2.0), Segment(30, 1.0)], torch.float32, CPU)
    authors.check(made, 1)
    authors.check(made, 16)

    generate = ParameterGenerator.generate

    def wrong(self: ParameterGenerator, bank: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        flat = generate(self, bank, dtype)
        return flat * 1.001 if fault == "weights" else flat.detach() + 0 * flat

    monkeypatch.setattr(ParameterGenerator, "generate", wrong)
    with pytest.raises(RuntimeError, match=f"block 1: the {'weights of layer 0' if fault == 'weights' else 'bank.s gradient'}"):
        authors.check(made, 1)


@pytest.mark.parametrize(("size", "generated"), [(1, 1), (1, 5), (7, 3), (64, 64), (64, 200)])
def test_the_gather_takes_each_entry_and_each_gradient_as_often_as_the_generator(size: int, generated: int) -> None:
    made = Problem(size, [Segment(generated, 1.0)], torch.float32, CPU)
    kind = floors.gather(made, torch.int32)
    with torch.no_grad():
        made.bank.copy_(torch.arange(size))
    counts = kind.forward().long().bincount(minlength=size)
    assert (counts.min(), counts.max()) == (generated // size, math.ceil(generated / size))
    kind.backward(None)
    assert made.bank.grad is not None
    torch.testing.assert_close(made.bank.grad.sum(), made.gradient[:generated].sum())


@pytest.mark.parametrize(("size", "generated"), [(400, 1500), (10_000, 4000), (2003, 9000)])
def test_the_traceable_placement_is_the_placement(size: int, generated: int) -> None:
    laps = -(-generated // size)
    placement = Placement(size)
    traceable = compiled.TraceablePlacement(placement, laps, CPU)
    lap, position = torch.arange(laps)[:, None], torch.arange(size)[None]
    for name in ("entries", "positions", "negative"):
        assert torch.equal(getattr(traceable, name)(lap, position), getattr(placement, name)(lap, position)), name


def _compiled(backend: str, size: int, dtype: torch.dtype = torch.float32) -> Kind:
    """Made, it has been compared with `generate`."""
    return compiled.compiled(Problem(size, [Segment(1500, 3.0), Segment(100, 1.0)], dtype, CPU), backend)


def test_the_compiled_generator_is_traced_whole() -> None:
    kind = _compiled("eager", 400)
    assert kind.forward().shape == (1600,)
    assert kind.table_bytes == 4 * 40  # laps


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dtype"), [(400, torch.float32), (1009, torch.bfloat16)])
def test_the_compiled_generator_is_the_generator(size: int, dtype: torch.dtype) -> None:
    assert _compiled("inductor", size, dtype).forward().dtype == dtype


def test_a_bank_whose_placement_walks_too_often_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda **options: lambda function: function)
    monkeypatch.setattr(compiled, "WALKS", 0)
    with pytest.raises(ValueError, match="walks 0 times at most, which a bank of 1009 entries exceeds"):
        _compiled("eager", 1009)


BAD: list[tuple[list[Any], str]] = [
    (["--rounds", "0"], "`--rounds` is 0: give at least 1"),
    (["--generated", "some"], "`--generated` is 'some': not a size"),
    (["--generated", "10%"], "`--generated` is 10%: a percentage needs the number of generated weights"),
    (["--size", "0"], "`--size` is 0: give at least 1"),
    (["--layers", "100,,3"], "`--layers` is '': not a size"),
    (["--blocks", "1,0"], "`--blocks` is '1,0': give different whole numbers from 1 to"),
    (["--blocks", "16,16"], "`--blocks` is '16,16': give different"),
    (["--threads", "0"], "`--threads` is 0: give at least 1"),
    (["--device", "cpu", "--queued"], "`--queued` is for CUDA"),
    (["--figure", "a.png"], "`--figure` draws a sweep: give `--sweep`"),
    (["--sweep", "--figure", "a.jpg"], "`--figure` is a.jpg: a PNG is written"),
    (["--sweep", "--compile"], "leave out `--split` and `--compile`"),
    (["--sweep", "1T"], "`--sweep` is '1T': not a size"),
    (["--block", "3"], "did you mean `--blocks`"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_what_the_user_can_mend_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(benchmark.main, ["generation", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
