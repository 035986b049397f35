"""An optimizer step: from the losses of its batches to changed weights, unless a number on the way is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rpgmt.config import TrainConfig
from rpgmt.engine.balance import Balancer, GradientBalancing
from rpgmt.engine.ema import Ema
from rpgmt.engine.evaluate import images
from rpgmt.engine.finite import ADVICE, NonFiniteError, largest
from rpgmt.engine.joint_losses import LossLog, joint_losses, of_all_processes, samples
from rpgmt.engine.learning_rate import learning_rate_factor
from rpgmt.engine.optimizer import make_optimizer
from rpgmt.engine.task import Batch, Task
from rpgmt.engine.teacher import TAUGHT
from rpgmt.rpg.kept_weights import defer_gradients
from rpgmt.rpg.learned_signs import FIRM_FROM, made_together, set_firmness, signed_layers

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SMALLEST_SCALE = 2.0**-16
"""Of float16's losses. The scale is halved where gradients overflow; here it is not the scale that makes them infinite."""


class TrainingStep:
    """What training does with batches: `gradients` of each batch of an optimizer step, then `update`.

    Args:
        task: the model, its images and losses.
        train: how to train.
        fabric: launched; device, precision and processes.
        balancer: makes one loss of the task's losses, and its gradients.
        steps: of the whole run, over which the learning rate takes its course.
        mark: called after each phase with its name (forward, backward, optimizer, ema); a device may still be at work on it.

    Attributes:
        network: what a forward pass calls: the model, or what joins the gradients of several processes round it.
        optimizer: of the model's and the balancer's parameters.
        ema: the moving average of the weights, or None.
        losses: of the batches since the last row of the log.
        rate: the learning rate of the last step, of fixed parameters.
        defers: whether banks wait for a step's last batch to gather their gradients.
    """

    def __init__(
        self,
        task: Task,
        train: TrainConfig,
        fabric: Fabric,
        balancer: Balancer,
        steps: int,
        *,
        mark: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self.task, self.train, self.fabric, self.balancer, self.steps, self.mark = task, train, fabric, balancer, steps, mark
        fabric.strategy.module_to_device(task.model)
        if (teacher := task.teacher) is not None:
            fabric.strategy.module_to_device(teacher)
            if train.channels_last:
                teacher.to(memory_format=torch.channels_last)
        balancer.to(fabric.device)
        # Without Fabric's own wrapper, which allows no gradients of single tasks and changes the types of in- and outputs.
        self.network: nn.Module = fabric.strategy.setup_module(task.model)
        self.optimizer = make_optimizer(task.model, train, list(balancer.parameters()))
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.ema = Ema(task.model, train.ema) if train.ema else None
        self.losses = LossLog()
        self.rate = 0.0
        self.defers = not isinstance(balancer, GradientBalancing)  # which takes each batch's gradients on their own
        self._signed = list(signed_layers(task.model).values())
        self._trained = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._batches: list[tuple[int, Batch, str]] = []  # of the step: number, on the device, place
        self._names: list[str] = []  # of the losses

    def gradients(
        self, batch: Batch, number: int, *, last: bool, place: str = "", stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Add a batch's gradients to those of its step.

        Args:
            batch: on the device.
            number: of the batch in the run, from 0.
            last: whether it is the last one of its step.
            place: of the batch, for an error.
            stop: asked for after the forward pass: whether this process is to end; `losses.stop` then says it in all.
        """
        self._seed(number)
        if number % self.train.accumulate == 0:
            self.optimizer.zero_grad()
            set_firmness(self._signed, number // self.train.accumulate / self.steps)
        self._batches.append((number, batch, place))
        with self._together(last):
            with self.fabric.autocast():
                with self._signs():
                    losses = self._losses(self.network, batch)
                own, report = joint_losses(losses, stop())
                loss = self.balancer(list(losses), own, report) / self.train.accumulate
            self._names = list(losses)
            self.losses.add(self._names, report, batch, place)
            self.mark("forward")
            self.balancer.backward(loss if self._scaler is None else self._scaler.scale(loss), (self.train.seed, number))
            self.mark("backward")

    def update(self, step: int) -> None:
        """Make optimizer step ``step`` (from 0) with the gradients that there are.

        With float16 a step whose gradients overflow is left out, and the losses' scale halved: that is no error.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; the weights have not changed.
        """
        self.losses.check(step + 1)  # only now, when a GPU has its backward pass queued, is waiting for them cheap
        factor = learning_rate_factor(step, self.steps, self.train)
        self.rate = self.train.lr * factor
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        strategy, norm, scaler = self.fabric.strategy, self.train.clip_norm, self._scaler
        if norm is not None:
            size: Tensor | float = strategy.clip_gradients_norm(self.network, self.optimizer, norm, error_if_nonfinite=False)
        elif scaler is None:
            size = largest([parameter.grad for parameter in self._trained if parameter.grad is not None])
        if scaler is None and not math.isfinite(size):
            raise self._gradient_error(step + 1)
        strategy.optimizer_step(self.optimizer)
        if scaler is not None and scaler.get_scale() < SMALLEST_SCALE:
            raise self._gradient_error(step + 1)
        self._batches.clear()
        self.mark("optimizer")
        if self.ema:
            self.ema.update(step)
            self.mark("ema")

    def is_firm(self, step: int) -> bool:
        """Whether validations after so many steps count: before weights that learn signs are firm, they are low."""
        return not self._signed or step >= FIRM_FROM * self.steps

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """Of float16."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def _seed(self, number: int) -> None:
        """Everything random in a batch (dropout, …) is a function of these three, so that a resumed run needs no state."""
        key = np.random.SeedSequence((self.train.seed, number, self.fabric.global_rank))
        seed = int(key.generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a millisecond
        if self.fabric.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _losses(self, network: nn.Module, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        inputs = images(self.task, batch, self.train.channels_last)
        if self.task.teacher is not None:
            with torch.no_grad():
                batch = {**batch, TAUGHT: self.task.teacher(inputs)}
        return self.task.losses(network(inputs), batch)

    def _gradient_error(self, step: int) -> NonFiniteError:
        """What to say of gradients that are not finite: of which losses they are, which a step otherwise does not know."""
        # Where each is finite alone, or what happened does not happen again, it is the last batch.
        names, (_, at_fault, place) = ["the losses together"], self._batches[-1]
        for number, batch, where in self._batches:
            if found := sorted(set(of_all_processes(self._at_fault(number, batch)))):
                names, at_fault, place = found, batch, where
                break
        batch_words = f"{place}{samples(at_fault)}"
        return NonFiniteError(f"the gradient of {', '.join(names)} is not finite at step {step}, in {batch_words}; {ADVICE}")

    def _at_fault(self, number: int, batch: Batch) -> list[str]:
        """The losses of a batch, made again, whose own gradients are not finite."""
        parameters = [parameter for parameter in self.task.model.parameters() if parameter.requires_grad]

        def is_finite(name: str) -> bool:  # with a forward pass of its own: one may go back through a compiled graph once
            self._seed(number)
            with self.fabric.autocast():
                total, count = self._losses(self.task.model, batch)[name]
            if not total.requires_grad:
                return True
            mean = total / torch.as_tensor(count, device=total.device).clamp(min=1)
            gradients = torch.autograd.grad(mean, parameters, allow_unused=True)
            return math.isfinite(largest([gradient for gradient in gradients if gradient is not None]))

        return [name for name in self._names if not is_finite(name)]

    def _signs(self) -> AbstractContextManager[None]:
        """Weights of layers that learn signs, made at once; a compiler makes kernels of its own of them."""
        return nullcontext() if self.train.compile else made_together(self._signed)

    @contextmanager
    def _together(self, last: bool) -> Iterator[None]:
        """All batches of a step but the last leave what is done once a step: to gather and to send gradients."""
        with ExitStack() as stack:
            if not last and self.defers:
                stack.enter_context(defer_gradients(self.task.model))
            if not last and isinstance(self.network, DistributedDataParallel):
                stack.enter_context(self.network.no_sync())
            yield
