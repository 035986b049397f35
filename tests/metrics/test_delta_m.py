"""Relative gains over single-task networks: published rows, signs, what is left out."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from rpgmt.metrics.delta_m import delta_m


@dataclass
class Measured:
    higher: dict[str, bool]
    main: str


@dataclass
class Published:
    """A row of NYUv2 with the SegNet of MTAN: the nine metrics, and the three gains, each to two places."""

    values: tuple[float, ...]
    delta_metrics: float
    delta_tasks: float
    delta_main: float
    metrics: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = named(*self.values)


TASKS = {
    "segmentation": Measured({"mIoU": True, "accuracy": True}, "mIoU"),
    "depth": Measured({"abs": False, "rel": False}, "abs"),
    "normals": Measured({"mean": False, "median": False, "11.25": True, "22.5": True, "30": True}, "mean"),
}


def named(*values: float) -> dict[str, float]:
    names = [f"{task}.{metric}" for task, measured in TASKS.items() for metric in measured.higher]
    return dict(zip(names, values, strict=True))


SINGLE = named(38.30, 63.76, 0.6754, 0.2780, 25.01, 19.21, 30.14, 57.20, 69.15)  # as of Nash-MTL's code
# Δm over metrics as the papers print it: CAGrad (arXiv 2110.14048) and Nash-MTL (arXiv 2202.01017), their tables of NYUv2.
PUBLISHED = {
    "EW": Published((39.29, 65.33, 0.5493, 0.2263, 28.15, 23.96, 22.09, 47.50, 61.08), 5.59, 0.88, 2.90),
    "DWA": Published((39.11, 65.31, 0.5510, 0.2285, 27.61, 23.18, 24.17, 50.18, 62.39), 3.57, 1.93, 3.38),
    "RLW": Published((37.17, 63.77, 0.5759, 0.2410, 28.27, 24.18, 22.26, 47.05, 60.62), 7.78, -2.16, -0.42),
    "MGDA": Published((30.47, 59.90, 0.6070, 0.2555, 24.88, 19.45, 29.18, 56.88, 69.36), 1.38, -1.66, -3.27),
    "PCGrad": Published((38.06, 64.64, 0.5550, 0.2325, 27.41, 22.80, 23.86, 49.83, 63.14), 3.97, 1.11, 2.53),
    "GradDrop": Published((39.39, 65.12, 0.5455, 0.2279, 27.48, 22.96, 23.38, 49.44, 62.87), 3.58, 2.07, 4.07),
    "CAGrad": Published((39.79, 65.49, 0.5486, 0.2250, 26.31, 21.58, 25.61, 52.36, 65.58), 0.19, 4.33, 5.82),
    "Nash-MTL": Published((40.13, 65.93, 0.5261, 0.2171, 25.26, 20.08, 28.40, 55.47, 68.15), -4.05, 7.65, 8.63),
}


@pytest.mark.parametrize("method", PUBLISHED)
def test_published_rows(method: str) -> None:
    """The metrics are rounded, and so are the gains: a hundredth of a point each way."""
    row = PUBLISHED[method]
    found = delta_m(row.metrics, SINGLE, TASKS, name="single-task")
    assert found.delta_metrics == pytest.approx(row.delta_metrics, abs=0.011)
    assert found.delta_tasks == pytest.approx(row.delta_tasks, abs=0.011)
    assert found.delta_main == pytest.approx(row.delta_main, abs=0.011)
    assert found.left_out == ()


def test_the_definitions_rank_differently() -> None:
    """EW is worse than the single-task networks by one, better by the two others."""
    found = delta_m(PUBLISHED["EW"].metrics, SINGLE, TASKS, name="single-task")
    assert found.delta_metrics is not None
    assert found.delta_tasks is not None
    assert found.delta_metrics > 0  # lower is better
    assert found.delta_tasks > 0  # higher is better


def test_the_baseline_gains_nothing_over_itself() -> None:
    found = delta_m(SINGLE, SINGLE, TASKS, name="single-task")
    assert (found.delta_metrics, found.delta_tasks, found.delta_main, found.baseline) == (0, 0, 0, "single-task")


@pytest.mark.parametrize("metric", SINGLE)
def test_a_better_metric_lowers_the_first_gain_and_raises_the_others(metric: str) -> None:
    task, _, name = metric.partition(".")
    better = SINGLE | {metric: SINGLE[metric] * (1.1 if TASKS[task].higher[name] else 0.9)}
    found = delta_m(better, SINGLE, TASKS, name="single-task")
    assert found.delta_metrics == pytest.approx(-10 / 9)
    assert found.delta_tasks == pytest.approx(10 / 3 / len(TASKS[task].higher))
    assert found.delta_main == pytest.approx(10 / 3 if name == TASKS[task].main else 0)


def test_what_cannot_be_compared_is_left_out_and_named() -> None:
    """By hand: +10 % on mIoU, 20 % less relative error; no accuracy, a baseline of 0 for `abs`, no normals at all."""
    values: dict[str, float | None] = {
        "segmentation.mIoU": 0.55,
        "segmentation.accuracy": None,
        "depth.abs": 1,
        "depth.rel": 0.8,
    }
    baseline: dict[str, float | None] = {
        "segmentation.mIoU": 0.5, "segmentation.accuracy": 0.9, "depth.abs": 0, "depth.rel": 1, "normals.mean": None,
    }  # fmt: skip
    found = delta_m(values, baseline, TASKS, name="single-task")
    assert found.delta_metrics == pytest.approx(-15)
    assert found.delta_tasks == pytest.approx(15)
    assert found.delta_main == pytest.approx(10)
    assert found.left_out == (
        "segmentation.accuracy",
        "depth.abs",
        *(f"normals.{name}" for name in TASKS["normals"].higher),
    )


def test_nothing_to_compare() -> None:
    found = delta_m({}, SINGLE, TASKS, name="single-task")
    assert (found.delta_metrics, found.delta_tasks, found.delta_main) == (None, None, None)
    assert set(found.left_out) == set(SINGLE)
