"""Training: from a task and its config to a run folder, in one loop over batches.

A resumed run goes on at the batch where the checkpoint was written. On a CPU the weights are then, bit for bit, those of an
uninterrupted run.

The file is long so that it shows the whole of a training, from forward and losses to checkpoint and progress, in one place.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn
from torch._functorch import config as functorch
from torch.nn.parallel import DistributedDataParallel

from rpgmt.config import TrainConfig, to_dict
from rpgmt.data.loader import ResumableLoader, validation_loader
from rpgmt.engine import run_folder
from rpgmt.engine.balance import Balancer, GradientBalancing, make_balancer
from rpgmt.engine.checkpoint import load_checkpoint, save_checkpoint
from rpgmt.engine.device import chosen_algorithms, for_this_machine, hardware, make_fabric, share_buffers, synchronise_norms
from rpgmt.engine.ema import Ema
from rpgmt.engine.evaluate import Validation, images, to_device, validate
from rpgmt.engine.joint_losses import LossLog, NonFiniteLossError, joint_losses
from rpgmt.engine.learning_rate import learning_rate_factor
from rpgmt.engine.model_file import save_model
from rpgmt.engine.optimizer import make_optimizer
from rpgmt.engine.plan import make_plan
from rpgmt.engine.record import Record
from rpgmt.engine.run_folder import RunFolder
from rpgmt.engine.signals import StopSignals
from rpgmt.engine.task import Batch, Task
from rpgmt.errors import UserError
from rpgmt.rpg.kept_weights import defer_gradients
from rpgmt.run_report.page import write_report
from rpgmt.visualize import plot_curves

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from lightning_fabric import Fabric

STEPS_BETWEEN_ROWS = 50
SECONDS_BETWEEN_CHECKPOINTS = 600.0


class Interrupted(KeyboardInterrupt):
    """Training was ended by SIGINT or SIGTERM.

    ``folder`` has checkpoint, model file and metrics; after a second signal perhaps no more than an earlier checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


