"""Training: from a task and its config to a run folder, in one loop over batches.

A resumed run goes on at the batch where the checkpoint was written. On a CPU the weights are then, bit for bit, those of an
uninterrupted run.

What happens in an optimizer step is in `training_step`, what a run is between two steps, and how it is kept, in `standing` and
`saving`.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch._functorch import config as functorch

from rpgmt.config import TrainConfig
from rpgmt.data.loader import ResumableLoader, lost_workers, validation_loader
from rpgmt.engine import run_folder
from rpgmt.engine.agreement import check_agreement
from rpgmt.engine.balance import Balancer, GradientBalancing, make_balancer
from rpgmt.engine.checkpoint import load_checkpoint, taken_over
from rpgmt.engine.device import chosen_algorithms, for_this_machine, make_fabric, share_buffers, synchronise_norms
from rpgmt.engine.drawing import draw, draw_again
from rpgmt.engine.evaluate import Validation, to_device, validate
from rpgmt.engine.finite import NonFiniteError
from rpgmt.engine.joining import together
from rpgmt.engine.learning_rate import learning_rate_factor
from rpgmt.engine.plan import make_plan
from rpgmt.engine.record import Record
from rpgmt.engine.run_folder import RunFolder
from rpgmt.engine.saving import Saver
from rpgmt.engine.signals import Interrupted, StopSignals
from rpgmt.engine.standing import Standing, restore
from rpgmt.engine.task import Task
from rpgmt.engine.training_step import TrainingStep
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from lightning_fabric import Fabric

STEPS_BETWEEN_ROWS = 50
SECONDS_BETWEEN_CHECKPOINTS = 600.0


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
    Resuming a finished run draws its pictures, where they are missing, and does nothing else.

    Args:
        task: what to train; ``task.model`` is trained in place.
        config: a dataclass with ``train: TrainConfig`` and what else makes the run; saved in the run folder (as config.yaml,
            and in the model file), without ``out`` and ``resume``, and with this machine's precision for ``auto``.
        summary: what `metrics.json` says of model and data: its keys parameters, macs and data.
        command: the line that started this, for `commands.txt`; None for none.
        tell: is called with what begins now, in words, where it may take some seconds.

    Raises:
        UserError: `out` is in use, the config does not fit the machine, the run to resume or the model's tasks, a file
            cannot be written, or a process that loads data is lost.
        NonFiniteError: a loss or a gradient, before the optimizer step, or weights, before they are measured or saved; the
            last checkpoint stays.
        Interrupted: a `KeyboardInterrupt`, after SIGINT or SIGTERM. (With several processes the others exit.)
    """
    config = for_this_machine(config)
    train: TrainConfig = config.train  # type: ignore[attr-defined]
    tell("loading Lightning")
    balancer, fabric = make_balancer(task), make_fabric(train)
    # The folder is the first process's: the others do not ask whether it is free.
    first = fabric.is_global_zero
    taken = run_folder.taken(train, task.name) if first else nullcontext(RunFolder(train.out or Path()))
    with taken as folder, together(fabric), lost_workers():
        training = Training(task, config, fabric, balancer, folder, summary or {}, command)
        place = f"batch {training.loader.batch} of {training.loader.stop}"
        check_agreement(task, config, fabric.device, place)
        if training.finished and training.standing.due is None:
            training.say(run_folder.finished_line(folder, train, whole=training.loader.batch % train.accumulate == 0))
            if first and not run_folder.is_drawn(folder):
                tell("measuring the model once more, for the pictures that are missing")
                with chosen_algorithms(fabric.device):
                    draw_again(task, train, folder, fabric.device)
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
        except NonFiniteError as error:
            error.folder = folder.path
            raise
        if interrupted or not training.finished:
            raise (
                Interrupted(folder.path) if first else SystemExit(0)
            )  # another status would make Fabric kill the first process
        if training.validation is not None:  # in the first process
            draw(task, training.validation, folder)
    return folder.path


