"""What happens between training steps: the moving average, validation, metrics, checkpoints, and orderly stops."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from rpgmt.config import TrainConfig
from rpgmt.data.loader import validation_loader
from rpgmt.engine.ema import Ema
from rpgmt.engine.evaluate import Validation, validate
from rpgmt.engine.model_file import save_model
from rpgmt.engine.module import TrainingModule
from rpgmt.engine.progress import ProgressDisplay
from rpgmt.engine.run_folder import RunFolder, Table, save_checkpoint, write_metrics
from rpgmt.visualize import plot_curves

STEPS_BETWEEN_ROWS = 50
SECONDS_BETWEEN_CHECKPOINTS = 600.0


class Recorder(pl.Callback):
    """Validates, writes the run folder, and ends training at a signal.

    Everything is done at the end of a training batch: Lightning sees one long epoch of training batches and no
    validation. So there is one place where a run can be left and entered again, and the state to save is what
    `_save` lists. A checkpoint is written when a step is complete: at an epoch's end, every 10 minutes, at a
    signal, and when loading data fails.

    Args:
        train: how to train.
        folder: where to write; only the first process does.
        config: the whole config as plain data, for the model file.
        summary: what `metrics.json` says of model and data: its keys parameters, macs and data.
        checkpoint: the state to go on from, as `_save` wrote it.
    """

    def __init__(
        self,
        train: TrainConfig,
        folder: RunFolder,
        config: Mapping[str, Any],
        summary: Mapping[str, Any],
        checkpoint: Mapping[str, Any] | None,
    ) -> None:
        self.train, self.folder, self.config, self.summary = train, folder, config, summary
        self.interrupted = False
        self.ema: Ema | None = None
        self._checkpoint = checkpoint or {}
        self._best: float | None = self._checkpoint.get("best")
        self._metrics: dict[str, float | None] = dict(self._checkpoint.get("metrics", {}))
        self._validation: Validation | None = None  # the last one; in the first process
        self._seconds: float = self._checkpoint.get("seconds", 0.0)  # of training before this start
        self._start = self._saved = time.monotonic()
        self._save_due = False
        self._consistent = False  # between two steps, all state belongs together
        self._handlers: dict[int, Any] = {}

    # ------------------------------------------------------------------------------------------- start and end

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        self._start = self._saved = time.monotonic()
        if self.train.ema:
            self.ema = Ema(module.model, self.train.ema)
        if self._checkpoint:
            trainer.precision_plugin.load_state_dict(self._checkpoint["scaler"])
            if "balance" in self._checkpoint:  # checkpoints of before have none, and their runs no method with a state
                module.balancer.load_state(self._checkpoint["balance"], module.device)
            if self.ema:
                self.ema.load_state_dict(self._checkpoint["ema"])
            self._checkpoint = {}
        first = trainer.is_global_zero
        self._display = ProgressDisplay(module.total_steps, module.step, silent=not first)
        self._table = Table(self.folder.table, module.step) if first else None
        self._writer = SummaryWriter(str(self.folder.path), purge_step=module.step + 1) if first else None
        self._val_loader = validation_loader(
            module.task.val_data,
            self.train.batch_size,
            workers=self.train.workers,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            pin_memory=module.device.type == "cuda",
        )
        self._catch_signals(module)
        if first and not self.folder.last.exists():
            self._save(trainer, module, self.folder.last)  # a run that is killed early goes on from these first weights

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, TrainingModule)
        self._consistent = False
        # What validation measured is what the model file holds. The checkpoint of the end comes after it: a run that
        # resuming calls finished has its results.
        with self._averaged():
            if trainer.is_global_zero:
                save_model(self.folder.model, module.model, self.config)
                record = {"task": module.task.name, "val": self._metrics, **self.summary, "seed": self.train.seed}
                write_metrics(self.folder, {**record, "steps": module.step, "seconds": round(self._elapsed(), 1)})
        if trainer.is_global_zero and not self.interrupted:
            self._save(trainer, module, self.folder.last)
        if self.ema:
            self.ema.copy_to_model()
        self._close()
        if self._validation is not None and not self.interrupted:
            module.task.draw(self._validation.predictions, self.folder.path)
            plot_curves(self.folder.table, self.folder.path / "curves.png")

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        assert isinstance(module, TrainingModule)
        if self._consistent and trainer.is_global_zero:
            self._save(trainer, module, self.folder.last)
        self._close()

    # --------------------------------------------------------------------------------------------- every batch

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self._consistent = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(module, TrainingModule)
        loader = module.loader
        epoch, within = divmod(loader.batch, loader.batches_per_epoch)
        epochs = f"epoch {epoch + (within > 0)}/{-(-loader.stop // loader.batches_per_epoch)}"
        if module.step_complete:
            if self.ema:
                self.ema.update(module.step - 1)
            self._display.update(module.step, epochs, module.last_loss)

        finished = len(loader) == 0
        self._consistent = module.step_complete and not finished  # validation may meet a broken file
        if finished or (within == 0 and epoch % self.train.val_every == 0):
            self._validate(trainer, module, epochs)
        elif within == 0 or (module.step_complete and module.step % STEPS_BETWEEN_ROWS == 0):
            self._record(module, module.take_losses(), None)

        self._save_due |= within == 0 or module.stopping
        self._save_due |= time.monotonic() - self._saved > SECONDS_BETWEEN_CHECKPOINTS
        if module.step_complete:
            if self._save_due and trainer.is_global_zero and not finished:
                self._save(trainer, module, self.folder.last)
            self._save_due = False
            self._consistent = True
            if module.stopping and not finished:
                self.interrupted = trainer.should_stop = True

    def _validate(self, trainer: pl.Trainer, module: TrainingModule, epochs: str) -> None:
        train_losses = module.take_losses()
        with self._averaged():
            _share_buffers(module.model)
            validation = validate(
                module.task,
                module.model,
                self._val_loader,
                module.device,
                channels_last=self.train.channels_last,
                precision=trainer.precision_plugin.val_step_context,
            )
        if validation is None:
            return
        self._validation, self._metrics = validation, validation.metrics
        self._record(module, train_losses, validation)
        score = validation.metrics[module.task.monitor]
        best = score is not None and (self._best is None or score > self._best)
        if best:
            self._best = score
            self._save(trainer, module, self.folder.best)
        values = {
            "loss": train_losses.get("loss"),
            "val loss": validation.losses["loss"],
            module.task.monitor: score,
        }
        text = "  ".join(f"{name} {'n/a' if v is None else format(v, '.4g')}" for name, v in values.items())
        rate = self._display.rate(module.step)
        self._display.line(f"{epochs}  step {module.step}  {text}{' (best)' if best else ''}  {rate}")

    def _record(self, module: TrainingModule, train_losses: dict[str, float], validation: Validation | None) -> None:
        """Write a row of metrics.csv and the same to TensorBoard."""
        if self._table is None or self._writer is None:
            return
        values: dict[str, float | None] = {"lr": module.learning_rate}
        values |= {f"train/{name}": value for name, value in train_losses.items()}
        values |= {f"weight/{name}": value for name, value in module.balancer.weights().items()}
        if validation is not None:
            numbers = {**validation.losses, **validation.metrics}
            # Figures of single key points or classes, `PCK@0.2:left_ankle`, are in metrics.json alone: no hundreds of curves.
            values |= {f"val/{name}": value for name, value in numbers.items() if ":" not in name}
        epoch = round(module.loader.batch / module.loader.batches_per_epoch, 3)
        self._table.add({"epoch": epoch, "step": module.step, "seconds": round(self._elapsed(), 2), **values})
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, module.step)

    def _save(self, trainer: pl.Trainer, module: TrainingModule, path: Path) -> None:
        state = {
            "model": module.model.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "scaler": trainer.precision_plugin.state_dict(),
            "balance": module.balancer.state(),
            "ema": self.ema.state_dict() if self.ema else None,
            "loader": module.loader.state_dict(),
            "best": self._best,
            "metrics": self._metrics,
            "seconds": self._elapsed(),
        }
        save_checkpoint(path, state)
        if path == self.folder.last:
            self._saved = time.monotonic()

    def _averaged(self) -> AbstractContextManager[None]:
        return self.ema.applied() if self.ema else nullcontext()

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._start

    # ------------------------------------------------------------------------------------------------- signals

    def _catch_signals(self, module: TrainingModule) -> None:
        """SIGINT and SIGTERM end training after the step; a second one has its usual effect at once."""

        def ask_to_stop(number: int, _: FrameType | None) -> None:
            module.stop_wanted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if module.global_rank == 0:  # `print` may be at work itself when the signal comes
                os.write(2, b"stopping after this step and its validation, if any; once more: at once\n")

        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, ask_to_stop)

    def _release_signals(self) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _close(self) -> None:
        self._release_signals()
        if hasattr(self, "_display"):
            self._display.close()
            vars(self).pop("_val_loader", None)  # and so its worker processes
            if self._writer is not None:
                self._writer.close()


def _share_buffers(model: nn.Module) -> None:
    """Give all processes the first one's running statistics, which are those that are saved."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.broadcast(buffer, 0)