def fit(
    task: Task,
    config: DataclassInstance,
    *,
    summary: Mapping[str, Any] | None = None,
    command: str | None = None,
    tell: Callable[[str], None] = lambda what: None,
) -> Path:
    """Train ``task.model`` and return the run folder.

    The model ends, and is written to the model file, with the weights that the last validation measured: the
    moving average if ``ema`` is on, else those of the last step. (Those of the best validation are in
    `best.safetensors`.) An interrupted run writes the same of the step where it ended; `val` in `metrics.json` is then
    of the validation before.

    A run ends after ``epochs``, after ``max_steps``, or after ``patience`` validations without a better main metric,
    whichever comes first. A resumed run may change these, and what else does not make the run what it is
    (`run_folder.MAY_CHANGE`); the learning rate then follows the schedule of the new length from where it stands.
    Resuming a finished run does nothing.

    Args:
        task: what to train; ``task.model`` is trained in place.
        config: a dataclass with ``train: TrainConfig`` and what else makes the run; saved in the run folder (as config.yaml,
            and in the model file), without ``out`` and ``resume``, and with this machine's precision for ``auto``.
        summary: what `metrics.json` says of model and data: its keys parameters, macs and data.
        command: the line that started this, for `commands.txt`; None for none.
        tell: is called with what begins now, in words, where it may take some seconds.

    Raises:
        UserError: `out` is in use, or the config does not fit the machine, the run to resume or the model's tasks.
        NonFiniteLossError: before the optimizer step; the last checkpoint stays.
        Interrupted: a `KeyboardInterrupt`, after SIGINT or SIGTERM. (With several processes the others exit.)
    """
    config = for_this_machine(config)
    train: TrainConfig = config.train  # type: ignore[attr-defined]
    tell("loading Lightning")
    balancer, fabric = make_balancer(task), make_fabric(train)
    # The first process starts the others when it has taken the folder: they do not ask whether it is free.
    first = fabric.is_global_zero
    with run_folder.taken(train, task.name) if first else nullcontext(RunFolder(train.out or Path())) as folder:
        training = Training(task, config, fabric, balancer, folder, summary or {}, command)
        if training.finished:
            training.say(run_folder.finished_line(folder, train, whole=training.loader.batch % train.accumulate == 0))
            return folder.path
        tell(f"training: {training.plan.steps} steps; the first one takes longest")
        # A compiled backward pass may write over what it was given; not where every task makes one through the same graph.
        several = functorch.patch(donated_buffer=False) if isinstance(balancer, GradientBalancing) else nullcontext()
        interrupted = False
        try:
            with several, chosen_algorithms(fabric.device), training.ready():
                training.run()
                training.finish()
        except KeyboardInterrupt:  # by a second signal
            interrupted = True
        except NonFiniteLossError as error:
            error.folder = folder.path
            raise
        if interrupted or not training.finished:
            raise (
                Interrupted(folder.path) if first else SystemExit(0)
            )  # another status would make Fabric kill the first process
        training.draw()
    return folder.path


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
        balancer.to(fabric.device)
        # Without Fabric's own wrapper, which allows no gradients of single tasks and changes the types of in- and outputs.
        self.network: nn.Module = fabric.strategy.setup_module(task.model)
        self.optimizer = make_optimizer(task.model, train, list(balancer.parameters()))
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.ema = Ema(task.model, train.ema) if train.ema else None
        self.losses = LossLog()
        self.rate = 0.0
        self.defers = not isinstance(balancer, GradientBalancing)  # which takes each batch's gradients on their own

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
        # Everything random in a step (dropout, …) is a function of these three, so that a resumed run needs no state.
        key = np.random.SeedSequence((self.train.seed, number, self.fabric.global_rank))
        seed = int(key.generate_state(1, np.uint64)[0])
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a millisecond
        if self.fabric.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        if number % self.train.accumulate == 0:
            self.optimizer.zero_grad()
        with self._together(last):
            with self.fabric.autocast():
                outputs = self.network(images(self.task, batch, self.train.channels_last))
                losses = self.task.losses(outputs, batch)
                own, report = joint_losses(losses, stop())
                loss = self.balancer(list(losses), own, report) / self.train.accumulate
            self.losses.add(list(losses), report, batch, place)
            self.mark("forward")
            scaler = getattr(self.fabric.strategy.precision, "scaler", None)  # of float16
            self.balancer.backward(loss if scaler is None else scaler.scale(loss), (self.train.seed, number))
            self.mark("backward")

    def update(self, step: int) -> None:
        """Make optimizer step ``step`` (from 0) with the gradients that there are.

        Raises:
            NonFiniteLossError: before the weights change.
        """
        self.losses.check(step + 1)  # only now, when a GPU has its backward pass queued, is waiting for them cheap
        factor = learning_rate_factor(step, self.steps, self.train)
        self.rate = self.train.lr * factor
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        strategy, norm = self.fabric.strategy, self.train.clip_norm
        if norm is not None:  # not finite with float16: the scaler leaves the step out
            strategy.clip_gradients_norm(self.network, self.optimizer, norm, error_if_nonfinite=False)
        strategy.optimizer_step(self.optimizer)
        self.mark("optimizer")
        if self.ema:
            self.ema.update(step)
            self.mark("ema")

    @contextmanager
    def _together(self, last: bool) -> Iterator[None]:
        """All batches of a step but the last leave what is done once a step: to gather and to send gradients."""
        with ExitStack() as stack:
            if not last and self.defers:
                stack.enter_context(defer_gradients(self.task.model))
            if not last and isinstance(self.network, DistributedDataParallel):
                stack.enter_context(self.network.no_sync())
            yield


