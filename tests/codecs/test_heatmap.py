from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from rpgmt.codecs.heatmap import Heatmap, newton_step

# A border of one cell round the map in which the fit's window has moved inside; with values it is less exact there.
CODECS = [
    Heatmap(input_size=(64, 64), heatmap_size=(16, 16), sigma=1.0),
    Heatmap(input_size=(192, 256), heatmap_size=(48, 64), sigma=2.0),
    Heatmap(input_size=(50, 44), heatmap_size=(15, 11), sigma=0.7),
    Heatmap(input_size=(64, 64), heatmap_size=(16, 16), sigma=1.0, maps="values"),
    Heatmap(input_size=(192, 256), heatmap_size=(48, 64), sigma=2.0, maps="values"),
]


def _points(codec: Heatmap, batch: int = 20, keypoints: int = 7) -> torch.Tensor:
    """Anywhere in the input, its outer half pixels included."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, keypoints, 2, generator=generator) * torch.tensor(codec.input_size) - 0.5


def _maps(codec: Heatmap, heatmaps: torch.Tensor) -> torch.Tensor:
    """What a perfect network gives: with logits the Gaussian's logarithm, and any constant."""
    return heatmaps.clamp(min=1e-38).log() + 5 if codec.maps == "logits" else heatmaps


def test_encoding_is_the_gaussian_of_a_loop() -> None:
    codec = Heatmap(input_size=(40, 24), heatmap_size=(10, 6), sigma=1.3)
    points = _points(codec, 2, 3)
    heatmaps, weights = codec.encode(points, torch.ones(2, 3))
    assert heatmaps.shape == (2, 3, 6, 10)
    assert heatmaps.dtype == weights.dtype == torch.float32
    for b, k, row, column in np.ndindex(2, 3, 6, 10):
        x, y = ((points[b, k, axis].item() + 0.5) / 4 - 0.5 for axis in (0, 1))
        expected = math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 1.3**2))
        assert heatmaps[b, k, row, column].item() == pytest.approx(expected, rel=1e-4)


def test_points_that_are_invalid_or_outside_weigh_nothing() -> None:
    codec = CODECS[0]
    inside, outside = [[-0.5, -0.5], [63.49, 63.49], [0, 63]], [[-0.51, 5], [63.5, 5], [5, 63.5], [math.nan, 5]]
    heatmaps, weights = codec.encode(torch.tensor([inside + outside]), torch.tensor([[1, 2, 0, 1, 1, 2, 2]]))
    assert weights.tolist() == [[1, 1, 0, 0, 0, 0, 0]]
    assert torch.equal(heatmaps.amax((-2, -1)) > 0, weights > 0)
    assert heatmaps.isfinite().all()


@pytest.mark.parametrize("codec", CODECS)
def test_decoding_undoes_encoding(codec: Heatmap) -> None:
    points = _points(codec)
    stride = torch.tensor(codec.input_size) / torch.tensor(codec.heatmap_size)
    if codec.maps == "values":  # away from the border, see CODECS
        points = points.clamp(min=stride, max=torch.tensor(codec.input_size) - 1 - stride)
    heatmaps, weights = codec.encode(points, torch.ones(points.shape[:2]))
    assert weights.all()
    found, scores = codec.decode(_maps(codec, heatmaps))
    assert ((found - points) / stride).abs().max() < 0.01
    assert ((scores > 0) & (scores <= 1)).all()


@pytest.mark.parametrize("codec", CODECS)
def test_at_the_border_values_too_are_found_to_half_a_cell(codec: Heatmap) -> None:
    points = _points(codec)
    stride = torch.tensor(codec.input_size) / torch.tensor(codec.heatmap_size)
    found, _ = codec.decode(_maps(codec, codec.encode(points, torch.ones(points.shape[:2]))[0]))
    assert ((found - points) / stride).abs().max() <= 0.5


