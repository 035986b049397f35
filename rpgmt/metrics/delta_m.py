"""The relative gain of a multi-task network over single-task networks, in the three definitions that are in use.

They differ in sign and in what they average, and the same results can rank methods differently under each. So all three
are given, each with its sign, and no one of them alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class MeasuredTask(Protocol):
    """What the comparison needs to know of a task; a `rpgmt.heads.Head` is one."""

    @property
    def higher(self) -> Mapping[str, bool]:
        """The task's metrics, and whether a higher value is the better one."""

    @property
    def main(self) -> str:
        """The one of them that stands for the task."""


@dataclass(frozen=True)
class DeltaM:
    """Relative gains over a baseline, in percent; None where no metric is left.

    Attributes:
        baseline: what is compared with.
        delta_metrics: LOWER is better: the mean over all metrics of (-1)^l (M - B) / B, l = 1 where a higher value is better
            (CAGrad, arXiv 2110.14048; Nash-MTL, arXiv 2202.01017; FAMO, arXiv 2306.03792).
        delta_tasks: HIGHER is better: the mean over tasks of the mean over a task's metrics (LibMTL).
        delta_main: HIGHER is better: the mean over tasks of one metric each (Auto-Lambda, arXiv 2202.03091; ATRC, arXiv
            2104.13874; InvPT, arXiv 2203.07997).
        left_out: the metrics `TASK.METRIC` that count in none of them, as their value is not known, or the baseline's is not
            known or 0.
    """

    baseline: str
    delta_metrics: float | None
    delta_tasks: float | None
    delta_main: float | None
    left_out: tuple[str, ...]


def delta_m(
    values: Mapping[str, float | None],
    baseline: Mapping[str, float | None],
    tasks: Mapping[str, MeasuredTask],
    *,
    name: str,
) -> DeltaM:
    """Compare a network with a baseline.

    Args:
        values: the network's metrics by `TASK.METRIC`; others than the tasks' do not count.
        baseline: those of the single-task networks.
        tasks: by name.
        name: of the baseline.
    """
    gains: dict[str, dict[str, float]] = {task: {} for task in tasks}  # higher is better
    left_out = []
    for task, measured in tasks.items():
        for metric, higher in measured.higher.items():
            value, base = values.get(f"{task}.{metric}"), baseline.get(f"{task}.{metric}")
            if value is None or not base:
                left_out.append(f"{task}.{metric}")
            else:
                gains[task][metric] = 100 * (value - base) / base * (1 if higher else -1)
    all_gains = [gain for of_task in gains.values() for gain in of_task.values()]
    of_metrics = _mean(all_gains)
    return DeltaM(
        baseline=name,
        delta_metrics=None if of_metrics is None else -of_metrics,
        delta_tasks=_mean([sum(of_task.values()) / len(of_task) for of_task in gains.values() if of_task]),
        delta_main=_mean([gains[task][measured.main] for task, measured in tasks.items() if measured.main in gains[task]]),
        left_out=tuple(left_out),
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
