"""Pictures: skeletons, dense maps in colours, contact sheets, curves. Images are uint8 RGB, H×W×3."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.errors import UserError
from rpgmt.whole_files import write_bytes

Image = NDArray[np.uint8]
Lines = dict[str, list[tuple[float, float]]]
"""The curves of one plot by their names: points (step, value)."""

# Left and right of the person, and what joins or lies between them (RGB); told apart by the colour-blind too.
LEFT, RIGHT, MIDDLE = (64, 160, 255), (255, 128, 32), (90, 220, 110)

_INK = (32, 32, 32)


def draw_pose(
    image: Image,
    keypoints: NDArray[Any],
    skeleton: Sequence[tuple[int, int]],
    *,
    flip_pairs: Sequence[tuple[int, int]] = (),
    scale: int = 1,
    threshold: float = 0.0,
) -> Image:
    """Return a copy of ``image`` with one person's skeleton, left in blue, right in orange, the rest in green.

    Args:
        image: uint8 RGB, (H, W, 3).
        keypoints: (K, 3): x, y in pixels of ``image`` (centres at integers), and either COCO's visibility
            (0 is not drawn, 1 is drawn hollow and pale, 2 is drawn full) or a score in 0…1 (drawn full).
            The column holds visibilities if all of it is exactly 0, 1 or 2, else scores.
        skeleton: pairs of indices of key points.
        flip_pairs: pairs (left, right) of indices, which give the colours.
        scale: the image is enlarged by this factor before drawing, so that 96 pixels make a good picture.
        threshold: points with a score of at most this are not drawn.

    Returns:
        uint8 RGB, (scale·H, scale·W, 3).
    """
    canvas = _resize(image, (image.shape[1] * scale, image.shape[0] * scale), cv2.INTER_CUBIC)
    points = np.array(keypoints, np.float64)
    points[:, :2] = (points[:, :2] + 0.5) * scale - 0.5
    paint_pose(canvas, points, skeleton, flip_pairs=flip_pairs, extent=max(canvas.shape[:2]), threshold=threshold)
    return canvas


def paint_pose(
    canvas: Image,
    keypoints: NDArray[Any],
    skeleton: Sequence[tuple[int, int]],
    *,
    flip_pairs: Sequence[tuple[int, int]] = (),
    extent: float,
    threshold: float = 0.0,
) -> None:
    """Paint one person's skeleton onto ``canvas``, as `draw_pose` does.

    Args:
        canvas: uint8 RGB, (H, W, 3); changed in place.
        keypoints, skeleton, flip_pairs, threshold: see `draw_pose`, in pixels of ``canvas``.
        extent: pixels that the person or the picture of it measures along its longer side: lines and dots go by it.
    """
    points = np.asarray(keypoints, np.float64)
    values = points[:, 2]
    is_visibility = bool(np.isin(values, (0, 1, 2)).all())
    drawn = (values > (0 if is_visibility else threshold)) & np.isfinite(points).all(axis=1)
    hidden = values == 1 if is_visibility else np.zeros(len(points), bool)
    colour = side_colours(flip_pairs)

    # OpenCV's shift gives sub-pixel positions; clipping keeps far-away points inside its integers.
    shift = 4
    places = np.clip(points[:, :2], -(10**6), 10**6)
    places = np.where(drawn[:, None], places, 0)
    fixed = np.rint(places * 2**shift).astype(int)
    width, radius = max(1, round(extent / 130)), max(1.5, extent / 85)

    def limbs(target: Image, which: bool, line_width: int, ink: tuple[int, int, int] | None) -> None:
        for a, b in skeleton:
            if drawn[a] and drawn[b] and bool(hidden[a] or hidden[b]) == which:
                start, end = tuple(map(int, fixed[a])), tuple(map(int, fixed[b]))
                cv2.line(target, start, end, ink or colour(a, b), line_width, cv2.LINE_AA, shift)

    if hidden.any():
        pale = canvas.copy()  # what is hidden shows through
        limbs(pale, True, width, None)
        cv2.addWeighted(pale, 0.5, canvas, 0.5, 0, dst=canvas)
    outlined = width > 1  # on a small picture an outline would be wider than the limb
    if outlined:
        limbs(canvas, False, width + 2, _INK)
    limbs(canvas, False, width, None)
    r = round(radius * 2**shift)
    for k in np.flatnonzero(drawn).tolist():
        centre = (int(fixed[k, 0]), int(fixed[k, 1]))
        if hidden[k]:
            cv2.circle(canvas, centre, r, colour(k), max(1, width // 2), cv2.LINE_AA, shift)
        else:
            cv2.circle(canvas, centre, r, colour(k), -1, cv2.LINE_AA, shift)
            if outlined:
                cv2.circle(canvas, centre, r, _INK, 1, cv2.LINE_AA, shift)


def side_colours(flip_pairs: Sequence[tuple[int, int]]) -> Callable[..., tuple[int, int, int]]:
    """The colour (RGB) of a key point, or of what joins several, given their indices: its side's, or the middle's.

    Args:
        flip_pairs: pairs (left, right) of indices of key points.
    """
    lefts, rights = {pair[0] for pair in flip_pairs}, {pair[1] for pair in flip_pairs}

    def colour(*indices: int) -> tuple[int, int, int]:
        inside = {"left" if i in lefts else "right" if i in rights else "middle" for i in indices}
        if inside == {"left"} or inside == {"left", "middle"}:
            return LEFT
        if inside == {"right"} or inside == {"right", "middle"}:
            return RIGHT
        return MIDDLE

    return colour


def colorize(
    values: NDArray[Any],
    kind: Literal["depth", "labels", "normals"],
    limits: tuple[float, float] | None = None,
) -> Image:
    """Return a dense map as an RGB image, (H, W, 3).

    Args:
        values: "depth": (H, W), near is bright; "labels": (H, W) whole numbers, 0 is black; "normals": (H, W, 3) or
            (3, H, W) unit vectors, x, y, z in -1…1 become red, green, blue. Invalid places are grey: depth that is not
            finite or not positive, normals of length 0 or not finite.
        kind: what the map holds.
        limits: depths of the ends of the colours (default: 2nd and 98th percentile of the valid ones).
    """
    values = np.asarray(values)
    grey = np.uint8(96)
    if kind == "depth":
        valid = np.isfinite(values) & (values > 0)
        if limits is None:
            limits = tuple(np.percentile(values[valid], (2, 98))) if valid.any() else (0.0, 1.0)
        near, far = limits
        unit = np.clip((far - np.where(valid, values, far)) / max(far - near, 1e-9), 0, 1)
        colours = cv2.applyColorMap(np.rint(unit * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[:, :, ::-1]
        return np.where(valid[:, :, None], colours, grey).astype(np.uint8)
    if kind == "labels":
        labels = values.astype(np.int64)
        return _palette(int(labels.max(initial=0)) + 1)[np.clip(labels, 0, None)]
    if values.shape[-1] != 3:
        values = np.moveaxis(values, 0, -1)
    valid = np.isfinite(values).all(axis=-1) & (np.square(values).sum(axis=-1) > 0.25)
    colours = np.rint((np.clip(np.where(valid[:, :, None], values, 0), -1, 1) + 1) * 127.5)
    return np.where(valid[:, :, None], colours, grey).astype(np.uint8)


def _palette(count: int) -> Image:
    """Distinct colours, the first one black: hues apart by the golden ratio, lightness in turn."""
    index = np.arange(count)
    hue = np.rint((index * 0.618034 % 1) * 179)
    saturation, value = 230 - 70 * (index % 3), 255 - 55 * (index % 2)
    hsv = np.stack([hue, saturation, np.where(index == 0, 0, value)], axis=1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0], np.uint8)


def write_caption(image: Image, text: str) -> Image:
    """Return a copy of ``image``, of at least 192 pixels' height, with a line of text on a white band at its bottom."""
    scale = -(-192 // image.shape[0])
    canvas = _resize(image, (image.shape[1] * scale, image.shape[0] * scale), cv2.INTER_CUBIC)
    canvas[-18:] = 255
    width = max(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0], 1)
    size = 0.5 * min(1.0, (canvas.shape[1] - 8) / width)
    cv2.putText(canvas, text, (4, canvas.shape[0] - 5), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, 1, cv2.LINE_AA)
    return canvas