@pytest.mark.parametrize("codec", CODECS)
def test_a_mirrored_input_gives_the_mirrored_map_and_point(codec: Heatmap) -> None:
    points = _points(codec)
    mirrored = torch.stack([codec.input_size[0] - 1 - points[..., 0], points[..., 1]], dim=-1)
    valid = torch.ones(points.shape[:2])
    heatmaps = codec.encode(points, valid)[0]
    torch.testing.assert_close(codec.encode(mirrored, valid)[0], heatmaps.flip(-1), rtol=0, atol=1e-5)
    noisy = _maps(codec, heatmaps + 0.05 * torch.rand(heatmaps.shape, generator=torch.Generator().manual_seed(1)))
    found, scores = codec.decode(noisy)
    found_mirrored, scores_mirrored = codec.decode(noisy.flip(-1))
    found[..., 0] = codec.input_size[0] - 1 - found[..., 0]
    torch.testing.assert_close(found_mirrored, found, rtol=0, atol=1e-3)
    torch.testing.assert_close(scores_mirrored, scores)


def test_the_step_is_that_of_finite_differences_on_a_quadratic() -> None:
    """f(x, y) = -a x² - b y² + c x y + d x + e y: gradient and Hessian by differences, one Newton step."""
    generator = torch.Generator().manual_seed(0)
    curvature = 0.5 + torch.rand(50, 2, generator=generator, dtype=torch.float64)
    c, d, e = (torch.rand(50, generator=generator, dtype=torch.float64) - 0.5 for _ in range(3))

    def f(x: float, y: float) -> torch.Tensor:
        return -curvature[:, 0] * x * x - curvature[:, 1] * y * y + c * x * y + d * x + e * y

    window = torch.stack([torch.stack([f(x, y) for x in (-1, 0, 1)], dim=-1) for y in (-1, 0, 1)], dim=-2)
    h = 1e-3
    gradient = torch.stack([(f(h, 0) - f(-h, 0)) / (2 * h), (f(0, h) - f(0, -h)) / (2 * h)], dim=-1)
    mixed = (f(h, h) - f(h, -h) - f(-h, h) + f(-h, -h)) / (4 * h * h)
    hessian = torch.stack(
        [
            torch.stack([(f(h, 0) - 2 * f(0, 0) + f(-h, 0)) / h**2, mixed], dim=-1),
            torch.stack([mixed, (f(0, h) - 2 * f(0, 0) + f(0, -h)) / h**2], dim=-1),
        ],
        dim=-2,
    )
    step, has_maximum = newton_step(window)
    assert has_maximum.all()
    torch.testing.assert_close(step, -torch.linalg.solve(hessian, gradient), rtol=1e-6, atol=1e-6)
    assert not newton_step(-window)[1].any()


@pytest.mark.parametrize("maps", ["logits", "values"])
def test_without_a_maximum_the_highest_cell_is_the_point(maps: Literal["logits", "values"]) -> None:
    codec = Heatmap(input_size=(64, 64), heatmap_size=(16, 16), sigma=1.0, maps=maps)
    saddle = torch.zeros(1, 3, 16, 16)
    saddle[0, 0, 4:7, 4:7] = torch.tensor([[0.9, 0.0, 0.9], [0.9, 1.0, 0.9], [0.9, 0.0, 0.9]])  # a valley along x
    saddle[0, 2, 0, 15] = 1e-4
    points, _ = codec.decode(saddle)
    cells = (points + 0.5) / 4 - 0.5
    assert cells[0, 0].tolist() == [5, 5]
    assert cells[0, 1].tolist() == [0, 0]  # an empty map
    assert cells[0, 2].tolist() == [15, 0]


