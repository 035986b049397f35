from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rpgmt.visualize import LEFT, MIDDLE, RIGHT, colorize, contact_sheet, draw_pose, plot_curves, save_png

GREY = np.full((40, 60, 3), 128, np.uint8)
SKELETON, PAIRS = ((0, 1), (2, 3), (0, 2)), ((0, 2), (1, 3))


def points(*values: float) -> np.ndarray[Any, Any]:
    return np.array([(10, 5, values[0]), (10, 35, values[1]), (50, 5, values[2]), (50, 35, values[3])], float)


def draw(keypoints: np.ndarray[Any, Any], scale: int = 1, **options: Any) -> np.ndarray[Any, Any]:
    return draw_pose(GREY, keypoints, SKELETON, flip_pairs=PAIRS, scale=scale, **options)


@pytest.mark.parametrize("scale", [1, 3, 4])
def test_limbs_have_their_sides_colour_at_their_place(scale: int) -> None:
    image = draw(points(2, 2, 2, 2), scale)
    assert image.shape == (40 * scale, 60 * scale, 3)
    assert image.dtype == np.uint8
    for x, y, colour in ((10, 20, LEFT), (50, 20, RIGHT), (30, 5, MIDDLE), (30, 30, (128, 128, 128))):
        drawn = image[round((y + 0.5) * scale - 0.5), round((x + 0.5) * scale - 0.5)]
        assert np.abs(drawn.astype(int) - colour).max() < 30  # the edge of a line is blended
    assert (GREY == 128).all()  # the input is not drawn upon


def test_what_is_not_labelled_is_not_drawn() -> None:
    assert (draw(points(0, 0, 0, 0)) == GREY).all()
    assert (draw(points(0, 2, 0, 0))[:20] == GREY[:20]).all()  # one point, no limb
    assert (draw(points(0.3, 0.2, 0.3, 0.1), threshold=0.5) == GREY).all()
    assert (draw(points(0.3, 0.2, 0.9, 0.8), threshold=0.5)[:, :40] == GREY[:, :40]).all()


def test_hidden_points_are_hollow_and_their_limbs_pale() -> None:
    hidden, seen = draw(points(2, 1, 2, 2), 4), draw(points(2, 2, 2, 2), 4)
    ink = lambda image, y, x: int(np.abs(image[y, x].astype(int) - 128).sum())  # noqa: E731
    assert 0 < ink(hidden, 80, 42) < ink(seen, 80, 42)
    centre = np.s_[142, 42]
    assert tuple(seen[centre]) == LEFT
    assert tuple(hidden[centre]) != LEFT


def test_points_outside_and_not_finite_do_no_harm() -> None:
    far = points(0.9, 0.9, 0.9, 0.9)
    far[0, :2] = (-1e12, 1e12)
    far[1, 0] = np.nan
    assert draw(far).shape == GREY.shape


def test_depth_near_is_bright_and_invalid_is_grey() -> None:
    depth = np.array([[1.0, 2.0, 3.0], [0.0, np.inf, np.nan]])
    image = colorize(depth, "depth")
    brightness = image[0].astype(int).sum(axis=1)
    assert brightness[0] > brightness[1] > brightness[2]
    assert (image[1] == 96).all()
    assert (colorize(depth, "depth", limits=(1, 3))[0, 0] == colorize(depth[:1, :1], "depth", limits=(1, 9))[0, 0]).all()
    assert (colorize(np.zeros((2, 2)), "depth") == 96).all()
    assert colorize(np.ones((2, 2)), "depth").shape == (2, 2, 3)


def test_labels_have_distinct_colours() -> None:
    image = colorize(np.arange(25).reshape(5, 5), "labels")
    assert (image[0, 0] == 0).all()
    assert len(np.unique(image.reshape(-1, 3), axis=0)) == 25
    assert (colorize(np.array([[3, 0]]), "labels")[0, 0] == image[0, 3]).all()  # whatever else is in the map


def test_normals() -> None:
    normals = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, -1], [0, 0, 0]]], float)
    image = colorize(normals, "normals")
    assert image[0].tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 0], [96, 96, 96]]
    assert (colorize(np.moveaxis(normals, -1, 0), "normals") == image).all()


def test_contact_sheet() -> None:
    red = np.full((10, 20, 3), (255, 0, 0), np.uint8)
    grey = np.full((5, 10), 100, np.uint8)  # enlarged twice
    sheet = contact_sheet([[red, grey], [grey]], gap=4)
    assert sheet.shape == (4 + 2 * 14, 4 + 2 * 24, 3)
    assert (sheet[4:14, 4:24] == red).all()
    assert (sheet[4:14, 28:48] == 100).all()
    assert (sheet[18:28, 4:24] == 100).all()
    sheet[4:14, 4:24] = sheet[4:14, 28:48] = sheet[18:28, 4:24] = 255
    assert (sheet == 255).all()


def test_titles_stand_above_their_columns() -> None:
    cell = np.full((60, 100, 3), 255, np.uint8)
    rows = [[cell, cell]]
    first, both = contact_sheet(rows, ["image"]), contact_sheet(rows, ["image", "skeleton"])
    assert first.shape[0] > contact_sheet(rows).shape[0]
    assert (first[:, :106] < 128).any()
    assert (first[:, 112:] == 255).all()
    assert (both[:, 112:] < 128).any()
    with pytest.raises(ValueError, match="`titles` has 3 entries: the longest row has 2 images"):
        contact_sheet(rows, ["a", "b", "c"])
    with pytest.raises(ValueError, match="`rows` is empty"):
        contact_sheet([[]])


def read(path: Path) -> np.ndarray[Any, Any]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None
    return image[:, :, ::-1]


def test_png_is_exact_where_it_fits_and_small_where_it_does_not(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    path = tmp_path / "new folder" / "x.png"
    save_png(path, noise, max_bytes=300_000)
    assert (read(path) == noise).all()
    save_png(path, noise[:, :, 0])  # grey
    assert (read(path)[:, :, 1] == noise[:, :, 0]).all()
    sizes = []
    for limit in (150_000, 90_000, 20_000):
        save_png(path, noise, max_bytes=limit)
        assert path.stat().st_size <= limit
        sizes.append(read(path).shape[:2])
    assert sizes[0] == (200, 300)  # fewer colours come first
    assert np.abs(read(path).mean() - noise.mean()) < 10
    assert sizes[1] > sizes[2]
    with pytest.raises(ValueError, match="does not fit into 50 bytes"):
        save_png(path, noise, max_bytes=50)


CURVES = """epoch,step,train/loss,val/AP,val/stage_1/AP,val/stage_2/AP
0,10,3.0,,,
0,19,,0.2,0.1,0.2
1,20,2.0,,,
1,39,,0.5,0.3,0.5
"""


def test_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CURVES)
    plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    image = read(tmp_path / "curves.png")
    assert image.shape[1] > image.shape[0]  # two plots side by side
    assert (image.max(axis=2).astype(int) - image.min(axis=2) > 40).any()  # the stages are in colour

    (tmp_path / "loss.csv").write_text("epoch,train/loss\n0,3\n1,2\n")  # no steps: over the epochs
    plot_curves(tmp_path / "loss.csv", tmp_path / "loss.png")
    assert read(tmp_path / "loss.png").shape[1] < image.shape[1]


@pytest.mark.parametrize("text", ["", "step,val/AP\n", "step,val/AP\n1,\n", "val/AP\n0.5\n"])
def test_curves_of_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv holds no curves"):
        plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
