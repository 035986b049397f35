"""Every preset of the pose task: it takes two steps on files of its data set's format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.people_files import write_coco, write_crowdpose, write_lsp, write_mpii

from rpgmt.config.presets import CONFIGS
from tools import train

PRESETS = sorted(path.stem for path in (CONFIGS / "pose").glob("*.yaml"))
WRITERS: dict[str, Callable[[Path, int], None]] = {
    "coco": write_coco,
    "coco_256": write_coco,
    "coco_json": write_coco,
    "crowdpose": write_crowdpose,
    "lsp": write_lsp,
    "mpii": write_mpii,
}
SHORT = ["--batch-size", "2", "--accumulate", "1", "--max-steps", "2", "--workers", "0", "--device", "cpu"]
SMALL = ["--channels", "16", "--rpg-size", "25%"]
"""Beside it `summary` builds every preset as it is, and the long form of the test trains that."""


@pytest.mark.parametrize("flags", [pytest.param(SMALL, id="small"), pytest.param([], id="whole", marks=pytest.mark.slow)])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_takes_two_steps(preset: str, flags: list[str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    arguments = ["pose", "--config", preset, "--data-root", str(root), "--out", str(tmp_path / "run"), *SHORT, *flags]
    if preset in WRITERS:
        WRITERS[preset](root, 4)
    else:
        arguments += ["--train-images", "4", "--val-images", "4"]
    assert train.main(arguments) == 0
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["steps"] == 2
    assert record["data"]["boxes"] == "gt boxes"
    assert {"stage_1", "stage_4"} <= {name.split("/")[0] for name in record["val"]}
    shutil.rmtree(root)
