from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from rpgmt.codecs.msra import Msra
from rpgmt.codecs.taylor import blurred_logs, cells_around
from rpgmt.codecs.udp import Udp

SIZES = {"input_size": (80, 60), "heatmap_size": (20, 15)}


def _maps(people: int = 3, keypoints: int = 5) -> torch.Tensor:
    """Gaussians all over the map, its border included, and noise."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(people, keypoints, 2, generator=generator) * torch.tensor([79.0, 59.0])
    maps, _ = Udp(**SIZES).encode(points, torch.ones(people, keypoints))
    return maps + 0.03 * torch.randn(maps.shape, generator=generator)


def _blurred_log(image: np.ndarray, lowest: float, size: int = 11) -> np.ndarray:
    """By OpenCV, on a map with room for the kernel, for its border is to be zero."""
    pad = size // 2
    blurred = cv2.GaussianBlur(np.pad(image, pad), (size, size), 0)[pad:-pad, pad:-pad]
    return np.log(np.maximum(blurred * (image.max() / blurred.max()), lowest))


@pytest.mark.parametrize(("sigma", "size"), [(2.0, 11), (3.0, 17)])
def test_the_blur_is_that_of_opencv(sigma: float, size: int) -> None:
    maps = _maps()
    logs = blurred_logs(maps, sigma, 1e-3)
    for index in np.ndindex(3, 5):
        np.testing.assert_allclose(logs[index], _blurred_log(maps[index].numpy(), 1e-3, size), atol=2e-4)


def test_cells_beyond_the_border_repeat_it() -> None:
    maps = _maps()
    cells = torch.tensor([[0, 0], [19, 14], [7, 3], [0, 14], [18, 1]]).expand(3, 5, 2)
    around = cells_around(maps, cells, 2)
    for b, k in np.ndindex(3, 5):
        column, row = cells[b, k].tolist()
        np.testing.assert_array_equal(around[b, k], np.pad(maps[b, k], 2, mode="edge")[row : row + 5, column : column + 5])


def test_quarter_steps_are_those_of_a_loop() -> None:
    codec, maps = Msra(**SIZES), _maps()
    points, scores = codec.decode(maps)
    for b, k in np.ndindex(3, 5):
        image = maps[b, k].numpy()
        row, column = np.unravel_index(image.argmax(), image.shape)
        x, y = float(column), float(row)
        if 0 < column < 19:
            x += 0.25 if image[row, column + 1] > image[row, column - 1] else -0.25
        if 0 < row < 14:
            y += 0.25 if image[row + 1, column] > image[row - 1, column] else -0.25
        assert points[b, k].tolist() == [4 * x, 4 * y]
        assert scores[b, k].item() == pytest.approx(image.max())


def test_dark_steps_are_those_of_a_loop() -> None:
    codec, maps = Msra(**SIZES, dark=True), _maps()
    points, _ = codec.decode(maps)
    moved = 0
    for b, k in np.ndindex(3, 5):
        image = maps[b, k].numpy()
        log = _blurred_log(image.astype(np.float64), 1e-10)
        row, column = (int(i) for i in np.unravel_index(image.argmax(), image.shape))
        expected = np.array([column, row], dtype=float)
        if 2 <= column <= 17 and 2 <= row <= 12:
            along_y, along_x = np.gradient(log)
            hessian = np.empty((2, 2))
            # Differences of central differences, which span two cells to each side.
            for i, first in enumerate((along_x, along_y)):
                second_y, second_x = np.gradient(first)
                hessian[i] = second_x[row, column], second_y[row, column]
            step = -np.linalg.solve(hessian, [along_x[row, column], along_y[row, column]])
            if np.linalg.eigvalsh(hessian).max() < 0:
                expected += step.clip(-1, 1)
                moved += 1
        np.testing.assert_allclose(points[b, k], 4 * expected, atol=2e-3)
    assert 5 <= moved < 15


def test_udp_steps_are_those_of_a_loop() -> None:
    codec, maps = Udp(**SIZES), _maps()
    points, _ = codec.decode(maps)
    for b, k in np.ndindex(3, 5):
        image = maps[b, k].numpy()
        log = np.pad(_blurred_log(image.astype(np.float64), 1e-3), 1, mode="edge")
        row, column = (int(i) for i in np.unravel_index(image.argmax(), image.shape))
        f = {(x, y): log[row + 1 + y, column + 1 + x] for x in (-1, 0, 1) for y in (-1, 0, 1)}
        lower_right = (f[1, 1] - f[1, 0]) - (f[0, 1] - f[0, 0])
        upper_left = (f[0, 0] - f[0, -1]) - (f[-1, 0] - f[-1, -1])
        mixed = (lower_right + upper_left) / 2
        hessian = [[f[1, 0] - 2 * f[0, 0] + f[-1, 0], mixed], [mixed, f[0, 1] - 2 * f[0, 0] + f[0, -1]]]
        gradient = [(f[1, 0] - f[-1, 0]) / 2, (f[0, 1] - f[0, -1]) / 2]
        step = -np.linalg.solve(hessian, gradient)
        expected = (np.array([column, row]) + step.clip(-1, 1)) * [79 / 19, 59 / 14]
        np.testing.assert_allclose(points[b, k], expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["msra", "dark", "udp"])
def test_encoding_is_the_gaussian_of_a_loop(kind: str) -> None:
    codec = Udp(**SIZES) if kind == "udp" else Msra(**SIZES, dark=kind == "dark")
    stride = (79 / 19, 59 / 14) if kind == "udp" else (4.0, 4.0)
    points = torch.rand(2, 6, 2, generator=torch.Generator().manual_seed(0)) * 140 - 40  # some of them outside
    maps, weights = codec.encode(points, torch.ones(2, 6))
    assert 0 < weights.sum() < 12
    for b, k in np.ndindex(2, 6):
        x, y = (points[b, k, axis].item() / stride[axis] for axis in (0, 1))
        middle_x, middle_y = math.floor(x + 0.5), math.floor(y + 0.5)
        if kind == "msra":
            x, y = middle_x, middle_y
        expected = np.zeros((15, 20))
        for row, column in np.ndindex(15, 20):
            if kind == "dark" or (abs(column - middle_x) <= 6 and abs(row - middle_y) <= 6):
                expected[row, column] = math.exp(-((column - x) ** 2 + (row - y) ** 2) / 8)
        counts = -6 <= x <= 25 and -6 <= y <= 20 if kind == "dark" else expected.max() > 0
        assert weights[b, k].item() == counts
        np.testing.assert_allclose(maps[b, k], expected * counts, atol=1e-5)
