"""A prediction on all sources, from the network to the folder of results.

OUT/results.json     what was found in the images, in COCO's result format
OUT/images.json      which file an `image_id` is and what was written about it; the videos; the names of the key points
OUT/maps/            of networks with dense heads: classes as PNG, depth and normals as NPY
OUT/pictures/        images with what was found drawn into them
OUT/videos/          for each video `NAME.json`, as results.json with `frame` and `seconds`, and `NAME.mp4`
"""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt.engine.signals import StopSignals
from rpgmt.errors import UserError
from rpgmt.prediction.ahead import made_ahead
from rpgmt.prediction.command.boxes import PERSON, BoxedImage, Boxes
from rpgmt.prediction.command.drawn_video import DrawnVideo
from rpgmt.prediction.command.folder import Names, RowsFile
from rpgmt.prediction.command.following import Follower
from rpgmt.prediction.command.frames import Frame, Frames
from rpgmt.prediction.command.notes import Notes, printable
from rpgmt.prediction.command.outputs import category, draw, write_maps, write_pictures
from rpgmt.prediction.command.sources import Sources, Video
from rpgmt.prediction.people import People
from rpgmt.prediction.predictor import Predictor
from rpgmt.prediction.source import SourceImage
from rpgmt.whole_files import write_text

_DRAWN_AHEAD = 2
"""Images that the network is ahead of drawing."""


class _StoppedError(Exception):
    """No more images are wanted."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is written, and how.

    Args:
        pictures: whether to draw.
        stages: draw all stages side by side.
        min_score: people who score less are left out.
        min_point_score: key points that score less are not drawn, and do not count for `smooth`.
        track: give the people of a video lasting ids.
        smooth: smooth their key points.
    """

    pictures: bool = True
    stages: bool = False
    min_score: float = 0.0
    min_point_score: float = 0.2
    track: bool = False
    smooth: bool = False