@pytest.mark.parametrize("codec", CODECS)
def test_a_point_is_never_more_than_half_a_cell_from_the_highest_cell(codec: Heatmap) -> None:
    width, height = codec.heatmap_size
    noise = torch.randn(30, 17, height, width, generator=torch.Generator().manual_seed(0))
    points, scores = codec.decode(noise)
    stride = torch.tensor(codec.input_size) / torch.tensor(codec.heatmap_size)
    peak = noise.flatten(2).argmax(-1)
    cells = (points + 0.5) / stride - 0.5
    assert (cells - torch.stack([peak % width, peak // width], dim=-1)).abs().max() <= 0.5 + 1e-5
    assert ((scores >= 0) & (scores <= (1 if codec.maps == "logits" else noise.amax((-2, -1))))).all()


def test_scores_are_probability_or_height() -> None:
    points, valid = torch.tensor([[[29.5, 29.5]]]), torch.ones(1, 1)  # the centre of a cell
    logits = CODECS[0]
    heatmaps = logits.encode(points, valid)[0]
    # The part of a normal distribution on three cells, per axis, by the sum over cells.
    axis = [math.exp(-(i**2) / 2) for i in range(-7, 9)]
    expected = (sum(axis[6:9]) / sum(axis)) ** 2
    assert logits.decode(_maps(logits, heatmaps))[1].item() == pytest.approx(expected, rel=1e-4)
    assert logits.decode(torch.zeros(1, 1, 16, 16))[1].item() == pytest.approx(9 / 256)
    values = CODECS[3]
    for height, score in [(0.5, 0.5), (1.0, 1.0), (1.7, 1.7), (-1.0, 0.0)]:
        assert values.decode(height * heatmaps)[1].item() == pytest.approx(score, abs=1e-6)


def test_half_precision_is_decoded_in_single() -> None:
    for codec in CODECS:
        maps = _maps(codec, codec.encode(_points(codec), torch.ones(20, 7))[0]).bfloat16()
        points, scores = codec.decode(maps)
        assert points.dtype == scores.dtype == torch.float32
        torch.testing.assert_close(points, codec.decode(maps.float())[0])


def test_noise_moves_points_less_than_with_differences_along_two_lines() -> None:
    """Why the quadratic is fitted to all nine cells."""
    codec = CODECS[0]
    points = _points(codec, 100).clamp(8, 55)
    noise = 0.2 * torch.randn(100, 7, 16, 16, generator=torch.Generator().manual_seed(1))
    logits = _maps(codec, codec.encode(points, torch.ones(100, 7))[0]) + noise
    found, _ = codec.decode(logits)
    simple = torch.empty_like(points)
    for b, k in np.ndindex(100, 7):
        row, column = divmod(int(logits[b, k].argmax()), 16)
        for axis, (dx, dy) in enumerate([(1, 0), (0, 1)]):
            left, middle, right = (logits[b, k, row + i * dy, column + i * dx].item() for i in (-1, 0, 1))
            step = (left - right) / 2 / (left - 2 * middle + right)
            simple[b, k, axis] = ((column, row)[axis] + min(max(step, -0.5), 0.5) + 0.5) * 4 - 0.5
    assert (found - points).square().mean() < 0.9 * (simple - points).square().mean()


def test_maps_of_mmpose(shared_data: Path) -> None:
    """mmpose 759b39c, unbiased (DARK) and UDP maps, sigma 2; its pixels are x / 4 and x · 47 / 191 on the map."""
    path = shared_data.parent / "fixtures/codecs/mmpose_vectors.json"
    if not path.is_file():
        pytest.skip(f"no published numbers: {path} is missing")
    published = json.loads(path.read_text())
    codec = Heatmap(input_size=(192, 256), heatmap_size=(48, 64), sigma=2.0)
    points = torch.tensor(published["keypoints"])
    for name, scale in [("msra_dark_s2", [1 / 4, 1 / 4]), ("udp_s2", [47 / 191, 63 / 255])]:
        case = published["codecs"][name]
        cells = points * torch.tensor(scale)
        heatmaps, weights = codec.encode((cells + 0.5) * 4 - 0.5, torch.tensor(published["visible"]))
        # With x / 4 the map ends half a pixel earlier than the input, and before the ninth point.
        counted = [k for k, weight in enumerate(case["weights"][0]) if weight and (k != 8 or name == "udp_s2")]
        assert weights[0].nonzero().flatten().tolist() == counted
        highest, cell = heatmaps[0, counted].flatten(1).max(-1)
        np.testing.assert_allclose(highest, np.array(case["max_per_channel"])[counted], atol=1e-4)
        assert cell.tolist() == [case["argmax_per_channel"][k] for k in counted]
        np.testing.assert_allclose(heatmaps[0, 1, 47:55, 6:14], case["channel1_patch_y47_54_x6_13"], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmap_size": (16, 2)}, r"`heatmap_size` is \(16, 2\): give at least 3"),
        ({"input_size": (0, 64)}, r"`input_size` is \(0, 64\)"),
        ({"sigma": 0.0}, "`sigma` is 0.0"),
        ({"sigma": math.nan}, "`sigma` is nan"),
    ],
)
def test_an_impossible_codec_is_an_error(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Heatmap(**{"input_size": (64, 64), "heatmap_size": (16, 16), "sigma": 1.0, **change})
