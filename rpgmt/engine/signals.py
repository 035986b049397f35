"""Ctrl-C and `kill`: a run ends in order."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Training was ended by SIGINT or SIGTERM.

    ``folder`` has checkpoint, model file and metrics; after a second signal perhaps no more than an earlier checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


class StopSignals:
    """Inside this context SIGINT and SIGTERM ask for an end; a second one has its usual effect at once.

    Args:
        speak: whether to say so on standard error.

    Attributes:
        asked: whether a signal has come to this process.
    """

    def __init__(self, *, speak: bool) -> None:
        self.asked, self._speak = False, speak
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self._speak:  # `print` may be at work itself when the signal comes
            # The progress bar stands where the cursor is, and after it the ^C: it is drawn again below.
            clear = b"\r\x1b[K" if os.isatty(2) else b""
            os.write(2, clear + b"stopping after this step and its validation, if any; once more: at once\n")
