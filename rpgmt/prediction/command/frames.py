"""The frames of videos, cameras and streams."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.errors import UserError
from rpgmt.prediction.command.sources import Video

# What fails is said in a line of our own. OpenCV reads this when it opens the first video; -8 is quiet in FFmpeg's numbers.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_USUAL_RATE = 30.0
"""Frames a second where a camera does not say."""
_ESTIMATE = 0.02
"""Part of a video's frames by which its header may be wrong: some formats tell the seconds only."""


class Frame(NamedTuple):
    """One frame.

    Args:
        number: from 0; of a camera frames that were not looked at count too.
        seconds: since the first.
        pixels: uint8 (H, W, 3), RGB.
    """

    number: int
    seconds: float
    pixels: NDArray[np.uint8]


class Frames:
    """The frames of an opened video.

    Attributes:
        rate: frames a second.
        count: how many the file says that there are; None where nobody knows.
        is_live: whether they come when they come: a camera, or a stream without an end.

    Args:
        video: what to open.

    Raises:
        UserError: it cannot be opened.
    """

    def __init__(self, video: Video) -> None:
        self.name = video.name
        with _silent_opencv():
            self._capture = cv2.VideoCapture(video.address)
        if not self._capture.isOpened():
            raise UserError(f"{video.name}: {'not a video that' if video.is_file else 'nothing that'} can be read")
        rate, count = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.rate = rate if 0 < rate <= 1000 else _USUAL_RATE
        self.count = int(count) if 0 < count < 2**31 else None
        self.is_live = not video.is_file and (self.count is None or isinstance(video.address, int))
        if self.is_live:
            self.count = None
        self.read = 0

    def __iter__(self) -> Iterator[Frame]:
        return self._newest() if self.is_live else self._all()

    def close(self) -> None:
        """Lets go of the camera or the file."""
        self._capture.release()

    @property
    def missing(self) -> str | None:
        """What is missing when all is read, in words; None where nothing is."""
        if self.count is None or self.count - self.read <= max(2, _ESTIMATE * self.count):
            return None
        return f"it breaks off after {self.read} of {self.count} frames"

    def _all(self) -> Iterator[Frame]:
        while True:
            there, image = self._capture.read()
            if not there:
                return
            yield Frame(self.read, self.read / self.rate, _rgb(image))
            self.read += 1

    def _newest(self) -> Iterator[Frame]:
        """Of frames that come faster than they are looked at the last one: nothing lags behind."""
        newest: list[tuple[int, float, NDArray[Any]] | None] = []
        changed = threading.Condition()
        stop = threading.Event()

        def read() -> None:
            started, number = time.monotonic(), 0
            while not stop.is_set():
                there, image = self._capture.read()
                frame = (number, time.monotonic() - started, image) if there else None
                with changed:
                    newest[:] = [frame]
                    changed.notify()
                if frame is None:
                    return
                number += 1

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            while True:
                with changed:
                    while not newest:
                        changed.wait(0.1)
                    frame = newest.pop()
                if frame is None:
                    return
                number, seconds, image = frame
                self.read = number + 1
                yield Frame(number, seconds, _rgb(image))
        finally:
            stop.set()
            thread.join(5)  # a stalled stream is left to the end of the program


def _rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB), np.uint8)


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """Meanwhile it does not print."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
