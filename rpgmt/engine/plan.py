"""How long a run is, and how its length changes what the config asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rpgmt.config import TrainConfig
from rpgmt.engine.learning_rate import warmup_steps
from rpgmt.errors import UserError


@dataclass(frozen=True)
class Plan:
    """The length of a run.

    Attributes:
        batches: of the whole run.
        steps: of the optimizer; the last one may have fewer batches than the others.
        val_every: epochs from one validation to the next. It is the config's where an epoch has some steps. Of a few images
            an epoch is a step or two, and validations would take longer than training: there are at least 20 steps, or a
            tenth of the run where that is less, from one to the next.
        remarks: what is another way than the config has it, or not as it was meant, a line each.
    """

    batches: int
    steps: int
    val_every: int
    remarks: tuple[str, ...]


def make_plan(train: TrainConfig, batches_per_epoch: int) -> Plan:
    """Return the plan of a run.

    Raises:
        UserError: the run has not the batches of one step.
    """
    batches = train.epochs * batches_per_epoch
    if train.max_steps is not None:
        batches = min(batches, train.max_steps * train.accumulate)
    if train.accumulate > batches:
        raise UserError(f"`accumulate` is {train.accumulate}: the whole run has {batches} batches; give at most so many")
    steps = math.ceil(batches / train.accumulate)
    between = min(20, math.ceil(steps / 10))
    val_every = max(train.val_every, math.ceil(between * train.accumulate / batches_per_epoch))

    remarks = []
    if train.accumulate > batches_per_epoch:
        remarks.append(f"`accumulate` is {train.accumulate}: an epoch has {batches_per_epoch} batches, a step takes several")
    if (warmup := warmup_steps(steps, train)) < train.warmup_steps:
        remarks.append(f"warm-up takes {warmup} of the {steps} steps (`warmup_steps` is {train.warmup_steps})")
    if train.val_every < val_every < train.epochs:
        remarks.append(f"validation every {val_every} epochs (`val_every` is {train.val_every}): they are short")
    return Plan(batches, steps, val_every, tuple(remarks))
