"""The LightningModule: one training step of a task, its optimizer and the course of its learning rate."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from rpgmt.config import TrainConfig
from rpgmt.data.loader import ResumableLoader
from rpgmt.engine.balance import Balancer, GradientBalancing
from rpgmt.engine.evaluate import images
from rpgmt.engine.task import Batch, Task
from rpgmt.errors import UserError
from rpgmt.rpg.bank import defer_gradients
from rpgmt.rpg.optim import parameter_groups


class NonFiniteLossError(UserError):
    """The loss is not a number or infinite; the weights are those before the step."""


class TrainingModule(pl.LightningModule):
    """A task's training step.

    Args:
        task: the task; its model becomes the sub-module ``model``.
        train: how to train.
        loader: the training batches; tells how far training is.
        balancer: makes one loss of the task's losses, and its gradients.
        optimizer_state: of a checkpoint, to go on from.
    """

    def __init__(
        self,
        task: Task,
        train: TrainConfig,
        loader: ResumableLoader,
        balancer: Balancer,
        optimizer_state: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.task, self.train_config, self.loader, self.model = task, train, loader, task.model
        self.balancer = balancer
        self._optimizer_state = optimizer_state
        self.total_steps = math.ceil(loader.stop / train.accumulate)
        self.stop_wanted = False  # a signal has come to this process
        self.stopping = False  # ... or to another one, and all know it
        self.learning_rate = 0.0  # of the last step, of fixed parameters
        self.last_loss = math.nan
        self._base_rates: list[float] = []
        self._unchecked: list[tuple[list[str], Tensor, Batch]] = []  # losses of the batches of the step to come
        self._sums: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    @property
    def step(self) -> int:
        """Optimizer steps done, by the batches handed out."""
        return math.ceil(self.loader.batch / self.train_config.accumulate)

    @property
    def step_complete(self) -> bool:
        """Whether the last batch ended a step; only then is there no gradient that a checkpoint would lose."""
        return self.loader.batch % self.train_config.accumulate == 0 or len(self.loader) == 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        train = self.train_config
        groups = parameter_groups(self.model, train.optimizer, train.lr, train.weight_decay)
        if learned := list(self.balancer.parameters()):
            groups.append({"params": learned, "lr": train.lr, "weight_decay": 0.0, "name": "balance"})
        optimizer: torch.optim.Optimizer
        # Fused: the hundreds of small tensors of norms and biases would otherwise take a tenth of a step on a CPU. Lightning
        # clips no gradients for a fused optimizer in mixed precision, since with float16 it would unscale them itself.
        fused = train.clip_norm is None or train.precision == "32"
        if train.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, train.lr, momentum=0.9, fused=fused)
        elif train.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, train.lr, fused=fused)
        else:
            optimizer = torch.optim.Adam(groups, train.lr, fused=fused)
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
            self._optimizer_state = None
        return optimizer

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        number = self.loader.batch - 1
        if number and number % self.loader.batches_per_epoch == 0:
            self.balancer.end_epoch()
        # Everything random in a step (dropout, …) is a function of these three, so that a resumed run needs no state.
        key = np.random.SeedSequence((self.train_config.seed, number, self.global_rank))
        seed = int(key.generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a millisecond
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        factor = learning_rate_factor(number // self.train_config.accumulate, self.total_steps, self.train_config)
        self.learning_rate = self.train_config.lr * factor
        for group, rate in zip(self.trainer.optimizers[0].param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Methods that balance gradients take each batch's on their own.
        waits = not self.step_complete and not isinstance(self.balancer, GradientBalancing)
        with defer_gradients(self.model) if waits else nullcontext():
            outputs = self.model(images(self.task, batch, self.train_config.channels_last))
        losses = self.task.losses(outputs, batch)
        own, report = joint_losses(losses, self.stop_wanted)
        self._unchecked.append((list(losses), report, batch))
        loss: Tensor = self.balancer(list(losses), own, report)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        self.balancer.backward(loss, (self.train_config.seed, self.loader.batch - 1))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at the losses: only now, when a GPU has its backward pass queued, is waiting for them cheap."""
        for names, report, batch in self._unchecked:
            sums, counts, (stop,) = report.cpu().split((len(names), len(names), 1))
            if not bool(sums.isfinite().all()):
                raise NonFiniteLossError(self._describe(names, sums, batch))
            self.stopping |= bool(stop > 0)
            means = {name: s / c for name, s, c in zip(names, sums.tolist(), counts.tolist(), strict=True) if c > 0}
            self.last_loss = sum(means.values())
            for key, value in {"loss": self.last_loss, **{f"loss/{k}": v for k, v in means.items()}}.items():
                total, count = self._sums[key]
                self._sums[key] = (total + value, count + 1)
        self._unchecked.clear()

    def take_losses(self) -> dict[str, float]:
        """Return ``loss`` and ``loss/NAME``, means over the batches since the last call."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        return means

    def _describe(self, names: list[str], sums: Tensor, batch: Batch) -> str:
        bad = ", ".join(f"{n} = {v}" for n, v in zip(names, sums.tolist(), strict=True) if not math.isfinite(v))
        samples = batch["index"].tolist() if "index" in batch else None
        if _processes() > 1:
            gathered: list[Any] = [None] * _processes()
            dist.all_gather_object(gathered, samples)
            samples = [index for part in gathered for index in part] if samples is not None else None
        place = self.loader.state_dict()
        where = f"batch {place['position'] or self.loader.batches_per_epoch} of the epoch"
        return (
            f"the loss is not finite at step {self.step}: {bad} in {where}"
            + (f", samples {', '.join(map(str, samples))}" if samples else "")
            + "; a lower --lr, or --clip-norm, may help"
        )


def joint_losses(losses: dict[str, tuple[Tensor, Tensor]], stop: bool = False) -> tuple[Tensor, Tensor]:
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
    if _processes() > 1:
        dist.all_reduce(report)
    counts = report[len(sums) : -1]
    scales = torch.where(counts > 0, _processes() / counts.clamp(min=torch.finfo(exact).tiny), 0)
    # Sums stay in the type in which the task made them; the number's reciprocal is rounded once.
    return torch.stack([s * w.to(s.dtype) for s, w in zip(sums, scales.unbind(), strict=True)]), report


def learning_rate_factor(step: int, total: int, train: TrainConfig) -> float:
    """Return the factor on every group's learning rate in optimizer step ``step`` of 0 … total - 1."""
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    if train.schedule == "cosine":
        done = (step - train.warmup_steps) / max(1, total - train.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))
    if train.schedule == "step":
        return train.decay ** sum(step >= fraction * total for fraction in train.milestones)
    return 1.0


def _processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
