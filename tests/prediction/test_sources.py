"""From what a user writes to images and videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpgmt.errors import UserError
from rpgmt.prediction.command.sources import Video, find_sources


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("p/10.jpg", "p/9.JPG", "p/b2.png", "p/b10.png", "p/notes.txt", "p/in/x.webp", "dance.mp4", "a[1].jpg", "7"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "images", "videos"),
    [
        (["p"], ["p/9.JPG", "p/10.jpg", "p/b2.png", "p/b10.png"], []),
        (["p/b*.png"], ["p/b2.png", "p/b10.png"], []),
        (["p/**/*.webp"], ["p/in/x.webp"], []),
        (["a[1].jpg"], ["a[1].jpg"], []),  # a file of this name is no pattern
        (["p/10.jpg", "p/9.JPG", "p/1*.jpg"], ["p/10.jpg", "p/9.JPG"], []),  # each once, as they were written
        (["dance.mp4", "0", "rtsp://host/1", "HTTP://host/a.jpg"], [], ["dance.mp4", 0, "rtsp://host/1", "HTTP://host/a.jpg"]),
        (["./7", "7"], [], ["./7", 7]),
        (["p/b2.png", "*.mp4"], ["p/b2.png"], ["dance.mp4"]),
    ],
)
def test_what_words_name(words: list[str], images: list[str], videos: list[str | int]) -> None:
    found = find_sources(words)
    assert found.images == images
    assert found.videos == [Video(address) for address in videos]


def test_passwords_are_not_written() -> None:
    assert Video("rtsp://user:secret@host/live").name == "rtsp://host/live"
    assert (Video(3).name, Video("a@b.mp4").name) == ("camera 3", "a@b.mp4")


@pytest.mark.parametrize("word", ["nothing.jpg", "no*.png", "empty"])
def test_what_is_not_there_is_named(word: str, folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UserError) as error:
        find_sources(["p", word])
    assert word in str(error.value)
    assert "\n" not in str(error.value)
