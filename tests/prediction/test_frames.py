"""Frames of videos: all of them, in their order and colours; what breaks off is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import videos

from rpgmt.errors import UserError
from rpgmt.prediction.command.drawn_video import DrawnVideo
from rpgmt.prediction.command.frames import Frames
from rpgmt.prediction.command.sources import Video


def read(path: Path) -> tuple[Frames, list[np.ndarray]]:
    frames = Frames(Video(str(path)))
    found = list(frames)
    frames.close()
    assert [frame.number for frame in found] == list(range(len(found)))
    return frames, [frame.pixels for frame in found]


def test_all_frames_come_in_red_green_blue(tmp_path: Path) -> None:
    frames, found = read(videos.write_video(tmp_path / "a.mp4", 12))
    assert (len(found), frames.count, frames.rate, frames.missing, frames.is_live) == (12, 12, 10, None, False)
    for number, pixels in enumerate(found):
        for colour, (x, y, w, h) in enumerate(videos.squares(number)):
            assert pixels[y + h // 2, x + w // 2].argmax() == colour


def test_a_drawn_video_keeps_time_and_pads_odd_sizes(tmp_path: Path) -> None:
    with DrawnVideo(tmp_path / "a.mp4", 10) as video:
        for number, value in ((0, 50), (1, 100), (4, 200)):
            video.add(np.full((61, 81, 3), value, np.uint8), number)
    _, found = read(tmp_path / "a.mp4")
    assert [round(int(pixels[30, 40, 0]) / 50) for pixels in found] == [1, 2, 4, 4, 4]
    assert found[0].shape == (62, 82, 3)
    with DrawnVideo(tmp_path / "none.mp4", 10):
        pass
    assert not (tmp_path / "none.mp4").exists()


@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_video_that_breaks_off_says_so(part: float, tmp_path: Path) -> None:
    videos.break_off(videos.write_video(tmp_path / "a.avi", 40, codec="MJPG"), part)
    frames, found = read(tmp_path / "a.avi")
    assert 0 < len(found) < 40
    assert frames.missing == f"it breaks off after {len(found)} of 40 frames"


def test_what_is_no_video_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    videos.break_off(videos.write_video(tmp_path / "a.mp4", 12), 0.5)  # its index stood at the end
    (tmp_path / "text.mp4").write_text("no video")
    for address in (str(tmp_path / "a.mp4"), str(tmp_path / "text.mp4"), "http://127.0.0.1:9/none"):
        with pytest.raises(UserError, match="can be read"):
            Frames(Video(address))
    assert capfd.readouterr() == ("", "")
