"""From what a user writes to images and videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rpgmt.errors import UserError
from rpgmt.prediction.command.sources import Video, find_sources
from rpgmt.prediction.source import SourceImage


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


@pytest.mark.usefixtures("folder")
def test_still_images_are_no_videos(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save("p/moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save("still.gif")
    for name in ("p/a.TIF", "p/b.heic", "p/.DS_Store"):
        (tmp_path / name).touch()
    found = find_sources(["p"])
    assert found.images == ["p/9.JPG", "p/10.jpg", "p/a.TIF", "p/b2.png", "p/b10.png"]
    assert (found.videos, found.passed_over) == ([], ["p/b.heic", "p/moves.gif", "p/notes.txt"])
    found = find_sources(["p/[ab].*", "p/moves.gif"])
    assert (found.images, found.videos, found.passed_over) == (["p/a.TIF"], [Video("p/moves.gif")], ["p/b.heic"])
    for word in ("p/b.heic", "p/b.h*", "still.gif"):
        with pytest.raises(UserError, match="tiff") as error:
            find_sources([word])
        assert word in str(error.value)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_tiff_images_are_read_as_they_are_to_be_seen(orientation: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    noted = Image.Exif()
    noted[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.tif", exif=noted)
    expected = {1: pixels, 3: np.rot90(pixels, 2), 6: np.rot90(pixels, -1), 8: np.rot90(pixels)}[orientation]
    source = SourceImage.open(tmp_path / "a.tif")
    assert (source.width, source.height) == (expected.shape[1], expected.shape[0])
    np.testing.assert_array_equal(source.pixels, expected)