class Training:
    """A run, from its first batch or a checkpoint to its end: the loop, and what happens between two steps.

    There is one place where a run can be left and entered again, the end of a step, and the state to save is what `_save`
    lists. A checkpoint is written at an epoch's end, every 10 minutes, at a signal, and when loading data fails.
    """

    def __init__(
        self,
        task: Task,
        config: DataclassInstance,
        fabric: Fabric,
        balancer: Balancer,
        folder: RunFolder,
        summary: Mapping[str, Any],
        command: str | None = None,
    ) -> None:
        self.command = command
        self.task, self.fabric, self.balancer, self.folder, self.summary = task, fabric, balancer, folder, summary
        self.train = train = config.train  # type: ignore[attr-defined]
        self.first = fabric.is_global_zero
        # What is saved is a `--config` for a new run.
        self.config: Any = dataclasses.replace(config, train=dataclasses.replace(train, out=None, resume=False))
        place: Any = {"rank": fabric.global_rank, "world_size": fabric.world_size, "pin_memory": fabric.device.type == "cuda"}
        self.loader = ResumableLoader(task.train_data, train.batch_size, seed=train.seed, workers=train.workers, **place)
        self.plan = make_plan(train, self.loader.batches_per_epoch)
        self.loader.stop = self.plan.batches
        self.validation_batches = validation_loader(task.val_data, train.batch_size, workers=train.workers, **place)
        self.checkpoint = self._resume() if train.resume else {}
        if self.checkpoint and "stale" not in self.checkpoint:
            self.plan = self.plan.as_configured(train)
        self.best: float | None = self.checkpoint.get("best")
        self.best_step: int | None = self.checkpoint.get("best_step")
        self.stale: int = self.checkpoint.get("stale", 0)  # validations since the best one
        self.metrics: dict[str, float | None] = dict(self.checkpoint.get("metrics", {}))
        self.validation: Validation | None = None  # the last one; in the first process
        self.between_steps = False  # all state belongs together

    @property
    def done(self) -> int:
        """Optimizer steps done at the end of a step, by the batches handed out."""
        return math.ceil(self.loader.batch / self.train.accumulate)

    @property
    def ended_by(self) -> Literal["length", "patience", "interrupted"]:
        """Why the run has come to its end, or, where it has not, what ends it here."""
        if len(self.loader) == 0:
            return "length"
        patience = self.train.patience
        return "patience" if patience is not None and self.stale >= patience else "interrupted"

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return self.ended_by != "interrupted"

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Start what a run needs, and end it: other processes, the training step, signals, the record.

        An error between two steps, in reading data or in validation, loses nothing: the checkpoint is written.
        """
        if self.first:
            run_folder.write_config(self.folder, self.config, self.task.name)
            if self.command:
                run_folder.note_command(self.folder, self.command, self.done)
        for remark in self.plan.remarks:
            self.say(f"note: {remark}")
        self.fabric.launch()
        self.step = self._prepare()
        self.started = self.saved = time.monotonic()
        with StopSignals(speak=self.first) as self.signals:
            self.record = Record(self.folder, self.done, self.plan.steps, silent=not self.first)
            if self.metrics:
                self.record.measured(self.task.monitor, self.metrics[self.task.monitor])
            try:
                yield
            except BaseException:
                if self.between_steps and self.first:
                    self._save(self.folder.last)
                raise
            finally:
                self.record.close()
                del self.validation_batches  # and so its worker processes

    def run(self) -> None:
        """The loop: to the last batch, or to the end of the step after which the run is to end.

        That is so when a signal has come to any process, or patience is at its end. What is due at an epoch's end within a step
        is done at the end of the step.
        """
        loader, step, train = self.loader, self.step, self.train
        if self.first and not self.folder.last.exists():
            self._save(self.folder.last)  # a run that is killed early goes on from these first weights
        epoch_ended = validation_due = False  # since the step before
        for batch in loader:
            self.between_steps = False
            run_ends = len(loader) == 0
            epochs, rest = divmod(loader.batch, loader.batches_per_epoch)
            epoch_ended |= rest == 0
            validation_due |= run_ends or (rest == 0 and epochs % self.plan.val_every == 0)
            step_ends = run_ends or loader.batch % train.accumulate == 0
            number = loader.batch - 1  # from 0
            if number and number % loader.batches_per_epoch == 0:
                self.balancer.end_epoch()
            on_device = to_device(batch, self.fabric.device)
            step.gradients(on_device, number, last=step_ends, place=loader.place(), stop=lambda: self.signals.asked)
            if not step_ends:
                continue
            step.update(self.done - 1)
            self.record.progress(self.done, loader.epoch(), step.losses.last)

            self.between_steps = not run_ends  # validation may meet a broken file
            if validation_due:
                self._validate()
            elif epoch_ended or self.done % STEPS_BETWEEN_ROWS == 0:
                self._write_row(step.losses.take())

            late = time.monotonic() - self.saved > SECONDS_BETWEEN_CHECKPOINTS
            if self.first and not run_ends and (epoch_ended or late or step.losses.stop):
                self._save(self.folder.last)
            epoch_ended = validation_due = False
            if self.finished or step.losses.stop:  # the same in all processes
                return

    def finish(self) -> None:
        """Write the model file, metrics.json and the last checkpoint; leave the averaged weights in the model.

        What validation measured is what the model file holds. The checkpoint of the end comes after it: a run that resuming
        calls finished has its results. (Of an interrupted run it is written already.)
        """
        self.between_steps = False
        with self._averaged():
            if self.first:
                self._save_model(self.folder.model)
                run_folder.write_metrics(self.folder, self._results())
        if self.first and self.finished:
            self._save(self.folder.last)
        if self.step.ema:
            self.step.ema.copy_to_model()

    def draw(self) -> None:
        """Draw what the last validation found, and the curves; and the report of it all."""
        if self.validation is not None:
            self.task.draw(self.validation.predictions, self.folder.path)
            self.task.draw_gallery(self.validation.predictions, self.task.model, self.folder.gallery)
            plot_curves(self.folder.table, self.folder.path / "curves.png")
            write_report([self.folder.path], self.folder.report)

    def say(self, text: str) -> None:
        """Print a line in the first process."""
        if self.first:
            print(text, flush=True)

    def _resume(self) -> dict[str, Any]:
        """Put loader and model where the run's last checkpoint has them, and return it; nothing, if there is none yet."""
        folder, loader = self.folder, self.loader
        if self.first:
            run_folder.check_same_run(folder, self.config)
        checkpoint: dict[str, Any] = {}
        if folder.last.is_file():
            checkpoint = load_checkpoint(folder.last)
            loader.load_state_dict(checkpoint["loader"])
            self.task.model.load_state_dict(checkpoint["model"])
            if len(loader) and loader.batch % self.train.accumulate:
                raise UserError(
                    f"{folder.path}: the run ended within a step of {self.train.accumulate} batches (`accumulate`), so more "
                    "--epochs would not be the longer run: start it again with another --out"
                )
        if len(loader):
            self.say(f"resuming {folder.path} at batch {loader.batch} of {loader.stop}")
        return checkpoint

    def _prepare(self) -> TrainingStep:
        """Put the model on its device, and all else that changes with training where the checkpoint has it."""
        model, train, saved = self.task.model.train(), self.train, self.checkpoint
        if train.channels_last:
            model.to(memory_format=torch.channels_last)
        if train.compile:
            model.compile()
        synchronise_norms(model, self.fabric)
        planned = dataclasses.replace(train, warmup_steps=self.plan.warmup)
        step = TrainingStep(self.task, planned, self.fabric, self.balancer, self.plan.steps)
        if saved:
            step.optimizer.load_state_dict(saved["optimizer"])
            self.fabric.strategy.precision.load_state_dict(saved["scaler"])
            if "balance" in saved:  # checkpoints of before have none, and their runs no method with a state
                self.balancer.load_state(saved["balance"], self.fabric.device)
            if step.ema:
                step.ema.load_state_dict(saved["ema"])
        return step

    def _validate(self) -> None:
        losses = self.step.losses.take()
        with self._averaged():
            share_buffers(self.task.model)
            layout, device = self.train.channels_last, self.fabric.device
            found = validate(self.task, self.task.model, self.validation_batches, device, channels_last=layout)
            if found is not None:  # in the first process
                self._note(losses, found)
        if found is not None and self.stale == 0:
            self._save(self.folder.best)
        if self.train.patience is not None:
            self.stale = self.fabric.broadcast(self.stale)

    def _note(self, losses: Mapping[str, float], found: Validation) -> None:
        """Write down what a validation found, and the best model file if it is that; the model has the weights measured."""
        self.validation, self.metrics = found, found.metrics
        self._write_row(losses, found)
        score = found.metrics[self.task.monitor]
        self.stale += 1
        if score is not None and (self.best is None or score > self.best):
            self.best, self.best_step, self.stale = score, self.done, 0
            self._save_model(self.folder.best_model)
        both = (losses.get("loss"), found.losses["loss"])
        self.record.validated(self.done, self.loader.epoch(), both, self.task.monitor, score, best=self.stale == 0)

    def _results(self) -> dict[str, Any]:
        """What `metrics.json` holds."""
        return {
            "task": self.task.name,
            "val": self.metrics,
            "best": {"metric": self.task.monitor, "value": self.best, "step": self.best_step},
            **self.summary,
            "seed": self.train.seed,
            "hardware": hardware(self.fabric.device, self.fabric.world_size),
            "steps": self.done,
            "ended": run_folder.ended(self.ended_by, self.train),
            "seconds": round(self._seconds(), 1),
        }

    def _write_row(self, losses: Mapping[str, float], found: Validation | None = None) -> None:
        numbers = {**found.losses, **found.metrics} if found else {}
        groups = {"": {"lr": self.step.rate}, "train/": losses, "weight/": self.balancer.weights(), "val/": numbers}
        values = {prefix + name: value for prefix, group in groups.items() for name, value in group.items()}
        epochs = round(self.loader.batch / self.loader.batches_per_epoch, 3)
        self.record.row({"epoch": epochs, "step": self.done, "seconds": round(self._seconds(), 2)}, values)

    def _save_model(self, path: Path) -> None:
        config = {"task": self.task.name, **to_dict(self.config)}
        save_model(path, self.task.model, config, self.task.reading)

    def _save(self, path: Path) -> None:
        state = {
            "model": self.task.model.state_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "balance": self.balancer.state(),
            "ema": self.step.ema.state_dict() if self.step.ema else None,
            "loader": self.loader.state_dict(),
            "best": self.best,
            "best_step": self.best_step,
            "stale": self.stale,
            "metrics": self.metrics,
            "seconds": self._seconds(),
        }
        save_checkpoint(path, state)
        if path == self.folder.last:
            self.saved = time.monotonic()

    def _averaged(self) -> AbstractContextManager[None]:
        return self.step.ema.applied() if self.step.ema else nullcontext()

    def _seconds(self) -> float:
        """Of training, those before this start included."""
        return float(self.checkpoint.get("seconds", 0.0)) + time.monotonic() - self.started
