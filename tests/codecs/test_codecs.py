"""What holds for every codec: round trip, mirroring, empty and odd maps, precision."""

from __future__ import annotations

import math

import pytest
import torch

from rpgmt.codecs.codec import Codec
from rpgmt.codecs.heatmap import Heatmap
from rpgmt.codecs.msra import Msra
from rpgmt.codecs.udp import Udp

INPUT, MAP = (192, 256), (48, 64)
CODECS: dict[str, Codec] = {
    "heatmap sigma 1": Heatmap(input_size=INPUT, heatmap_size=MAP, sigma=1.0, maps="values"),
    "heatmap sigma 2": Heatmap(input_size=INPUT, heatmap_size=MAP, sigma=2.0, maps="values"),
    "msra": Msra(input_size=INPUT, heatmap_size=MAP),
    "dark": Msra(input_size=INPUT, heatmap_size=MAP, dark=True),
    "udp": Udp(input_size=INPUT, heatmap_size=MAP),
}
TO_CENTRE = (math.sqrt(2) + math.asinh(1)) / 6
"""Mean distance of the points of a unit square to its centre, 0.3826: what is left where all is rounded to cells."""


def _points(margin: float, people: int = 60, input_size: tuple[int, int] = INPUT) -> torch.Tensor:
    """(people, 17, 2), at least `margin` pixels inside the input, on sixteenths of a pixel."""
    generator = torch.Generator().manual_seed(0)
    room = torch.tensor(input_size) - 1 - 2 * margin
    return ((margin + torch.rand(people, 17, 2, generator=generator) * room) * 16).round() / 16


def _noise(shape: torch.Size, deviation: float = 0.02) -> torch.Tensor:
    return deviation * torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _distances(codec: Codec, points: torch.Tensor, deviation: float) -> torch.Tensor:
    """Pixels between points and what is decoded from their maps and noise of that deviation."""
    valid = torch.ones(points.shape[:2])
    maps, _ = codec.encode(points, valid)
    found, _ = codec.decode(maps + _noise(maps.shape, deviation))
    return (found - points).norm(dim=-1)


@pytest.mark.parametrize(
    ("name", "mean", "greatest", "noisy_mean"),
    [
        ("heatmap sigma 1", 0.001, 0.001, 0.15),
        ("heatmap sigma 2", 0.001, 0.001, 0.35),
        ("msra", 4 * TO_CENTRE, 2 * math.sqrt(2), 2.1),  # cells of 4 pixels; noise decides about the quarters
        ("dark", 0.0015, 0.0025, 0.1),
        ("udp", 0.0015, 0.0025, 0.1),
    ],
)
def test_error_of_a_round_trip_in_pixels(name: str, mean: float, greatest: float, noisy_mean: float) -> None:
    codec = CODECS[name]
    points = _points(margin=32)
    exact, noisy = _distances(codec, points, 0.0), _distances(codec, points, 0.02)
    assert exact.mean() < 1.03 * mean
    assert exact.max() < 1.001 * greatest
    assert noisy.mean() < noisy_mean
    if name == "msra":  # rounding does not do better than this, either
        assert exact.mean() > 0.97 * mean
        assert exact.max() > 0.95 * greatest


@pytest.mark.parametrize("codec", [Heatmap, Udp])
def test_unbiased_maps_of_mirrored_points_are_the_mirrored_maps(codec: type[Codec]) -> None:
    # Strides of exactly 4, so that nothing is rounded: between edges and between centres of the outermost pixels.
    size = ((192, 256), (48, 64)) if codec is Heatmap else ((189, 253), (48, 64))
    unbiased = codec(input_size=size[0], heatmap_size=size[1], sigma=2.0)
    # Off the middles between cells: there the window of 3 sigma may lie to either side.
    points = _points(margin=0, input_size=size[0]) + torch.tensor([1 / 64, 0.0])
    mirrored = torch.stack([size[0][0] - 1 - points[..., 0], points[..., 1]], dim=-1)
    valid = torch.ones(points.shape[:2])
    (maps, weights), (mirrored_maps, mirrored_weights) = unbiased.encode(points, valid), unbiased.encode(mirrored, valid)
    torch.testing.assert_close(mirrored_maps.flip(-1), maps, rtol=0, atol=1e-6)
    assert torch.equal(weights, mirrored_weights)
    assert weights.all()
    assert unbiased.flip_shift == 0


def _flip_test_error(codec: Codec, shift: int) -> float:
    """Mean bias along x, in pixels, of the point in the average of an input's map and its mirrored input's."""
    points = _points(margin=32)
    valid = torch.ones(points.shape[:2])
    mirrored = torch.stack([codec.input_size[0] - 1 - points[..., 0], points[..., 1]], dim=-1)
    maps, mirrored_back = codec.encode(points, valid)[0], codec.encode(mirrored, valid)[0].flip(-1)
    found, _ = codec.decode((maps + mirrored_back.roll(shift, dims=-1)) / 2)
    return (found - points)[..., 0].mean().item()


