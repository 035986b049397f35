"""Files are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.full_disk import FULL, no_file_larger_than

from rpgmt import cli
from rpgmt.errors import UserError
from rpgmt.whole_files import whole_file, write_bytes, write_text, writing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    write_text(path, "old", folders=True)
    with whole_file(path) as part:
        part.write_text("né", encoding="utf-8")
        assert path.read_text() == "old"
        assert part.suffix == ".json"
    assert path.read_text(encoding="utf-8") == "né"
    assert names(path.parent) == ["a.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("durable", [False, True])
def test_a_disk_that_is_full_in_the_middle_leaves_the_old_one(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old", durable=durable)
    with no_file_larger_than(1000), pytest.raises(UserError, match=r"a\.bin cannot be written: File too large: the system"):
        write_bytes(path, bytes(2000), durable=durable)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]
    write_bytes(path, bytes(2000), durable=durable)
    assert path.stat().st_size == 2000


def test_any_error_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def fail(error: BaseException) -> None:
        with whole_file(path) as part:
            part.write_text("new")
            raise error

    for error in (KeyboardInterrupt(), ValueError("x"), FileNotFoundError(2, "No such file", "/elsewhere")):
        with pytest.raises(type(error)):
            fail(error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, reason in (("gone/a", "No such file or directory: its folder is not there"), ("file/a", "Not a directory")):
        with pytest.raises(UserError, match=f"{path} cannot be written: {reason}"):
            write_text(tmp_path / path, "x")
    with pytest.raises(UserError, match="folder cannot be written: Is a directory: give the name of a file in it"):
        write_text(tmp_path / "folder", "x")


def test_links_and_devices_stay_what_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").write_text("old")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    write_text(Path("/dev/null"), "new")
    assert not Path("/dev/null").is_file()
    with pytest.raises(UserError, match="/dev/full cannot be written: No space left on device: make room and try again"):
        write_text(FULL, "new")
    assert FULL.is_char_device()


def test_what_is_appended_names_its_file(tmp_path: Path) -> None:
    def append() -> None:
        with writing(tmp_path / "log"), (tmp_path / "log").open("a") as file:
            file.write("x" * 2000)

    with no_file_larger_than(1000), pytest.raises(UserError, match="log cannot be written: File too large"):
        append()


def test_where_what_is_printed_cannot_be_written_a_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str]) -> None:
        print("x" * 10)

    with FULL.open("w") as full, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", full)
        assert cli.run(main, [], "tool.py") == 2
    assert capsys.readouterr().err == "tool.py: standard output, or a file: No space left on device\n"
