"""Scalars for TensorBoard, written as they come.

Its own writer does that in a thread, which prints a traceback where the disk is full.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar

from rpgmt.whole_files import writing

VERSION = "brain.Event:2"


class Events:
    """A new file of events in a folder.

    Args:
        folder: where TensorBoard is to find it.
        step: what other files of the folder have of this step and later ones is void.

    Raises:
        UserError: it cannot be written; so say `add` and `close`.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.0"
        with writing(self._path):
            self._file = self._path.open("ab")
            self._records = RecordWriter(self._file)
        self._write(Event(file_version=VERSION))
        self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, values: dict[str, float], step: int) -> None:
        """Write scalars by name, of one step."""
        for name, value in values.items():
            self._write(Event(step=step, summary=scalar(name, value)))

    def close(self) -> None:
        """Close the file, in which all is written already, unless there was no room."""
        with writing(self._path):
            self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with writing(self._path):
            self._records.write(event.SerializeToString())
            self._file.flush()
