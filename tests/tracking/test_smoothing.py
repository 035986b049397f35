"""The One-Euro filter: the properties that its paper names, its algorithm in plain numbers, and points that are not seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rpgmt.tracking import KeypointSmoother

FPS = 30.0
BOX = np.array([[0, 0, 50, 200]], np.float64)  # a person of size √(50·200) = 100
IDS = np.array([1])


def smooth(path: np.ndarray, scores: np.ndarray | None = None, box: np.ndarray = BOX, **options: float) -> np.ndarray:
    """One person's key points (frames, K, 2), smoothed."""
    smoother = KeypointSmoother(FPS, **options)
    scores = np.ones(path.shape[:2]) if scores is None else scores
    return np.array(
        [smoother(IDS, np.dstack((p, s))[0][None], box)[0, :, :2] for p, s in zip(path[:, None], scores, strict=True)]
    )


def on_x(values: np.ndarray) -> np.ndarray:
    """A path (frames, 1, 2) of one point that moves along x."""
    return np.stack((values, np.full(len(values), 7.0)), axis=-1)[:, None]


def weight(seconds: float, cutoff: float) -> float:
    return 1 / (1 + 1 / (2 * math.pi * cutoff) / seconds)


def one_euro(values: list[float], min_cutoff: float, beta: float, derivative_cutoff: float) -> list[float]:
    """Algorithm 1 of the paper, line by line, for one number at 30 frames a second."""
    filtered, derivative, found = values[0], 0.0, [values[0]]
    for value in values[1:]:
        dx = (value - filtered) * FPS
        derivative += weight(1 / FPS, derivative_cutoff) * (dx - derivative)
        filtered += weight(1 / FPS, min_cutoff + beta * abs(derivative)) * (value - filtered)
        found.append(filtered)
    return found


@pytest.mark.parametrize("options", [{}, {"min_cutoff": 0.1, "beta": 0.0}, {"min_cutoff": 3.0, "derivative_cutoff": 0.2}])
def test_as_the_papers_algorithm(options: dict[str, float]) -> None:
    values = np.random.default_rng(0).normal(0, 5, 200).cumsum()
    full = {"min_cutoff": 1.0, "beta": 10.0, "derivative_cutoff": 1.0, **options}
    # Speeds are in sizes of the person, 100 pixels here.
    expected = one_euro(values.tolist(), full["min_cutoff"], full["beta"] / 100, full["derivative_cutoff"])
    found = smooth(on_x(values), **options)
    assert np.allclose(found[:, 0, 0], expected, rtol=0, atol=1e-9)
    assert (found[:, 0, 1] == 7).all()


def test_what_rests_stays_exactly() -> None:
    path = np.broadcast_to(np.random.default_rng(0).uniform(0, 500, (17, 2)), (50, 17, 2))
    assert np.array_equal(smooth(path), path)


def test_without_beta_it_is_the_exponential_mean_and_a_step_is_not_overshot() -> None:
    step = np.where(np.arange(60) < 10, 0.0, 80.0)
    (a,) = {weight(1 / FPS, 1.5)}
    expected = 80 * (1 - (1 - a) ** np.clip(np.arange(60) - 9, 0, None))
    found = smooth(on_x(step), min_cutoff=1.5, beta=0)[:, 0, 0]
    assert np.allclose(found, expected, rtol=0, atol=1e-9)
    assert (np.diff(found) >= 0).all()
    assert found.max() < 80


@pytest.mark.parametrize("beta", [0, 5, 100])
def test_a_step_is_never_overshot(beta: float) -> None:
    """Each result lies between the last one and the new value."""
    found = smooth(on_x(np.where(np.arange(60) < 10, 0.0, 80.0)), beta=beta)[:, 0, 0]
    assert (np.diff(found) >= 0).all()
    assert found.max() <= 80


def test_lag_falls_with_beta_and_without_it_is_that_of_the_cutoff() -> None:
    ramp = 200 * np.arange(600) / FPS  # 200 pixels, two sizes, a second
    lags = [ramp[-1] - smooth(on_x(ramp), beta=beta)[-1, 0, 0] for beta in (0, 1, 5, 20, 100)]
    assert lags == sorted(lags, reverse=True)
    assert lags[0] == pytest.approx(200 / (2 * math.pi * 1.0), rel=1e-6)  # speed times the time constant
    assert lags[-1] < lags[0] / 50


