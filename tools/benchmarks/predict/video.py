"""The rate of the whole command on a video, and the time of its steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from rich.table import Table

from rpgmt.detection.detector import Corners, Detector
from rpgmt.engine.signals import StopSignals
from rpgmt.prediction.command.drawn_video import DrawnVideo
from rpgmt.prediction.command.frames import Frames
from rpgmt.prediction.command.notes import Notes
from rpgmt.prediction.command.outputs import draw
from rpgmt.prediction.command.run import Options, Run
from rpgmt.prediction.command.sources import Sources, Video
from rpgmt.prediction.network import Decoded, Network
from rpgmt.prediction.predictor import Predictor
from rpgmt.prediction.source import SourceImage
from rpgmt.synthetic.parallel import render_many
from tools.benchmarks.common.made_images import IMAGE_SIZE, photograph

STEPS = {
    "decode": "the video's frame",
    "detect": "people",
    "crop": "cut out, scaled, put back",
    "network": "with points from maps",
    "draw": "into the frame",
    "encode": "the drawn frame",
}


def measure(predictor: Predictor, folder: Path, count: int) -> dict[str, Any]:
    """Predicts on a made video: frames a second of the command, and milliseconds a frame of its steps alone."""
    file = folder / "person.mp4"
    make_video(file, count)
    steps, people = _steps(predictor, file, folder / "again.mp4", count)
    rates = {}
    for pictures in (True, False):
        out = folder / f"out-{pictures}"
        out.mkdir()
        started = time.perf_counter()
        with StopSignals(speak=False) as stop:
            options = Options(pictures=pictures)
            Run(predictor, out, options, Notes("benchmark"), stop).predict(Sources([], [Video(str(file))]))
        rates["drawn" if pictures else "not drawn"] = count / (time.perf_counter() - started)
    return {"frames": count, "people_a_frame": people / count, "frames_per_second": rates, "ms": steps}


def table(title: str, record: dict[str, Any]) -> Table:
    table = Table(title=f"video of {record['frames']} frames, {title}", title_justify="left")
    for column in ("", "ms a frame", "part"):
        table.add_column(column, justify="right" if column else "left")
    total = sum(record["ms"].values())
    for step, what in STEPS.items():
        if step in record["ms"]:
            table.add_row(f"{step}: {what}", f"{record['ms'][step]:.2f}", f"{record['ms'][step] / total:.0%}")
    table.add_section()
    rates = record["frames_per_second"]
    table.add_row("people a frame", f"{record['people_a_frame']:.2f}", "")
    table.add_row("frames/s, one step after another", f"{1000 / total:.1f}", "")
    table.add_row("frames/s of the command", f"{rates['drawn']:.1f}", "")
    table.add_row("frames/s of the command, --no-pictures", f"{rates['not drawn']:.1f}", "")
    return table


def make_video(file: Path, count: int) -> None:
    """A drawn person who moves through a still picture."""
    width, height = IMAGE_SIZE
    background = photograph(np.random.default_rng(0))
    (scene,) = render_many(0, 0, 1, 96, processes=1)
    person = cv2.resize(scene.image, (384, 384), interpolation=cv2.INTER_CUBIC)
    with DrawnVideo(file, 30) as video:
        for number in range(count):
            frame = background.copy()
            x = round((width - 384) * (0.5 + 0.5 * np.sin(number / 20)))
            frame[height - 384 :, x : x + 384] = person
            video.add(frame, number)


def _steps(predictor: Predictor, file: Path, drawn: Path, count: int) -> tuple[dict[str, float], int]:
    """Milliseconds a frame of each step, one after another and in the batches of the command; and how many people there are."""
    seconds = dict.fromkeys(STEPS, 0.0)
    detector = None if predictor.detector is None else _TimedDetector(predictor.detector, seconds)
    timed = Predictor(
        _TimedNetwork(predictor.network, seconds), detector=detector, batch_size=predictor.batch_size, every_stage=False
    )
    waiting: deque[NDArray[np.uint8]] = deque()

    def read() -> Iterator[NDArray[np.uint8]]:
        reader = iter(frames)
        while True:
            with _timed(seconds, "decode"):
                frame = next(reader, None)
            if frame is None:
                return
            waiting.append(frame.pixels)
            yield frame.pixels

    frames, people = Frames(Video(str(file))), 0
    started = time.perf_counter()
    with DrawnVideo(drawn, 30) as video:
        for number, found in track(enumerate(timed.stream(read())), "steps", count, transient=True):
            pixels = waiting.popleft()
            with _timed(seconds, "draw"):
                picture = draw(found, SourceImage.open(pixels), stages=False, min_score=0.2)["people"]
            with _timed(seconds, "encode"):
                video.add(picture, number)
            people += len(found)
    seconds["crop"] = time.perf_counter() - started - sum(seconds.values())
    frames.close()
    if detector is None:
        del seconds["detect"]
    return {step: 1000 * taken / count for step, taken in seconds.items()}, people


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[step] += time.perf_counter() - started


class _TimedNetwork(Network):
    def __init__(self, network: Network, seconds: dict[str, float]) -> None:
        self.reading, self.stages = network.reading, network.stages
        self._network, self._seconds = network, seconds

    def __call__(self, crops: NDArray[np.uint8], stop_after: int | None, flip_test: bool) -> Decoded:
        with _timed(self._seconds, "network"):
            decoded = self._network(crops, stop_after, flip_test)
            decoded[-1]  # read now
        return decoded


class _TimedDetector(Detector):
    def __init__(self, detector: Detector, seconds: dict[str, float]) -> None:
        super().__init__(detector.threshold, detector.classes)
        self._detector, self._seconds = detector, seconds

    def _detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Corners]:
        with _timed(self._seconds, "detect"):
            return self._detector._detect(images)
