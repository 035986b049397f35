"""Where a run stands between two steps: what its validations found, and all that changes with training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rpgmt.engine.finite import ADVICE, NonFiniteError
from rpgmt.engine.training_step import TrainingStep


@dataclass
class Standing:
    """What the validations of a run have found so far.

    Attributes:
        best: the highest main metric; None before there is one.
        best_step: optimizer steps that were done then.
        stale: validations since the best one.
        metrics: of the last one.
        due: of a validation that is yet to be made, as it was broken off, the training losses of its row; else None.
    """

    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    metrics: dict[str, float | None] = field(default_factory=dict)
    due: dict[str, float] | None = None

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> Standing:
        """As a checkpoint has it; those of before may lack some of it."""
        return cls(**{each.name: checkpoint[each.name] for each in fields(cls) if each.name in checkpoint})

    def take(self, metrics: Mapping[str, float | None], score: float | None, step: int, *, counts: bool = True) -> bool:
        """Take in what a validation found, and return whether it is the best so far.

        Args:
            metrics, score: of the validation.
            step: optimizer steps that are done.
            counts: whether it is stale where it is not the best.

        Raises:
            NonFiniteError: a metric is not finite, so the network's outputs are not.
        """
        for name, value in metrics.items():
            if value is not None and not math.isfinite(value):
                raise NonFiniteError(f"the metric {name} is {value} after step {step}: the training has diverged; {ADVICE}")
        self.metrics = dict(metrics)
        self.stale = self.stale + 1 if counts else 0
        if score is None or (self.best is not None and score <= self.best):
            return False
        self.best, self.best_step, self.stale = score, step, 0
        return True

    def results(self, monitor: str) -> dict[str, Any]:
        """What `metrics.json` says of it; ``monitor``: the main metric."""
        return {"val": self.metrics, "best": {"metric": monitor, "value": self.best, "step": self.best_step}}


def states(step: TrainingStep) -> dict[str, Any]:
    """All that changes with training, for a checkpoint."""
    return {
        "model": step.task.model.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "scaler": step.fabric.strategy.precision.state_dict(),
        "balance": step.balancer.state(),
        "ema": step.ema.state_dict() if step.ema else None,
    }


def restore(step: TrainingStep, checkpoint: Mapping[str, Any]) -> None:
    """Put what changes with training, but for the model, where a checkpoint has it."""
    step.optimizer.load_state_dict(checkpoint["optimizer"])
    step.fabric.strategy.precision.load_state_dict(checkpoint["scaler"])
    if "balance" in checkpoint:  # those of before have none, and their runs no method with a state
        step.balancer.load_state(checkpoint["balance"], step.fabric.device)
    if step.ema:
        step.ema.load_state_dict(checkpoint["ema"])
