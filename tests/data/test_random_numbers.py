"""The random numbers of the data: their bits, which recorded results depend on, and their independence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.random_twin import drawn

from rpgmt.data.loader import ResumableLoader
from rpgmt.data.random_numbers import generator, library_generators, uniform_integers, uniforms


def test_the_bits_are_those_that_recorded_results_were_made_with() -> None:
    assert generator(3, 7).integers(0, 2**32, 4).tolist() == [409312344, 1554317759, 231420379, 4216182801]
    assert generator(1, 2, 3).random(2).tolist() == [0.7198955456932165, 0.012702050455707714]
    assert uniforms(1, 2, 3, 4, 3) == [0.8631109727712196, 0.24603724975367647, 0.5264076207840087]
    epoch, index = torch.tensor([0, 0, 5]), torch.tensor([0, 1, 59_999])
    assert uniform_integers(0, epoch, index, 0, 2**31 - 1).tolist() == [1091272336, 1418351105, 613047184]
    numpy, python = library_generators(5)
    assert numpy.random(2).tolist() == [0.8050029237453802, 0.8079407897364937]
    assert python.random() == 0.6229016948897019


def test_the_order_of_an_epoch_is_that_of_recorded_results() -> None:
    loader = ResumableLoader([0] * 10, 4, seed=3)  # type: ignore[arg-type]
    assert [loader.indices(batch) for batch in range(3)] == [
        [(0, 1), (0, 0), (0, 2), (0, 5)],
        [(0, 7), (0, 4), (0, 8), (0, 3)],
        [(1, 0), (1, 8), (1, 6), (1, 7)],
    ]


@pytest.mark.parametrize("place", range(4))
def test_each_part_of_a_key_gives_other_numbers(place: int) -> None:
    keys = [[1, 2, 3, 4] for _ in range(50)]
    for number, key in enumerate(keys):
        key[place] = number
    assert len({tuple(uniforms(*key, count=2)) for key in keys}) == 50
    assert len({generator(*key).random() for key in keys}) == 50


def test_uniforms_do_not_depend_on_what_is_drawn_beside_them() -> None:
    """Threads share one generator, and a longer draw begins as a shorter one."""
    keys = [(seed, epoch, index, 0) for seed in range(4) for epoch in range(4) for index in range(100)]
    expected = [uniforms(*key, count=16) for key in keys]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda key: uniforms(*key, count=16), keys)) == expected
    assert [uniforms(*key, count=3) for key in reversed(keys)][::-1] == [numbers[:3] for numbers in expected]
    assert abs(np.mean(expected) - 0.5) < 0.01


def test_whole_numbers_are_those_of_plain_integers() -> None:
    epoch, index = torch.tensor([0, 7, 2**31]), torch.tensor([0, 50_000, 2**31])
    for seed, stream, count in ((0, 0, 9), (2**31 - 1, 2, 2**31 - 1), (12, 1, 1)):
        found = uniform_integers(seed, epoch, index, stream, count).tolist()
        keys = zip(epoch.tolist(), index.tolist(), strict=True)
        assert found == [drawn(seed, *key, stream, count) for key in keys]


def test_whole_numbers_are_even_and_their_streams_are_independent() -> None:
    index, epoch = torch.arange(60_000), torch.zeros(60_000, dtype=torch.long)
    first, second, later = (
        uniform_integers(0, epoch, index, 0, 9),
        uniform_integers(0, epoch, index, 1, 9),
        uniform_integers(0, epoch + 1, index, 0, 9),
    )
    for pair in (
        first * 9 + second,
        first * 9 + later,
        first[:-1] * 9 + first[1:],
        first * 9 + uniform_integers(1, epoch, index, 0, 9),
    ):
        counts = torch.bincount(pair, minlength=81).double()
        expected = counts.sum() / 81
        assert ((counts - expected) ** 2 / expected).sum() < 130  # χ² with 80 degrees of freedom: 1 in 3,000 is above
