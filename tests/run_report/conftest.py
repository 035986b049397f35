"""Runs that the tests of reports share: small, and really trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.threads import single_thread

from rpgmt.synthetic.cache import load
from tools import train

TINY = ["--stages", "2", "--channels", "8", "--depth", "1", "--rpg-size", "50%", "--input-size", "32,32", "--batch-size", "4"]
TINY += ["--train-images", "8", "--val-images", "6", "--warmup-steps", "0", "--workers", "0", "--device", "cpu"]
TINY += ["--precision", "32"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small steps are faster."""
    with single_thread():
        yield


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the synthetic images of the tests."""
    folder = tmp_path_factory.mktemp("data")
    load(folder, count=8, split="train", progress=False)
    load(folder, count=6, split="val", progress=False)
    return folder


@pytest.fixture(scope="session")
def pose(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training of key points."""
    out = tmp_path_factory.mktemp("runs") / "pose-1"
    assert train.main(["pose", *TINY, "--data-root", str(root), "--epochs", "3", "--ema", "0.5", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def multitask(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training of several tasks."""
    out = tmp_path_factory.mktemp("runs") / "multitask-1"
    assert train.main(["multitask", *TINY, "--data-root", str(root), "--max-steps", "2", "--out", str(out)]) == 0
    return out
