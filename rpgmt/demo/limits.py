"""What may be asked of a demo, and how a question is refused."""

from __future__ import annotations

from http import HTTPStatus

MAX_BYTES = 20 * 2**20
"""Of an image's file."""
MAX_SECONDS = 120
"""In which an image's file arrives."""
MAX_PIXELS = 50_000_000
"""Of an image, read from its header: it is not decoded if there are more."""
MAX_BOXES = 64
MAX_QUEUE = 8
"""Questions that are computed or wait; more are sent away."""


class RefusedError(Exception):
    """A question that is not answered: the status for the browser, and the words for the reader."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words