@pytest.mark.parametrize(("name", "without", "with_shift"), [("msra", 0.5625, 0.0625), ("dark", 0.375, 0.125)])
def test_the_flip_shift_makes_the_bias_of_averaged_maps_least(name: str, without: float, with_shift: float) -> None:
    """In cells. At stride 4 the mirrored map lies 3/4 too far left, with the shift 1/4 too far right; an average, half that.

    Rounded, it lies in the cell to the left of the other map's three times in four, and with the shift in the cell to the
    right once in four. Then the left one of two equal cells is found, and moved by a quarter to the right: 3/4 or 1/4 off.
    """
    codec = CODECS[name]
    assert codec.flip_shift == 1
    bias = {shift: abs(_flip_test_error(codec, shift)) / 4 for shift in (-1, 0, 1, 2)}
    assert min(bias, key=bias.__getitem__) == codec.flip_shift
    assert bias[0] == pytest.approx(without, abs=0.03)
    assert bias[1] == pytest.approx(with_shift, abs=0.03)


@pytest.mark.parametrize("name", ["heatmap sigma 1", "heatmap sigma 2", "udp"])
def test_unbiased_codecs_need_no_shift(name: str) -> None:
    codec = CODECS[name]
    assert abs(_flip_test_error(codec, codec.flip_shift)) < 1e-3


@pytest.mark.parametrize("name", CODECS)
def test_points_that_are_invalid_or_far_outside_weigh_nothing(name: str) -> None:
    codec = CODECS[name]
    inside, outside = [[0, 0], [191, 255], [96.3, 0.5]], [[-200, 5], [500, 5], [5, -1e9], [math.nan, 5], [5, math.inf]]
    valid = torch.tensor([[1, 2, 1, 0] + [1] * 5])
    maps, weights = codec.encode(torch.tensor([[*inside, inside[0], *outside]]), valid)
    assert weights.tolist() == [[1, 1, 1] + [0] * 6]
    assert torch.equal(maps.amax((-2, -1)) > 0, weights > 0)
    assert maps.isfinite().all()


@pytest.mark.parametrize("name", CODECS)
def test_any_map_without_nan_gives_finite_points_within_a_cell_of_the_highest(name: str) -> None:
    codec = CODECS[name]
    width, height = MAP
    one_cell = torch.zeros(height, width)
    one_cell[0, -1] = 1
    ridge = torch.ones(height, 1) * torch.linspace(0, 1, width)
    noise = torch.randn(13, height, width, generator=torch.Generator().manual_seed(0))
    odd = [torch.zeros(height, width), torch.ones(height, width), -torch.ones(height, width), one_cell, -one_cell, ridge]
    odd += [1e30 * noise[0], 1e-30 * noise[0], -noise[0].abs(), one_cell.masked_fill(one_cell > 0, math.inf)]
    maps = torch.stack([*odd, *noise])[None]
    points, scores = codec.decode(maps)
    assert points.isfinite().all()
    heights = maps.amax((-2, -1)).clamp(min=0)  # of values; soft-max turns infinite logits into a probability
    assert (
        torch.equal(scores, heights) if getattr(codec, "maps", "values") == "values" else ((scores >= 0) & (scores <= 1)).all()
    )
    assert scores[0, 0] == scores[0, 2] == 0
    peak = maps.flatten(2).argmax(-1)
    highest = torch.stack([peak % width, peak // width], dim=-1)
    if name == "udp":
        cells = points * torch.tensor([47 / 191, 63 / 255])
    else:
        cells = points / 4 if name in ("msra", "dark") else (points + 0.5) / 4 - 0.5
    assert (cells - highest).abs().max() <= 1 + 1e-5
    assert cells[0, 0].tolist() == [0, 0]  # an empty map


@pytest.mark.parametrize("name", CODECS)
def test_no_people_give_no_points(name: str) -> None:
    codec = CODECS[name]
    maps, weights = codec.encode(torch.zeros(0, 17, 2), torch.zeros(0, 17))
    points, scores = codec.decode(maps)
    assert weights.shape == scores.shape == (0, 17)
    assert points.shape == (0, 17, 2)


@pytest.mark.parametrize("name", CODECS)
def test_half_precision_and_autocast_are_decoded_in_single(name: str) -> None:
    codec = CODECS[name]
    points = _points(margin=8, people=4)
    half = codec.encode(points.double(), torch.ones(points.shape[:2]))[0].bfloat16()
    expected = codec.decode(half.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = codec.decode(half)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == torch.float32
        assert torch.equal(x, y)


@pytest.mark.parametrize("codec", [Msra, Udp])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmap_size": (2, 16)}, r"`heatmap_size` is \(2, 16\): give at least 3"),
        ({"input_size": (1, 64)}, r"`input_size` is \(1, 64\): give at least 2"),
        ({"sigma": -1.0}, "`sigma` is -1.0"),
    ],
)
def test_an_impossible_codec_is_an_error(codec: type[Codec], change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec(**{"input_size": (64, 64), "heatmap_size": (16, 16), "sigma": 1.0, **change})
