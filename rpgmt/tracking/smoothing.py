"""Key points of a video without their trembling: the One-Euro filter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class _Person:
    """What is known of the K key points of one person."""

    points: np.ndarray  # (K, 2), filtered
    velocities: np.ndarray  # (K, 2), filtered, in the person's sizes a second
    known: np.ndarray  # (K,), whether a point was ever seen well
    frames: np.ndarray  # (K,), number of the frame in which it was last seen well
    last: int  # number of the frame in which the person was last seen


class KeypointSmoother:
    """Smooths the key points of people with lasting ids, frame by frame, by the One-Euro filter.

    An exponential mean whose cutoff rises with the speed: cutoff = min_cutoff + beta · |speed|. Slow points do not tremble,
    fast ones do not lag (Casiez, Roussel and Vogel, 1€ Filter, CHI 2012, algorithm 1). The speed is that of both coordinates
    together, in sizes of the person a second, where the size is the root of the box's area: so the result does not depend on
    the resolution. A point with a low score does not pull: its last place stays, and the time since then counts when it is
    seen again.

    Args:
        fps: frames a second of the video.
        min_cutoff: in Hz, of a point at rest: lower trembles less.
        beta: in Hz for each size a second: higher lags less. 0 is exponential smoothing.
        derivative_cutoff: in Hz, of the speed.
        min_score: the lowest score of a point that pulls.
        patience: frames after which a person who was not seen is forgotten.

    Raises:
        ValueError: a rate or a cutoff is not above 0, or beta below 0.
    """

    def __init__(
        self,
        fps: float,
        *,
        min_cutoff: float = 1.0,
        beta: float = 10.0,
        derivative_cutoff: float = 1.0,
        min_score: float = 0.2,
        patience: int = 30,
    ) -> None:
        for name, value in (("fps", fps), ("min_cutoff", min_cutoff), ("derivative_cutoff", derivative_cutoff)):
            if not value > 0:
                raise ValueError(f"`{name}` is {value}: give a number above 0")
        if not beta >= 0:
            raise ValueError(f"`beta` is {beta}: give 0 or more")
        self._fps, self._min_cutoff, self._beta = fps, min_cutoff, beta
        self._derivative_cutoff, self._min_score, self._patience = derivative_cutoff, min_score, patience
        self._people: dict[int, _Person] = {}
        self._frame = 0

    def __call__(self, ids: np.ndarray, points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Take the next frame and return its key points, smoothed: float64 (P, K, 3), scores as they were.

        Call it for frames without people too: time goes on.

        Args:
            ids: (P,), as `Tracker.update` gives them; people with a negative id are returned as they are.
            points: (P, K, 3), x, y in pixels, score.
            boxes: (P, 4), x, y, w, h in pixels.
        """
        smooth = np.array(points, np.float64)
        for number, (id, box) in enumerate(zip(np.asarray(ids).tolist(), np.asarray(boxes, np.float64), strict=True)):
            if id >= 0:
                seen = smooth[number, :, 2] >= self._min_score
                size = max(float(np.sqrt(box[2] * box[3])), 1.0)  # of less than a pixel nothing is known
                smooth[number, :, :2] = self._person(id, smooth[number, :, :2], seen, size)
        self._people = {i: p for i, p in self._people.items() if self._frame - p.last <= self._patience}
        self._frame += 1
        return smooth

    def _person(self, id: int, points: np.ndarray, seen: np.ndarray, size: float) -> np.ndarray:
        count = len(points)
        if id not in self._people:
            never = np.zeros(count, dtype=bool)
            self._people[id] = _Person(points.copy(), np.zeros((count, 2)), never, np.zeros(count, int), self._frame)
        person = self._people[id]
        person.last = self._frame
        first, again = seen & ~person.known, seen & person.known
        person.points[first] = points[first]
        seconds = (self._frame - person.frames[again]) / self._fps
        steps = points[again] - person.points[again]
        slow = _weight(seconds, np.full(len(seconds), self._derivative_cutoff))[:, None]
        person.velocities[again] += slow * (steps / seconds[:, None] / size - person.velocities[again])
        cutoffs = self._min_cutoff + self._beta * np.linalg.norm(person.velocities[again], axis=-1)
        person.points[again] += _weight(seconds, cutoffs)[:, None] * steps
        person.frames[seen] = self._frame
        person.known |= seen
        return np.where(person.known[:, None], person.points, points)


def _weight(seconds: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
    """Of the new value in an exponential mean with a cutoff in Hz, that many seconds after the last."""
    return 1 / (1 + 1 / (2 * np.pi * cutoffs * seconds))