def contact_sheet(rows: Sequence[Sequence[Image]], titles: Sequence[str] = (), *, gap: int = 6) -> Image:
    """Return one RGB image with the images in rows, on white, each centred in a cell of the same size.

    Args:
        rows: uint8 images, (H, W, 3) or (H, W) grey; rows may differ in length. An image smaller than half of the
            largest is enlarged by a whole factor.
        titles: one for each column, written above it.
        gap: pixels between cells.
    """
    cells = [image for row in rows for image in row]
    if not cells:
        raise ValueError("`rows` is empty: give at least one image")
    height, width = (max(image.shape[axis] for image in cells) for axis in (0, 1))
    columns = max(len(row) for row in rows)
    if len(titles) > columns:
        raise ValueError(f"`titles` has {len(titles)} entries: the longest row has {columns} images")
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    for title in titles:  # long titles shrink to their column, down to what can still be read
        size = min(size, max(0.35, 0.5 * width / max(cv2.getTextSize(title, font, 0.5, 1)[0][0], 1)))
    head = 24 if titles else 0
    shape = (head + gap + len(rows) * (height + gap), gap + columns * (width + gap), 3)
    sheet = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            factor = min(height // image.shape[0], width // image.shape[1])
            if factor > 1:
                image = image.repeat(factor, axis=0).repeat(factor, axis=1)
            h, w = image.shape[:2]
            y = head + gap + i * (height + gap) + (height - h) // 2
            x = gap + j * (width + gap) + (width - w) // 2
            sheet[y : y + h, x : x + w] = image if image.ndim == 3 else image[:, :, None]
    for j, title in enumerate(titles):
        (w, _), _ = cv2.getTextSize(title, font, size, 1)
        x = gap + j * (width + gap) + max(0, (width - w) // 2)
        cv2.putText(sheet, title, (x, head - 6), font, size, _INK, 1, cv2.LINE_AA)
    return sheet


def save_png(path: Path | str, image: Image, max_bytes: int | None = None) -> None:
    """Write ``image`` as a PNG, quickly; or of at most ``max_bytes``: full, else with fewer colours, else smaller too.

    Raises:
        ValueError: it does not fit even at 32 pixels.
    """
    path = Path(path)
    if max_bytes is None:
        write_bytes(path, _encode(image, compression=1), durable=False, folders=True)
        return
    smaller = image
    while True:
        for bits in (8, 5, 4):  # fewer levels of each channel compress far better and hardly show
            step = 2 ** (8 - bits)
            data = _encode(smaller if bits == 8 else np.minimum(smaller // step * step + step // 2, 255))
            if len(data) <= max_bytes:
                write_bytes(path, data, durable=False, folders=True)
                return
        if max(smaller.shape[:2]) <= 32:
            raise ValueError(f"{path}: the image does not fit into {max_bytes} bytes")
        size = (max(1, int(smaller.shape[1] * 0.8)), max(1, int(smaller.shape[0] * 0.8)))
        smaller = _resize(smaller, size, cv2.INTER_AREA)


def _resize(image: Image, size: tuple[int, int], interpolation: int) -> Image:
    """A contiguous copy of ``image`` at ``size`` = (width, height)."""
    return np.array(cv2.resize(image, size, interpolation=interpolation), np.uint8, order="C")


def _encode(image: Image, compression: int = 9) -> bytes:
    ordered = np.ascontiguousarray(image[:, :, ::-1] if image.ndim == 3 else image)  # OpenCV writes BGR
    _, data = cv2.imencode(".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, compression])
    return data.tobytes()


def plot_curves(metrics_csv: Path | str, path: Path | str) -> None:
    """Draw losses and validation metrics over the steps, one small plot for each, one line for each stage.

    Args:
        metrics_csv: columns ``step`` and ``epoch`` (at least one), and e.g. ``train/loss``, ``val/AP``,
            ``val/stage_1/AP``; a cell is empty where nothing was logged.
        path: the PNG to write.

    Raises:
        ValueError: there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axis, panels = read_curves(metrics_csv)
    if not panels:
        raise ValueError(f"{metrics_csv} holds no curves: it needs a column step or epoch, and values")

    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    wide, high = 4.2 * across, 2.9 * down  # in inches, as the places of the plots, which take long to find by what they show
    figure = Figure(figsize=(wide, high), dpi=100)
    places = {"left": 0.6 / wide, "right": 1 - 0.15 / wide, "bottom": 0.6 / high, "top": 1 - 0.3 / high}
    plots = figure.subplots(down, across, squeeze=False, gridspec_kw={**places, "wspace": 0.17, "hspace": 0.28}).flat
    stages = sorted({line for lines in panels.values() for line in lines if line.startswith("stage")}, key=_natural)
    for plot, (panel, lines) in zip(plots, panels.items(), strict=False):
        for line in lines:
            points = np.array(lines[line])
            # Stages from light to dark: the later, the darker. What belongs to no stage is black.
            tint = 0.25 + 0.75 * (stages.index(line) + 1) / len(stages) if line in stages else None
            style: dict[str, Any] = {"color": "black"} if tint is None else {"color": _viridis(1 - tint)}
            if tint is None and len(lines) > 1:
                style["linestyle"] = "--"
            marker = "o" if len(points) < 15 else ""
            plot.plot(points[:, 0], points[:, 1], label=line or "all", marker=marker, markersize=3, lw=1.4, **style)
        plot.set_title(panel, fontsize=11, y=1)
        plot.grid(alpha=0.3)
        plot.tick_params(labelsize=9)
        if len(lines) > 1:
            plot.legend(fontsize=8, frameon=False)
    for plot in list(figure.axes)[len(panels) :]:
        plot.set_axis_off()
    figure.supxlabel(axis, fontsize=10, y=0.1 / high)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    save_png(path, np.asarray(canvas.buffer_rgba())[:, :, :3])


def read_curves(metrics_csv: Path | str) -> tuple[str, dict[str, Lines]]:
    """The curves of a `metrics.csv`, in the order in which they are drawn.

    Args:
        metrics_csv: as of `plot_curves`.

    Returns:
        What they run over, step or epoch; and for each plot, e.g. ``val/AP``, its lines, e.g. ``stage 1``, or "" alone.
    """
    try:
        return _curves(metrics_csv)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise UserError(f"{metrics_csv}: not a table of numbers, as a training writes it: {error}") from error


def _curves(metrics_csv: Path | str) -> tuple[str, dict[str, Lines]]:
    with open(metrics_csv, newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    axis = "step" if table and "step" in table[0] else "epoch"
    panels: dict[str, Lines] = {}
    for row in table:
        for column, cell in row.items():
            if column in ("step", "epoch", "seconds", None) or not cell or not row.get(axis):
                continue
            panel, line = _split_stage(column)
            panels.setdefault(panel, {}).setdefault(line, []).append((float(row[axis]), float(cell)))
    for lines in panels.values():
        if any(line and lines[line] == lines.get("") for line in lines):
            del lines[""]  # the last stage's under another name
    inside = {panel: {line: sorted(lines[line]) for line in sorted(lines, key=_natural)} for panel, lines in panels.items()}
    return axis, {panel: inside[panel] for panel in sorted(inside, key=_order)}


def _split_stage(column: str) -> tuple[str, str]:
    """ "val/stage_1/AP" -> ("val/AP", "stage 1"); "val/AP" -> ("val/AP", "")."""
    parts = column.split("/")
    stage = next((part for part in parts if part.startswith("stage_")), "")
    return "/".join(part for part in parts if part != stage), stage.replace("_", " ")


def _natural(line: str) -> tuple[int, str]:
    digits = "".join(c for c in line if c.isdigit())
    return int(digits or 0), line


def _order(panel: str) -> tuple[int, str]:
    """Training first, then the validation's, other things last."""
    return {"train": 0, "val": 1}.get(panel.split("/")[0], 2), panel


def _viridis(unit: float) -> tuple[float, float, float]:
    pixel = np.full((1, 1), round(unit * 255), np.uint8)
    blue, green, red = cv2.applyColorMap(pixel, cv2.COLORMAP_VIRIDIS)[0, 0] / 255
    return float(red), float(green), float(blue)
