"""What can be known of a run folder before anything heavy is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import Toy, config

from rpgmt.engine import run_folder
from rpgmt.engine.loop import fit
from rpgmt.engine.run_folder import RunFolder, is_finished
from rpgmt.errors import UserError


def test_a_model_without_a_checkpoint_is_not_trained_over(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(Toy(), config(out, epochs=1))
    (out / "checkpoints/last.ckpt").unlink()
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(
        UserError, match=r"no checkpoint to go on from .*, and its model would be lost; give another --out, with --init"
    ):
        fit(Toy(), config(out, epochs=2, resume=True))
    assert (out / "model.safetensors").read_bytes() == before


def test_whether_a_run_is_finished(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(Toy(), config(out, epochs=1))
    folder = RunFolder(out)
    assert is_finished(folder, config(out, epochs=1, resume=True))
    assert not is_finished(folder, config(out, epochs=2, resume=True))
    assert not is_finished(folder, config(out, epochs=1, max_steps=9, resume=True))
    assert not is_finished(RunFolder(tmp_path), config(tmp_path))
    record = json.loads(folder.metrics.read_text())
    for ended in (None, run_folder.ended("interrupted", config(out, epochs=1).train)):
        folder.metrics.write_text(json.dumps(record | {"ended": ended}))
        assert not is_finished(folder, config(out, epochs=1, resume=True))


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_cannot_be_is_refused(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"`out` is .*file/run: .*file is not a folder; give another"):
        run_folder.choose(config(tmp_path / "file/run", resume=resume).train, "toy")
    with pytest.raises(UserError, match="`out` is '': give the name of a folder"):
        config("", resume=resume)  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_so_is_one_where_nothing_may_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written to"):
        run_folder.choose(config(tmp_path / "run").train, "toy")


def test_no_torch_is_needed_for_it() -> None:
    code = "import sys, rpgmt.engine.run_folder, rpgmt.engine.closing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
