"""Boxes and key points whose numbers do not fit each other or their images: what they may have been meant as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.regions import Entry

Array = NDArray[np.float64]

FEWEST = 5
"""People from whom on numbers say something."""

_ENOUGH, _EXPLAINED = 0.8, 0.95
"""Part of the points and boxes that lie where they should: fewer are looked at, so many make an explanation."""


class _Labels(NamedTuple):
    """Of N people: boxes (N, 4), points (N, K, 2), which of them are labelled (N, K), and sizes of the images (N, 2)."""

    boxes: Array
    points: Array
    labelled: NDArray[np.bool_]
    sizes: Array


class _Fit(NamedTuple):
    """Parts from 0 to 1: labelled points in their boxes, labelled points in their images, boxes in their images."""

    in_box: float
    in_image: float
    boxes: float

    @property
    def worst(self) -> float:
        return min(self)


def unit_note(boxes: Any, poses: Sequence[Array], images: Sequence[Entry], *, clip: bool = True) -> str | None:
    """A line on a whole set whose numbers do not fit, with the likely cause where one reading makes nearly all of them fit.

    Most key points of a person lie in its box, and boxes and points in their image. That is not so of boxes given as two
    corners or by their middle, of parts of the image's size, of x and y exchanged, or of another scale.

    Args:
        boxes: (N, 4), x, y, w, h in image pixels, as they stand.
        poses: N of (K, 3), x and y in image pixels, and v, 0 where not labelled; none for boxes alone.
        images: N entries, with `width` and `height`.
        clip: boxes are meant to lie in their images.

    Returns:
        None where the numbers fit, or there are too few to tell.
    """
    if not boxes:
        return None
    points = np.stack(poses) if poses else np.zeros((len(boxes), 0, 3))
    sizes = np.array([[image["width"], image["height"]] for image in images], np.float64)
    given = _Labels(np.array(boxes, np.float64), points[..., :2], points[..., 2] > 0, sizes)
    if parts := _as_parts(given):
        return f"all numbers of the {parts} are at most 1.5, as parts of the image's size: give pixels"
    if len(boxes) < FEWEST:
        return None
    fit = _fit(given, clip)
    # A box that is too large at the right and below still holds its points: then only that boxes stick out tells.
    corners = _corners(given)
    if fit.boxes < 0.9 and _fit(corners, clip).worst >= _EXPLAINED and _off_centre(corners) <= _off_centre(given):
        return _line(given, fit, clip, _CORNERS)
    if some := _of_some(given, clip):
        return _line(given, fit, clip, some)
    if fit.worst >= _ENOUGH:
        return None
    readings = [(text, change(given)) for text, change in _READINGS]
    fitting = [(_off_centre(labels), text) for text, labels in readings if _fit(labels, clip).worst >= _EXPLAINED]
    if fitting:  # of several that which has the points in the middle of their boxes
        return _line(given, fit, clip, min(fitting)[1])
    if _fit(_shrunk(given), clip).worst >= _EXPLAINED:
        larger = "`bbox` and `keypoints` were of larger images: give pixels of these"
        return _line(given, fit, clip, larger if _is_larger(given, fit, clip) else None)
    return _line(given, fit, clip, None) if fit.worst < 0.5 else None


def _line(given: _Labels, fit: _Fit, clip: bool, cause: str | None) -> str:
    count, people = int(given.labelled.sum()), len(given.boxes)
    facts = [
        f"{round((1 - fit.in_box) * count):,} of {count:,} labelled key points lie outside their person's box"
        * (fit.in_box < 1),
        f"{round((1 - fit.in_image) * count):,} of {count:,} labelled key points outside their image" * (fit.in_image < 1),
        f"{round((1 - fit.boxes) * people):,} of {people:,} boxes stick out of their image" * (clip and fit.boxes < 1),
    ]
    listed = ", ".join(fact for fact in facts if fact)
    return (
        f"{listed}; nearly all would fit if {cause}" if cause else f"{listed}: give x, y, width, height and x, y, v in pixels"
    )


def _fit(of: _Labels, clip: bool) -> _Fit:
    """A box gets a margin of a twentieth and two pixels, an image one of a pixel and a fiftieth."""
    x, y, w, h = of.boxes.T[..., None]
    px, py = of.points[..., 0], of.points[..., 1]
    width, height = of.sizes.T[..., None]
    mx, my = 2 + w / 20, 2 + h / 20
    in_box = (px >= x - mx) & (px <= x + w + mx) & (py >= y - my) & (py <= y + h + my) & (w > 0) & (h > 0)
    ex, ey = 1 + width / 50, 1 + height / 50
    in_image = (px >= -ex) & (px <= width + ex) & (py >= -ey) & (py <= height + ey)
    some = of.labelled.any()
    return _Fit(
        float(in_box[of.labelled].mean()) if some else 1.0,
        float(in_image[of.labelled].mean()) if some else 1.0,
        float(_inside(of).mean()) if clip else 1.0,
    )


def _inside(of: _Labels) -> NDArray[np.bool_]:
    """Which boxes lie in their image."""
    (x, y, w, h), (width, height) = of.boxes.T, of.sizes.T
    ex, ey = 1 + width / 50, 1 + height / 50
    return (x >= -ex) & (y >= -ey) & (x + w <= width + ex) & (y + h <= height + ey) & (w > 0) & (h > 0)


def _of_some(given: _Labels, clip: bool) -> str | None:
    """The cause where two programs wrote one file: boxes that stick out are corners, and the others are as they should be."""
    out = ~_inside(given)
    if not clip or out.sum() < 2 or out.mean() <= 1 - _EXPLAINED or not given.labelled[out].any():
        return None
    before, others = _chosen(given, out), _chosen(given, ~out)
    after = _corners(before)
    fits = len(others.boxes) > 0 and min(_fit(after, clip).worst, _fit(others, clip).worst) >= _EXPLAINED
    if not fits or _off_centre(after) > _off_centre(before):
        return None
    return f"`bbox` of the {out.sum():,} that stick out were x1, y1, x2, y2: give x, y, width, height"


def _is_larger(given: _Labels, fit: _Fit, clip: bool) -> bool:
    """Whether all is too large, as of larger images, and not some boxes alone: any numbers fit once they have shrunk."""
    if given.labelled.any():
        return 1 - fit.in_image >= (1 - fit.boxes) / 4
    some = np.where(_inside(given)[:, None], given.boxes, _corners(given).boxes)
    return _fit(given._replace(boxes=some), clip).boxes < _EXPLAINED


def _off_centre(of: _Labels) -> float:
    """How far the middle of a person's points is from that of its box, in parts of the box: the median over people."""
    known = of.labelled.any(1)
    if not known.any():
        return 0.0
    points = np.where(of.labelled[..., None], of.points, np.nan)[known]
    middle = (np.nanmax(points, 1) + np.nanmin(points, 1)) / 2
    boxes = of.boxes[known]
    return float(np.median(np.abs(middle - boxes[:, :2] - boxes[:, 2:] / 2) / np.maximum(boxes[:, 2:], 1)))


