from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rpgmt.codecs.simcc import SimCC

CODEC = SimCC(input_size=(24, 16), split_ratio=2, sigma=(2.0, 1.5))


def test_encoding_is_the_gaussian_of_a_loop() -> None:
    points = torch.tensor([[[3.2, 7.9], [23.0, 0.0], [11.5, 15.4]]])
    (x, y), weights = CODEC.encode(points, torch.ones(1, 3))
    assert (x.shape, y.shape) == ((1, 3, 48), (1, 3, 32))
    assert weights.all()
    for k in range(3):
        for vectors, axis, sigma in ((x, 0, 2.0), (y, 1, 1.5)):
            middle = round(2 * points[0, k, axis].item())
            expected = [math.exp(-((i - middle) ** 2) / (2 * sigma**2)) for i in range(vectors.shape[-1])]
            np.testing.assert_allclose(vectors[0, k], expected, atol=1e-6)


def test_points_that_are_invalid_or_three_sigma_outside_weigh_nothing() -> None:
    counts, does_not = [[-3, 5], [26.5, 5], [5, -2]], [[-3.5, 5], [27, 5], [5, -2.5], [math.nan, 5]]
    valid = torch.tensor([[1, 2, 1, 1, 1, 1, 1, 0]])
    (x, y), weights = CODEC.encode(torch.tensor([[*counts, *does_not, [5, 5]]]), valid)
    assert weights.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    for vectors in (x, y):
        assert torch.equal(vectors.amax(-1) > 0, weights > 0)


def test_the_score_is_the_lower_of_the_two_peaks() -> None:
    x, y = torch.zeros(1, 4, 48), torch.zeros(1, 4, 32)
    x[0, :, 7] = torch.tensor([0.5, 0.9, 1.7, -1.0])
    y[0, :, 20] = torch.tensor([0.8, 0.3, 1.2, 0.6])
    points, scores = CODEC.decode((x, y))
    torch.testing.assert_close(scores, torch.tensor([[0.5, 0.3, 1.0, 0.0]]))
    assert points[0, :3].tolist() == [[3.5, 10]] * 3
    assert points[0, 3].tolist() == [0, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": (0, 16)}, r"`input_size` is \(0, 16\)"),
        ({"split_ratio": 0}, "`split_ratio` is 0"),
        ({"sigma": (2.0, 0.0)}, r"`sigma` is \(2.0, 0.0\)"),
        ({"sigma": (math.nan, 1.0)}, r"`sigma` is \(nan, 1.0\)"),
    ],
)
def test_an_impossible_codec_is_an_error(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimCC(**{"input_size": (24, 16), **change})
