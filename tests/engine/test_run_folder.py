"""A run folder belongs to one process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpgmt.config import TrainConfig
from rpgmt.engine.run_folder import taken
from rpgmt.errors import UserError


def test_a_folder_that_is_trained_in_is_refused_and_free_again_afterwards(tmp_path: Path) -> None:
    train = TrainConfig(out=tmp_path / "run")
    with taken(train, "toy") as folder:
        (folder.path / "config.yaml").write_text("task: toy\n")
        resumed = TrainConfig(out=tmp_path / "run", resume=True)
        with (
            pytest.raises(UserError, match=r"run: another process trains there; wait, or give another"),
            taken(resumed, "toy"),
        ):
            pass
    with taken(TrainConfig(out=tmp_path / "run", resume=True), "toy") as again:
        assert again == folder
    with pytest.raises(UserError, match="not an empty folder"), taken(train, "toy"):
        pass


def test_two_runs_without_a_name_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with taken(TrainConfig(), "toy") as one, taken(TrainConfig(), "toy") as two:
        assert {one.path, two.path} == {Path("runs/toy-1"), Path("runs/toy-2")}


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path: Path) -> None:
    with taken(TrainConfig(out=tmp_path / "run"), "toy") as folder:
        assert folder.path.is_dir()
    assert not (tmp_path / "run").exists()


def test_nor_is_one_left_by_an_error(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        raise UserError(f"{folder}: no data")

    with pytest.raises(UserError, match="no data"), taken(TrainConfig(out=tmp_path / "run"), "toy") as folder:
        build(folder.path)
    assert not (tmp_path / "run").exists()
