"""Runs that are killed at any moment, again and again, end bit-equal, and no partial file is taken for a whole one.

The long form: `pytest -m slow tests/engine/test_killed_anywhere.py -s`; it prints what was cut where.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same_end
from toy import Toy, config

from rpgmt import cli
from rpgmt.config import load_yaml
from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.engine.loop import fit
from rpgmt.engine.model_file import load_weights
from rpgmt.engine.run_folder import RunFolder
from rpgmt.whole_files import part_of

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)


@pytest.fixture(scope="module", autouse=True)
def loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a training imports takes longer than the trainings here: processes inherit it."""
    fit(Toy(), config(tmp_path_factory.mktemp("loaded") / "run", max_steps=1))


def start(out: Path, generated: bool, **values: Any) -> ForkProcess:
    """Start the run, or go on with it, in a process of its own that says nothing."""

    def train() -> None:
        torch.set_num_threads(1)
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for good
        settings = config(out, resume=(out / "config.yaml").exists(), warmup_steps=3, **values)
        os._exit(cli.run(lambda argv: int(fit(Toy(generated=generated), settings) is None), []))

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    return process


def assert_whole(out: Path) -> None:
    """Each file that has its name can be read to its end."""
    folder = RunFolder(out)
    if folder.config.exists():
        assert load_yaml(folder.config)["task"] == "toy"
    for path in (folder.last, folder.best):
        if path.exists():
            assert {"model", "optimizer", "loader"} <= load_checkpoint(path).keys()
    for path in (folder.model, folder.best_model):
        if path.exists():
            load_weights(Toy(generated=_is_generated(path)).model, path)
    if folder.metrics.exists():
        assert json.loads(folder.metrics.read_text())["task"] == "toy"
    if folder.table.exists():
        with folder.table.open(newline="") as file:
            assert all(None not in row and row["step"].isdigit() for row in csv.DictReader(file))
    if folder.report.exists():
        assert folder.report.read_text().endswith("</html>\n")


def _is_generated(path: Path) -> bool:
    return b"bank.values" in path.read_bytes()[:20_000]


def end(process: ForkProcess, out: Path, chance: random.Random, seconds: float) -> str:
    """End a run by a signal: at a random moment, or while a file is written; return what was done."""
    assert process.pid is not None
    sign = chance.choice(SIGNALS)
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0, seconds))
        where = "at a random moment"
    else:
        name = chance.choice(["checkpoints/last.ckpt"] * 3 + ["checkpoints/best.ckpt", "model.safetensors", "metrics.json"])
        part, sign = part_of(out / name), signal.SIGKILL
        time.sleep(chance.uniform(0, 0.3 * seconds))
        while process.is_alive() and not part.exists():
            pass
        where = f"while {name} was written"
    if not process.is_alive():
        return "it had ended"
    os.kill(process.pid, sign)
    process.join(60)
    return f"{signal.Signals(sign).name} {where}"


def survive(tmp_path: Path, kills: int, seed: int, generated: bool = False, **values: Any) -> Counter[str]:
    """Kill a run so many times, and again from its beginning where it has ended; it ends as one that nobody touched."""
    before = time.monotonic()
    whole = fit(Toy(generated=generated), config(tmp_path / "whole", warmup_steps=3, **values))
    seconds = time.monotonic() - before
    chance, done, runs = random.Random(seed), Counter[str](), 0
    while done.total() - done["it had ended"] < kills:
        out, status = tmp_path / f"run-{(runs := runs + 1)}", None
        while status != 0:
            process, before = start(out, generated, **values), time.monotonic()
            if done.total() - done["it had ended"] < kills:
                done[what := end(process, out, chance, seconds)] += 1
                seconds = min(seconds, time.monotonic() - before) if what == "it had ended" else seconds
            process.join(120)
            status = process.exitcode
            assert status in (0, 130, -signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM), (status, done)
            assert_whole(out)
        assert_same_end(out, whole)
        assert (out / "report.html").exists()
        assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    print(f"seed {seed}, {values}: {runs} runs, {done.total()} ends: {dict(done)}")
    return done


def test_killed_at_random_moments(tmp_path: Path) -> None:
    survive(tmp_path, kills=5, seed=2, ema=0.9, epochs=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "values"),
    [
        (0, {}),
        (1, {"ema": 0.9}),
        (2, {"workers": 2}),
        (3, {"accumulate": 2, "generated": True}),
        (4, {"precision": "bf16", "patience": 2, "epochs": 4}),
    ],
)
def test_killed_at_many_moments(tmp_path: Path, seed: int, values: dict[str, Any]) -> None:
    survive(tmp_path, kills=24, seed=seed, **values)


def test_a_second_process_is_kept_out_and_the_first_is_not_touched(tmp_path: Path) -> None:
    first = start(out := tmp_path / "run", False, epochs=2)
    while first.is_alive() and not (out / "checkpoints/last.ckpt").exists():
        time.sleep(0.005)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)  # while the second one tries
    second = start(out, False, epochs=2)
    second.join(60)
    os.kill(first.pid, signal.SIGCONT)
    first.join(60)
    assert (second.exitcode, first.exitcode) == (2, 0)
    assert_whole(out)


def test_what_is_left_of_the_first_file_is_no_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    part_of(out / "config.yaml").write_text("task: t")
    fit(Toy(), config(out, max_steps=1))
    assert_whole(out)


@pytest.mark.parametrize("left", [(), ("report.html",), ("report.html", "curves.png")])
def test_a_finished_run_without_pictures_draws_them(tmp_path: Path, left: tuple[str, ...]) -> None:
    class Drawing(Toy):
        def draw(self, predictions: list[Any], folder: Path) -> None:
            super().draw(predictions, folder)
            (folder / "predictions.png").write_text(repr([(index, round(error, 6)) for index, error in sorted(predictions)]))

    out = fit(Drawing(), config(tmp_path / "run", max_steps=3, ema=0.5))
    drawn = (out / "predictions.png").read_text()
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.suffix not in (".png", ".html")}
    for name in left:
        (out / name).unlink()
    (out / "predictions.png").unlink()
    task = Drawing()
    fit(task, config(out, max_steps=3, ema=0.5, resume=True))
    assert task.batches == 0
    assert (out / "predictions.png").exists() == bool(left)
    assert (out / "report.html").exists()
    assert (out / "curves.png").exists()
    if left:
        assert (out / "predictions.png").read_text() == drawn  # of the averaged weights
    assert {path: path.read_bytes() for path in kept} == kept


def test_an_empty_config_is_no_run_to_go_on_with(tmp_path: Path) -> None:
    out = fit(Toy(), config(tmp_path / "run", max_steps=1))
    saved, time_of_it = (out / "config.yaml").read_bytes(), (out / "config.yaml").stat().st_mtime_ns
    fit(Toy(), config(out, max_steps=1, resume=True))
    assert (out / "config.yaml").stat().st_mtime_ns == time_of_it
    fit(Toy(), config(out, max_steps=2, resume=True))
    assert (out / "config.yaml").read_bytes() == saved.replace(b"max_steps: 1", b"max_steps: 2")
    (out / "config.yaml").write_bytes(b"")
    with pytest.raises(ValueError, match=r"its config\.yaml is empty, so that nobody knows what its run was: put back a copy"):
        fit(Toy(), config(out, max_steps=3, resume=True))
