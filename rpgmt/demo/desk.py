"""One model that answers one question at a time: its queue, and its last answers."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from http import HTTPStatus
from typing import Any

from rpgmt.demo.answer import Answer, describe_heads
from rpgmt.demo.example import Example, draw_example
from rpgmt.demo.limits import MAX_BOXES, MAX_BYTES, MAX_PIXELS, MAX_QUEUE, RefusedError
from rpgmt.errors import UserError
from rpgmt.prediction.predictor import Predictor
from rpgmt.prediction.source import SourceImage

_KEPT = 16
"""Answers whose maps can still be asked for."""


class Desk:
    """Takes questions, one at a time.

    Args:
        predictor: answers.
        name: of the model, as the page shows it.
    """

    def __init__(self, predictor: Predictor, name: str) -> None:
        self.predictor, self.name = predictor, name
        self._computing, self._counting, self._drawing = threading.Lock(), threading.Lock(), threading.Lock()
        self._numbers = itertools.count(1)
        self._answers: OrderedDict[int, Answer] = OrderedDict()
        self.queue = 0

    def model(self) -> dict[str, Any]:
        """What the page shows of the model."""
        reading = self.predictor.reading
        return {
            "name": self.name,
            "stages": self.predictor.stop_after or self.predictor.network.stages,
            "cut": reading.cut,
            "detector": self.predictor.detector is not None,
            "heads": describe_heads(reading),
            "max_bytes": MAX_BYTES,
        }

    @property
    def example(self) -> Example:
        with self._drawing:
            return self._example

    @cached_property
    def _example(self) -> Example:
        return draw_example()

    @contextlib.contextmanager
    def in_queue(self) -> Iterator[None]:
        """Stand in the queue.

        Raises:
            RefusedError: it is full.
        """
        with self._counting:
            if self.queue >= MAX_QUEUE:
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "Too many images are waiting: try again in a moment.")
            self.queue += 1
        try:
            yield
        finally:
            with self._counting:
                self.queue -= 1

    def ask(self, data: bytes, boxes: Any) -> dict[str, Any]:
        """Find what there is in an image; the answer has a number by which `picture` knows it.

        Args:
            data: the image's file.
            boxes: as for `Predictor`.

        Raises:
            RefusedError: it is no image, or too large; there are too many boxes, or they are none.
        """
        source = _checked_image(data)
        if isinstance(boxes, list) and len(boxes) > MAX_BOXES:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"There are {len(boxes)} boxes: {MAX_BOXES} can be looked at.")
        with self._computing:
            start = time.perf_counter()
            try:
                (people,) = self.predictor.stream([source], [boxes])
            except UserError as error:
                raise RefusedError(HTTPStatus.BAD_REQUEST, f"This did not work: {error}.") from error
            answer = Answer(people, time.perf_counter() - start)
            number = next(self._numbers)
            self._answers[number] = answer
            if len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
        return {"number": number} | answer.to_json()

    def picture(self, number: int, stage: int, head: str) -> bytes:
        """A map of an answer, see `Answer.picture`.

        Raises:
            RefusedError: there is none.
        """
        try:
            return self._answers[number].picture(stage, head)
        except KeyError:
            raise RefusedError(HTTPStatus.NOT_FOUND, "There is no such map, or it is no longer kept.") from None


def _checked_image(data: bytes) -> SourceImage:
    try:
        source = SourceImage.open(data)
    except UserError as error:
        words = "This is not an image that can be read: a PNG, a JPEG or a WebP can."
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, words) from error
    if source.width * source.height > MAX_PIXELS:
        size = f"{source.width} × {source.height} pixels"
        words = f"The image has {size}, and {MAX_PIXELS // 10**6} million are the most: make it smaller."
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)
    return source
