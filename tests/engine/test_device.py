"""A device that is not there is found before anything that takes long."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rpgmt import cli
from rpgmt.engine.device import pick_device
from rpgmt.errors import UserError
from tools import train


@pytest.mark.skipif(torch.cuda.is_available(), reason="here there is one")
@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--device", "cuda"], "`device` is cuda: this machine has no CUDA device; give cpu, or auto"),
        (["--device", "cpu", "--precision", "16"], "`precision` is 16: a CPU has no mixed precision with float16"),
    ],
)
def test_before_data_are_read(flags: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pose", "--data", "coco", "--data-root", str(tmp_path / "none"), "--out", str(tmp_path / "run"), *flags]
    assert cli.run(train.main, words, "train.py") == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"train.py: {line}")
    assert said.err.count("\n") == 1
    assert "reading" not in said.out


@pytest.mark.parametrize("name", ["gpu", "cpu:0", "cuda:", "cuda:x"])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"give one of auto, cpu, cuda, mps, or the number of a GPU as in cuda:1"):
        pick_device(name)