def _as_parts(of: _Labels) -> str | None:
    """What is given in parts of the image's size, with a fraction somewhere and no number above 1.5, in images of pixels."""
    kinds = {"boxes": of.boxes.ravel(), "key points": of.points[of.labelled].ravel()}
    found = [
        kind
        for kind, numbers in kinds.items()
        if len(numbers) and np.abs(numbers).max() <= 1.5 and (numbers != np.round(numbers)).mean() > 0.5
    ]
    return " and the ".join(found) if found and of.sizes.min() > 10 else None


def _chosen(of: _Labels, people: NDArray[np.bool_]) -> _Labels:
    return _Labels(of.boxes[people], of.points[people], of.labelled[people], of.sizes[people])


def _corners(of: _Labels) -> _Labels:
    return of._replace(boxes=np.concatenate([of.boxes[:, :2], of.boxes[:, 2:] - of.boxes[:, :2]], axis=1))


def _middles(of: _Labels) -> _Labels:
    return of._replace(boxes=np.concatenate([of.boxes[:, :2] - of.boxes[:, 2:] / 2, of.boxes[:, 2:]], axis=1))


def _exchanged_boxes(of: _Labels) -> _Labels:
    return of._replace(boxes=of.boxes[:, [1, 0, 3, 2]])


def _exchanged_points(of: _Labels) -> _Labels:
    return of._replace(points=of.points[..., ::-1])


def _percent_boxes(of: _Labels) -> _Labels:
    return of._replace(boxes=of.boxes * np.tile(of.sizes, 2) / 100)


def _percent_points(of: _Labels) -> _Labels:
    return of._replace(points=of.points * of.sizes[:, None] / 100)


def _points_from_boxes(of: _Labels) -> _Labels:
    return of._replace(points=of.points + of.boxes[:, None, :2])


def _scaled_points(of: _Labels) -> _Labels:
    """By what brings the points nearest to the middles of their boxes."""
    points, middles = _points_and_middles(of)
    return of._replace(points=of.points * (points * middles).sum() / max(np.square(points).sum(), 1e-9))


def _scaled_boxes(of: _Labels) -> _Labels:
    points, middles = _points_and_middles(of)
    return of._replace(boxes=of.boxes * max((points * middles).sum(), 0) / max(np.square(middles).sum(), 1e-9))


def _points_and_middles(of: _Labels) -> tuple[Array, Array]:
    """Of each labelled point, itself and the middle of its box, (M, 2)."""
    middles = np.broadcast_to((of.boxes[:, :2] + of.boxes[:, 2:] / 2)[:, None], of.points.shape)
    return of.points[of.labelled], middles[of.labelled]


def _shrunk(of: _Labels) -> _Labels:
    """By what brings the outermost box to the edge of its image."""
    reach = float(((of.boxes[:, :2] + of.boxes[:, 2:]) / of.sizes).max())
    return of._replace(boxes=of.boxes / reach, points=of.points / reach) if reach > 1.1 else of


_CORNERS = "`bbox` were x1, y1, x2, y2: give x, y, width, height"
_SCALES = "`bbox` and `keypoints` had one scale: give pixels of the image for both"

_READINGS: tuple[tuple[str, Callable[[_Labels], _Labels]], ...] = (
    (_CORNERS, _corners),
    ("`bbox` were y1, x1, y2, x2: give x, y, width, height", lambda of: _corners(_exchanged_boxes(of))),
    ("`bbox` were the middle, width and height: give x, y of the upper left corner", _middles),
    ("x and y were exchanged in `bbox`, or in `keypoints`", _exchanged_boxes),
    ("x and y were exchanged in `bbox`, or in `keypoints`", _exchanged_points),
    ("x and y were exchanged in `bbox` and `keypoints`", lambda of: _exchanged_boxes(_exchanged_points(of))),
    ("`bbox` were percent of the image: give pixels", _percent_boxes),
    ("`keypoints` were percent of the image: give pixels", _percent_points),
    ("`keypoints` were relative to their box: give pixels of the image", _points_from_boxes),
    (_SCALES, _scaled_points),
    (_SCALES, _scaled_boxes),
)
"""What a set may have been meant as, and how it reads then."""
