from __future__ import annotations

import numpy as np
import pytest

from rpgmt.data.augmentation import Augmentation


def test_augmentation_is_a_function_of_seed_epoch_and_index() -> None:
    augment = Augmentation(shift=0.1)
    again = Augmentation(shift=0.1)
    drawn = {}
    for key in np.ndindex(4, 4, 4):
        drawn[key] = augment.draw(*key)
        assert drawn[key] == again.draw(*key)
    assert len({(changes.scale, changes.rotation, changes.shift) for changes in drawn.values()}) == 64
    augment.draw(2**63 - 1, 2**31, 2**31)  # large numbers have streams too


def test_the_first_draws_are_those_of_the_first_release() -> None:
    """Figures in RESULTS.md rest on them: a new change takes its numbers from further on in the stream."""
    changes = Augmentation(shift=0.1).draw(3, 2, 1)
    flip, scale, rotation, right, down = np.random.Generator(np.random.Philox(key=[3, 0], counter=[0, 2, 1, 0])).random(5)
    expected = (
        flip < 0.5,
        1 / (1 + 0.25 * (2 * scale - 1)),
        30 * (2 * rotation - 1),
        (0.1 * (2 * right - 1), 0.1 * (2 * down - 1)),
    )
    assert (changes.flip, changes.scale, changes.rotation, changes.shift) == expected
    assert (changes.half_body, changes.pixel_seed, changes.occlusion_seed) == (None, None, None)


def test_switching_one_change_on_leaves_the_others_as_they_were() -> None:
    plain = Augmentation(shift=0.1)
    full = Augmentation(shift=0.1, rotation_probability=0.6, shift_probability=0.3, half_body=0.3, pixels=0.5, occlusion=0.5)
    drawn = [(plain.draw(0, 0, index), full.draw(0, 0, index)) for index in range(2000)]
    for a, b in drawn:
        assert (a.flip, a.scale) == (b.flip, b.scale)
        assert b.rotation in (0.0, a.rotation)
        assert b.shift in ((0.0, 0.0), a.shift)
    parts = {
        0.6: [b.rotation != 0 for _, b in drawn],
        0.3: [b.shift != (0, 0) for _, b in drawn],
        0.7: [b.half_body == "upper" for _, b in drawn if b.half_body],
        0.5: [b.pixel_seed is not None for _, b in drawn] + [b.occlusion_seed is not None for _, b in drawn],
    }
    for probability, happened in parts.items():
        assert np.mean(happened) == pytest.approx(probability, abs=3.3 * np.sqrt(0.25 / len(happened)))
    assert np.mean([b.half_body is not None for _, b in drawn]) == pytest.approx(0.3, abs=0.04)
    seeds = [b.pixel_seed for _, b in drawn if b.pixel_seed is not None]
    assert len(set(seeds)) == len(seeds)


def test_augmentation_is_uniform_in_its_ranges() -> None:
    augment = Augmentation(flip=0.25, scale=0.2, rotation=30, shift=0.1)
    drawn = [augment.draw(0, epoch, index) for epoch in range(40) for index in range(50)]
    assert np.mean([change.flip for change in drawn]) == pytest.approx(0.25, abs=0.04)
    _assert_uniform((1 / np.array([change.scale for change in drawn]) - 1) / 0.2)  # it is the box that is enlarged
    _assert_uniform(np.array([change.rotation for change in drawn]) / 30)
    for axis in (0, 1):
        _assert_uniform(np.array([change.shift[axis] for change in drawn]) / 0.1)


def _assert_uniform(values: np.ndarray) -> None:
    """From -1 to 1: Kolmogorov-Smirnov distance of 2,000 values, below its 0.999 quantile 1.95 / √2000."""
    distance = np.abs(np.sort(values) - np.linspace(-1, 1, len(values))).max() / 2
    assert distance < 1.95 / np.sqrt(len(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip": 1.5}, "`flip` is 1.5: give a probability"),
        ({"scale": 1.0}, "`scale` is 1.0"),
        ({"rotation": -1}, "`rotation` is -1"),
        ({"shift": float("nan")}, "`shift` is nan"),
        ({"half_body": 2}, "`half_body` is 2: give a probability"),
        ({"occlusion": -0.1}, "`occlusion` is -0.1: give a probability"),
    ],
)
def test_an_impossible_augmentation_is_an_error(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**change)
