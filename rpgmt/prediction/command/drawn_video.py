"""A video of what was found."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.errors import UserError
from rpgmt.whole_files import part_of


class DrawnVideo:
    """An mp4 file of pictures, which a context finishes, whatever happens in it. Without a picture there is no file.

    Args:
        path: of the file.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self._rate = path, rate
        self._part = part_of(path)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0

    def add(self, image: NDArray[np.uint8], number: int) -> None:
        """Adds the picture of a frame.

        Args:
            image: uint8 (H, W, 3), RGB, of any size; the first one's is the video's.
            number: of the frame: for frames that were passed over this one is repeated, so that the video keeps time.

        Raises:
            UserError: the video cannot be written.
        """
        if self._writer is None:
            height, width = image.shape[:2]
            self._size = (width + width % 2, height + height % 2)  # many players want even sizes
            self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*"mp4v"), self._rate, self._size)
            if not self._writer.isOpened():
                raise UserError(f"{self.path}: OpenCV cannot write this video: leave it out by --no-pictures")
        frame = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if (frame.shape[1], frame.shape[0]) != self._size:
            canvas = np.full((self._size[1], self._size[0], 3), 255, np.uint8)
            shown = frame[: self._size[1], : self._size[0]]
            canvas[: shown.shape[0], : shown.shape[1]] = shown
            frame = canvas
        while self._written <= number:
            self._writer.write(frame)
            self._written += 1

    def __enter__(self) -> DrawnVideo:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is None:
            return
        self._writer.release()
        try:
            if self._is_whole():
                os.replace(self._part, self.path)
            elif error is None:
                raise UserError(f"{self.path} cannot be written: it is cut off, as on a full disk: make room and try again")
        finally:
            self._part.unlink(missing_ok=True)

    def _is_whole(self) -> bool:
        """Whether the file has the frames: OpenCV's writer does not tell what the disk says."""
        capture = cv2.VideoCapture(str(self._part))
        try:
            return capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) == self._written
        finally:
            capture.release()
