"""Run folders and model files of version 0.1, kept in golden/runs_0_1, are still read, measured and gone on with.

They were made with a few synthetic people of 32 pixels, and some images of CIFAR-10 (JPEG).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rpgmt
from tools import evaluate, summary, train

RUNS = Path(__file__).parent / "golden" / "runs_0_1"
TASKS = ("pose", "multitask", "classification")


@pytest.mark.parametrize("task", TASKS)
def test_models_are_read(task: str, tmp_path: Path) -> None:
    saved = json.loads((RUNS / task / "metrics.json").read_text())
    model = rpgmt.load(RUNS / task)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert summary.main([str(RUNS / task), "--json", str(tmp_path / "counts.json")]) == 0
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert (counts["parameters"], counts["macs"]) == (saved["parameters"], saved["macs"])


@pytest.mark.parametrize("task", ["pose", "multitask"])
def test_models_are_measured_as_they_were(task: str, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    assert evaluate.main([str(RUNS / task), "--data-root", str(tmp_path), "--json", str(found)]) == 0
    before, now = json.loads((RUNS / task / "metrics.json").read_text())["val"], json.loads(found.read_text())["val"]
    assert list(now) == list(before)
    none = {name for name, value in before.items() if value is None}
    assert {name for name, value in now.items() if value is None} == none
    for name in before.keys() - none:
        assert now[name] == pytest.approx(before[name], rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("task", TASKS)
def test_configs_are_read(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert summary.main([task, "--config", str(RUNS / task / "config.yaml")]) == 0
    saved = json.loads((RUNS / task / "metrics.json").read_text())["parameters"]
    assert f"{saved['trainable']:,}" in capsys.readouterr().out


def test_a_run_goes_on_as_it_would_have(tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(RUNS / "pose", out)
    flags = ["pose", "--resume", "--max-steps", "12", "--out", str(out), "--data-root", str(tmp_path / "data")]
    assert train.main(flags) == 0
    expected, found = load_file(RUNS / "pose_at_step_12.safetensors"), load_file(out / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        # Adam's first steps magnify the last bits, which depend on the machine and the number of threads.
        torch.testing.assert_close(found[name], tensor, rtol=1e-2, atol=3e-3)
    first = load_file(RUNS / "pose" / "model.safetensors")
    moved = found["bank_stage_1.values"] - first["bank_stage_1.values"]  # in six steps
    assert float(moved.abs().max()) > 5e-4  # and the moving average follows slowly
