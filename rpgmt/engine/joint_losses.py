"""The losses of a step: the same in all processes, finite, and their means for the log."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rpgmt.engine.device import processes
from rpgmt.engine.finite import ADVICE, NonFiniteError
from rpgmt.engine.task import Batch


def joint_losses(losses: Mapping[str, tuple[Tensor, Tensor]], stop: bool = False) -> tuple[Tensor, Tensor]:
    """Return the losses to sum and call backward on, and a report of them that is the same in all processes.

    Every loss is its sum over the number of valid targets in the batches of **all** processes (0 for none). It is
    multiplied by the number of processes, because DistributedDataParallel averages gradients: so they equal
    those of one process with the joint batch.

    Args:
        losses: name -> (sum over valid targets, their number), both scalars.
        stop: any one bit to agree on: is set in the report if set in any process.

    Returns:
        The losses, (L,); and (2 L + 1,) on their device: the sums of all processes, the numbers, and stop (0 for False).
    """
    sums = [total for total, _ in losses.values()]
    exact = torch.float32 if sums[0].device.type == "mps" else torch.float64
    parts = [*sums, *(torch.as_tensor(count, device=sums[0].device) for _, count in losses.values())]
    report = torch.stack([p.detach().to(exact) for p in parts] + [torch.full_like(sums[0], stop, dtype=exact)])
    if processes() > 1:
        dist.all_reduce(report)
    counts = report[len(sums) : -1]
    scales = torch.where(counts > 0, processes() / counts.clamp(min=torch.finfo(exact).tiny), 0)
    # Sums stay in the type in which the task made them; the number's reciprocal is rounded once.
    return torch.stack([s * w.to(s.dtype) for s, w in zip(sums, scales.unbind(), strict=True)]), report


class LossLog:
    """The losses of a step's batches, which are looked at together, and their means since the last row of the log.

    Attributes:
        last: the sum of the losses of the last batch that was looked at.
        stop: whether a report says that a process is to stop.
    """

    def __init__(self) -> None:
        self.last, self.stop = math.nan, False
        self._waiting: list[tuple[Sequence[str], Tensor, Batch, str]] = []
        self._sums: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def add(self, names: Sequence[str], report: Tensor, batch: Batch, place: str) -> None:
        """Keep a batch's report (`joint_losses`) until `check`; nothing waits for a GPU here.

        Args:
            names: of the losses.
            report: what `joint_losses` returned.
            batch: whose `index`, if it has one, names its samples in an error.
            place: of the batch, in words.
        """
        self._waiting.append((names, report, batch, place))

    def check(self, step: int) -> None:
        """Look at the batches of optimizer step ``step`` (from 1), before it is made.

        Raises:
            NonFiniteError: the line names the losses and the samples.
        """
        for names, report, batch, place in self._waiting:
            sums, counts, (stop,) = report.cpu().split((len(names), len(names), 1))
            if not bool(sums.isfinite().all()):
                bad = ", ".join(f"{n} = {v}" for n, v in zip(names, sums.tolist(), strict=True) if not math.isfinite(v))
                raise NonFiniteError(f"the loss is not finite at step {step}: {bad} in {place}{samples(batch)}; {ADVICE}")
            self.stop |= bool(stop > 0)
            means = {name: s / c for name, s, c in zip(names, sums.tolist(), counts.tolist(), strict=True) if c > 0}
            self.last = sum(means.values())
            for key, value in {"loss": self.last, **{f"loss/{k}": v for k, v in means.items()}}.items():
                total, count = self._sums[key]
                self._sums[key] = (total + value, count + 1)
        self._waiting.clear()

    def take(self) -> dict[str, float]:
        """Return ``loss`` and ``loss/NAME``, means over the batches since the last call."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return means


def samples(batch: Batch) -> str:
    """Which samples the batches of all processes hold, as the end of a line."""
    indices = of_all_processes([str(index) for index in batch["index"].tolist()] if "index" in batch else [])
    return f", samples {', '.join(indices)}" if indices else ""


def of_all_processes(own: list[str]) -> list[str]:
    """The words of this process and of all others, which ask for the same."""
    if processes() == 1:
        return own
    gathered: list[Any] = [None] * processes()
    dist.all_gather_object(gathered, own)
    return [word for part in gathered for word in part]