class Run:
    """One prediction into one folder.

    Args:
        predictor: what finds.
        out: an empty folder.
        options: see `Options`.
        notes: take what is to be said.
        stop: says when to stop.
    """

    def __init__(self, predictor: Predictor, out: Path, options: Options, notes: Notes, stop: StopSignals) -> None:
        self._predictor, self._out, self._options = predictor, out, options
        self._notes, self._stop = notes, stop
        self._names = Names(list(predictor.reading.heads))
        self._images: list[dict[str, Any]] = []
        self._videos: list[dict[str, Any]] = []

    def predict(self, sources: Sources, boxes: Boxes | None = None) -> None:
        """Predicts on everything; what was found is written, also if it is stopped or fails.

        If every source was left out, the folder stays empty.

        Args:
            sources: what to predict on.
            boxes: of the images; None: as the predictor finds them.

        Raises:
            UserError: the network's numbers are not finite, a file cannot be written, or the boxes are of none of the images.
        """
        number = PERSON if boxes is None else boxes.category_id
        try:
            if sources.images:
                self._predict_images(self._boxed(sources.images, boxes), number)
            for video in sources.videos:
                if not self._stop.asked:
                    self._predict_video(video, number)
        except _StoppedError:
            pass
        finally:
            record = {
                "images": self._images,
                "videos": self._videos,
                "categories": [category(self._predictor.reading, number)],
            }
            text = json.dumps(record, indent=1, allow_nan=False) + "\n"
            write_text(self._out / "images.json", text)
        if not self._images and not self._videos:
            for name in ("results.json", "images.json"):
                (self._out / name).unlink(missing_ok=True)

    def _boxed(self, paths: Sequence[str], boxes: Boxes | None) -> list[tuple[str, BoxedImage]]:
        """The images, each with its id, and its boxes where a file has them."""
        if boxes is None:
            return [(path, BoxedImage(id, None, None)) for id, path in enumerate(paths, 1)]
        found, errors = [], []
        for path in paths:
            try:
                found.append((path, boxes.of(path)))
            except UserError as error:
                errors.append(error)
        if not found:
            raise errors[0]
        if errors:
            self._notes.skip(f"{errors[0]} (nor {len(errors) - 1} others)" if errors[1:] else str(errors[0]), len(errors))
        return found

    def _predict_images(self, images: Sequence[tuple[str, BoxedImage]], number: int) -> None:
        opened: deque[SourceImage | UserError] = deque()

        def open_each() -> Iterator[SourceImage | UserError]:
            for path, boxed in images:
                self._end_if_stopped()
                try:
                    opened.append(SourceImage.open(path, boxed.size))
                except UserError as error:
                    opened.append(error)
                yield opened[-1]

        found = self._predictor.attempts(open_each(), (boxed.boxes for _, boxed in images), ahead=self._predictor.batch_size)
        self._notes.begin("images", len(images))
        with RowsFile(self._out / "results.json") as rows, closing(made_ahead(found, _DRAWN_AHEAD)) as each:
            try:
                for (path, boxed), people in zip(images, each, strict=False):
                    self._finish_image(path, boxed.id, opened.popleft(), people, rows, number)
                    if self._stop.asked:
                        break
            finally:
                self._notes.end()

    def _finish_image(
        self,
        path: str,
        id: int | str,
        source: SourceImage | UserError,
        people: People | UserError,
        rows: RowsFile,
        number: int,
    ) -> None:
        if isinstance(source, UserError) or isinstance(people, UserError):
            self._notes.skip(str(people))
            return
        people = self._chosen(people)
        try:
            drawn = self._draw(people, source) if self._options.pictures else {}
        except UserError as error:  # of a broken file the part that was needed could be read
            self._notes.skip(str(error))
            return
        rows.add(people.to_coco(id, number), path)
        name = self._names.of(path)
        files = write_maps(people, self._out / "maps", name)
        files += write_pictures(drawn, self._out / "pictures", name) if drawn else []
        entry = {"id": id, "file_name": printable(path), "width": source.width, "height": source.height}
        self._images.append(entry | {"people": len(people), "files": [str(file.relative_to(self._out)) for file in files]})
        if not len(people):
            self._notes.say(f"{path}: nobody was found")
        self._notes.done("image", len(people))

    def _predict_video(self, video: Video, number: int) -> None:
        try:
            frames = Frames(video)
        except UserError as error:
            self._notes.skip(str(error))
            return
        folder = self._out / "videos"
        folder.mkdir(exist_ok=True)
        name = self._names.of(video.name)
        follower = self._follower(frames) if self._options.track else None
        empty: list[int] = []
        self._notes.begin(Path(video.name).name, frames.count)
        with ExitStack() as stack:
            stack.callback(frames.close)
            stack.callback(self._finish_video, video, frames, name, empty)
            stack.callback(self._notes.end)
            rows = stack.enter_context(RowsFile(folder / f"{name}.json"))
            drawn = stack.enter_context(DrawnVideo(folder / f"{name}.mp4", frames.rate))
            for frame, people in stack.enter_context(closing(self._found_in(frames))):
                people = self._chosen(people)
                if follower is not None:
                    people = follower.follow(people)
                place = {"frame": frame.number, "seconds": round(frame.seconds, 6)}
                rows.add([place | row for row in people.to_coco(frame.number, number)], f"{video.name}, frame {frame.number}")
                if self._options.pictures:
                    pictures = self._draw(people, SourceImage.open(frame.pixels))
                    drawn.add(np.hstack(list(pictures.values())), frame.number)
                if not len(people):
                    empty.append(frame.number)
                self._notes.done("frame", len(people))
                if self._stop.asked:
                    break

    def _found_in(self, frames: Frames) -> Generator[tuple[Frame, People]]:
        """Each frame and who is in it; of a camera or a stream the newest frame, at once."""
        predictor = self._predictor
        if frames.is_live:
            predictor = copy.copy(predictor)
            predictor.batch_size = 1
        waiting: deque[Frame] = deque()

        def read() -> Iterator[Any]:
            for frame in frames:
                self._end_if_stopped()
                waiting.append(frame)
                yield frame.pixels

        found = predictor.attempts(read(), ahead=0 if frames.is_live else predictor.batch_size)
        with closing(made_ahead(found, 0 if frames.is_live else _DRAWN_AHEAD)) as each:
            for people in each:
                if isinstance(people, UserError):
                    raise people
                yield waiting.popleft(), people

    def _end_if_stopped(self) -> None:
        """Raises where the next image would be read: a detector would look at many of them before one is finished."""
        if self._stop.asked:
            raise _StoppedError

    def _finish_video(self, video: Video, frames: Frames, name: str, empty: Sequence[int]) -> None:
        kept = [f"videos/{name}{ending}" for ending in (".json", ".mp4") if (self._out / f"videos/{name}{ending}").is_file()]
        entry = {"file_name": printable(video.name), "frames": frames.read, "frames_per_second": frames.rate, "files": kept}
        self._videos.append(entry)
        if empty:
            self._notes.say(f"{video.name}: nobody was found in {len(empty)} frames, the first is {empty[0]}")
        if frames.missing and not self._stop.asked:
            self._notes.skip(f"{video.name}: {frames.missing}")
        if frames.is_live and not self._stop.asked:
            self._notes.say(f"{video.name}: it ended after {frames.read} frames")

    def _chosen(self, people: People) -> People:
        return people.select(people.scores >= self._options.min_score) if self._options.min_score > 0 else people

    def _draw(self, people: People, source: SourceImage) -> dict[str, Any]:
        return draw(people, source, stages=self._options.stages, min_score=self._options.min_point_score)

    def _follower(self, frames: Frames) -> Follower:
        birth = 0.0 if self._predictor.detector is None else self._predictor.detector.threshold
        options = self._options
        return Follower(frames.rate, birth=birth, smooth=options.smooth, min_point_score=options.min_point_score)