def test_it_trembles_less() -> None:
    noise = 100 + np.random.default_rng(0).normal(0, 2, (600, 17, 2))
    assert smooth(noise)[60:].std() < 0.6 * noise.std()
    assert smooth(noise, beta=0)[60:].std() < 0.35 * noise.std()


def test_neither_resolution_nor_direction_matters() -> None:
    path = np.random.default_rng(0).normal(0, 4, (80, 17, 2)).cumsum(0)
    plain = smooth(path)
    assert np.allclose(smooth(3 * path, box=3 * BOX), 3 * plain, rtol=0, atol=1e-8)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    assert np.allclose(smooth(path @ turn + (50, 9)), plain @ turn + (50, 9), rtol=0, atol=1e-8)


def test_a_point_with_a_low_score_does_not_pull() -> None:
    """Its place is as if the frame had not been, and the next good one is told how long ago the last was."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 5, 30).cumsum()
    scores = np.ones((30, 1))
    scores[10:13] = 0.1
    wild = values.copy()
    wild[10:13] = 1e6
    found = smooth(on_x(wild), scores, min_cutoff=2, beta=0)[:, 0, 0]
    assert np.array_equal(found[:10], smooth(on_x(values), min_cutoff=2, beta=0)[:10, 0, 0])
    assert (found[10:13] == found[9]).all()
    assert found[13] == pytest.approx(found[9] + weight(4 / FPS, 2) * (values[13] - found[9]))


def test_a_point_that_was_never_seen_well_is_left_until_it_is() -> None:
    path = on_x(np.array([5.0, 900.0, 30.0, 60.0]))
    scores = np.array([[0.0], [0.1], [0.9], [0.9]])
    found = smooth(path, scores, beta=0)[:, 0, 0]
    assert found[:3].tolist() == [5, 900, 30]
    assert found[3] == pytest.approx(30 + weight(1 / FPS, 1) * 30)


def test_points_and_people_are_smoothed_on_their_own() -> None:
    """Whatever their order in a frame, and whoever else is there; whoever has no id is left alone."""
    rng = np.random.default_rng(0)
    path = rng.normal(0, 5, (40, 3, 17, 2)).cumsum(0)
    alone = np.array([smooth(path[:, person]) for person in range(3)]).swapaxes(0, 1)
    together = KeypointSmoother(FPS)
    for frame, points in enumerate(np.concatenate((path, np.ones((40, 3, 17, 1))), -1)):
        order = rng.permutation(3)
        ids = np.where(order == 2, -1, order)
        found = together(ids, points[order], np.repeat(BOX, 3, 0))
        for id, result, raw in zip(ids, found, points[order], strict=True):
            assert np.array_equal(result[:, :2], raw[:, :2] if id == -1 else alone[frame, id])
            assert (result[:, 2] == 1).all()


def test_points_given_stay_as_they_are() -> None:
    smoother, points = KeypointSmoother(FPS), np.random.default_rng(0).uniform(0, 9, (2, 1, 17, 3))
    before = points.copy()
    for frame in points:
        smoother(IDS, frame, BOX)
    assert np.array_equal(points, before)


@pytest.mark.parametrize("away", [1, 5, 6])
def test_who_was_away_goes_on_and_after_a_while_starts_anew(away: int) -> None:
    smoother = KeypointSmoother(FPS, beta=0, patience=5)
    first, later = (np.array([[[x, 7.0, 1.0]]]) for x in (0.0, 90.0))
    smoother(IDS, first, BOX)
    for _ in range(away):
        smoother(np.zeros(0, np.int64), np.zeros((0, 1, 3)), np.zeros((0, 4)))
    found = smoother(IDS, later, BOX)[0, 0, 0]
    assert found == pytest.approx(90 * weight((away + 1) / FPS, 1) if away < 6 else 90)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "`fps` is 0"),
        ({"fps": 30, "min_cutoff": 0}, "`min_cutoff` is 0"),
        ({"fps": 30, "beta": -1}, "`beta` is -1"),
    ],
)
def test_numbers_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeypointSmoother(**options)
