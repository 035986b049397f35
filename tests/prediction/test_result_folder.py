"""The folder of results: new, with harmless names, and whole files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rpgmt.errors import UserError
from rpgmt.prediction.command.folder import Names, RowsFile, new_folder


def test_folders_count_up_and_empty_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in ("1", "2"):
        with new_folder(None) as folder:
            (folder / "x").touch()
        assert folder == Path("predictions") / number
    with new_folder(None) as folder:
        assert folder.is_dir()
    assert not folder.exists()
    with pytest.raises(UserError, match="not an empty folder"), new_folder(Path("predictions/1")):
        pass
    (tmp_path / "empty").mkdir()
    with new_folder(Path("empty")) as folder:
        (folder / "x").touch()
    assert (tmp_path / "empty/x").exists()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("a/photo.jpg", "photo"),
        ("../../etc/passwd", "passwd"),
        ("..", "source"),
        ("a/.hidden.jpg", "hidden"),
        ("a b;rm -rf $(x)&.png", "a_b_rm_-rf_x_"),
        ("rtsp://user:secret@host/live.sdp", "live"),
        ("camera 0", "camera_0"),
        ("a\x00b\n.jpg", "a_b_"),
        ("多.jpg", "多"),
        ("\udcff.jpg", "_"),
    ],
)
def test_names_are_harmless(source: str, name: str, tmp_path: Path) -> None:
    assert Names().of(source) == name
    assert (tmp_path / f"{name}.json").resolve().parent == tmp_path.resolve()


def test_names_differ_and_fit(tmp_path: Path) -> None:
    names = Names()
    given = ["x.jpg", "y/x.png", "X.mp4", "x-2.jpg", "ü" * 200, "ü" * 201]
    found = [names.of(source) for source in given]
    assert len({name.lower() for name in found}) == len(given)
    assert found[:3] == ["x", "x-2", "X-3"]
    for name in found:
        (tmp_path / f"{name}_segmentation.png").touch()
    assert len(os.listdir(tmp_path)) == len(given)


def test_a_list_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    def interrupted() -> None:
        with RowsFile(path) as rows:
            rows.add([{"id": 2**63 - 1}, {"id": 2}], "a")
            assert not path.exists()
            rows.add([], "b")
            rows.add([{"id": "3"}], "c")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(path.read_text()) == [{"id": 2**63 - 1}, {"id": 2}, {"id": "3"}]
    assert os.listdir(tmp_path) == ["results.json"]
    with RowsFile(tmp_path / "none.json"):
        pass
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_all_rows_of_an_image_or_none(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with RowsFile(path) as rows:
        rows.add([{"score": 1.0}], "good")
        with pytest.raises(UserError, match="photo: the network gives numbers that are not finite"):
            rows.add([{"score": 1.0}, {"score": float("nan")}], "photo")
    assert json.loads(path.read_text()) == [{"score": 1.0}]


@pytest.mark.parametrize("given", [["a.jpg", "a_depth.jpg"], ["a_depth.jpg", "a.jpg"], ["a_Depth_x.jpg", "a.jpg", "A_DEPTH.x"]])
def test_what_is_written_about_one_source_is_named_as_nothing_of_another(given: list[str]) -> None:
    names = Names(["depth", "normals", "depth_x"])
    found = [names.of(source) for source in given]
    files = [name + ending for name in found for ending in ("", "_depth", "_normals", "_depth_x")]
    assert len({file.lower() for file in files}) == len(files)
    assert found[0] == Path(given[0]).stem