class Training:
    """A run, from its first batch or a checkpoint to its end: the loop, and what happens between two steps.

    There is one place where a run can be left and entered again, the end of a step. A checkpoint is written at an epoch's
    end, every 10 minutes, at a signal, and when loading data fails; never one with a number that is not finite.
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
        self.standing = Standing.of(self.checkpoint)
        if self.checkpoint and self.finished and self.standing.due is None and not folder.model.is_file():
            self.standing.due = {}  # it was left early and is to be no longer: what it ends with is yet to be measured
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
        return "patience" if patience is not None and self.standing.stale >= patience else "interrupted"

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
        seconds = float(self.checkpoint.get("seconds", 0.0))
        self.saver = Saver(self.folder, self.config, self.step, self.loader, self.standing, seconds)
        with StopSignals(speak=self.first) as self.signals:
            kept = self.done if self.standing.due is None else self.done - 1
            self.record = Record(self.folder, self.done, kept, self.plan.steps, silent=not self.first)
            if self.standing.metrics:
                self.record.measured(self.task.monitor, self.standing.metrics[self.task.monitor])
            try:
                yield
            except BaseException:
                mixed = self.step.ema is not None and self.step.ema.is_applied  # a second signal came as weights were put back
                if self.between_steps and self.first and not mixed:
                    self.saver.checkpoint(self.folder.last, self.done)
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
        if not self.checkpoint:
            self.saver.checkpoint(self.folder.last, self.done)  # a run that is killed early goes on from these first weights
        if self.standing.due is not None:
            self.between_steps = True
            step.rate = train.lr * learning_rate_factor(self.done - 1, step.steps, step.train)  # for the row
            self._validate()
            self.saver.checkpoint(self.folder.last, self.done)
            if self.finished:
                return
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

            late = self.first and time.monotonic() - self.saver.saved > SECONDS_BETWEEN_CHECKPOINTS
            if not run_ends and (epoch_ended or late or step.losses.stop):
                self.saver.checkpoint(self.folder.last, self.done)
            epoch_ended = validation_due = False
            if self.finished or step.losses.stop:  # the same in all processes
                return

    def finish(self) -> None:
        """Write the model file, metrics.json and the last checkpoint; leave the averaged weights in the model.

        What validation measured is what the model file holds. The checkpoint of the end comes after it: a run that resuming
        calls finished has its results. (Of an interrupted run it is written already.)
        """
        self.between_steps = False
        self.saver.check(self.done)
        if self.first and self.finished:
            self.folder.report.unlink(missing_ok=True)  # is drawn anew, and tells whether that was done
        with self.saver.averaged():
            if self.first:
                self.saver.model(self.folder.model)
                self.saver.results(self.summary, self.done, run_folder.ended(self.ended_by, self.train))
        if self.finished:
            self.saver.checkpoint(self.folder.last, self.done)
        if self.step.ema:
            self.step.ema.copy_to_model()

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
            with taken_over(folder.last):
                run_folder.check_same_data(folder, self.task, checkpoint)
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
            with taken_over(self.folder.last):
                restore(step, saved)
        return step

    def _validate(self) -> None:
        """Validate; what breaks off leaves the standing as it was, with this validation due."""
        self.saver.check(self.done)
        if self.standing.due is None:
            self.standing.due = self.step.losses.take()
        before = dataclasses.asdict(self.standing)
        try:
            self._measure(self.standing.due)
        except BaseException:
            vars(self.standing).update(before)
            raise

    def _measure(self, losses: Mapping[str, float]) -> None:
        with self.saver.averaged():
            share_buffers(self.task.model)
            layout, device = self.train.channels_last, self.fabric.device
            found = validate(self.task, self.task.model, self.validation_batches, device, channels_last=layout)
            if found is not None:  # in the first process
                self._note(losses, found)
        self.standing.due = None
        if found is not None and self.standing.best_step == self.done:
            self.saver.checkpoint(self.folder.best, self.done)
        if self.train.patience is not None:
            self.standing.stale = self.fabric.broadcast(self.standing.stale)

    def _note(self, losses: Mapping[str, float], found: Validation) -> None:
        """Write down what a validation found, and the best model file if it is that; the model has the weights measured."""
        self.validation, score = found, found.metrics[self.task.monitor]
        best = self.standing.take(found.metrics, score, self.done, counts=self.step.is_firm(self.done))
        self._write_row(losses, found)
        if best:
            self.saver.model(self.folder.best_model)
        both = (losses.get("loss"), found.losses["loss"])
        self.record.validated(self.done, self.loader.epoch(), both, self.task.monitor, score, best=best)

    def _write_row(self, losses: Mapping[str, float], found: Validation | None = None) -> None:
        numbers = {**found.losses, **found.metrics} if found else {}
        groups = {"": {"lr": self.step.rate}, "train/": losses, "weight/": self.balancer.weights(), "val/": numbers}
        values = {prefix + name: value for prefix, group in groups.items() for name, value in group.items()}
        epochs = round(self.loader.batch / self.loader.batches_per_epoch, 3)
        self.record.row({"epoch": epochs, "step": self.done, "seconds": round(self.saver.seconds(), 2)}, values)
