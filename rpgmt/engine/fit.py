"""Train a task on Lightning's Trainer.

A run is one long stream of batches for Lightning; epochs, validation, metrics and checkpoints are `Recorder`'s. A
resumed run goes on at the batch where the checkpoint was written, with a Trainer that knows nothing of what was
before: its own counters are never restored. On a CPU the weights are then, bit for bit, those of an uninterrupted run.
"""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import lightning.pytorch as pl
import torch
import torch.utils.deterministic as _memory
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch._functorch import config as functorch

from rpgmt.config import TrainConfig, to_dict
from rpgmt.data.loader import ResumableLoader
from rpgmt.engine import run_folder
from rpgmt.engine.balance import Balancer, GradientBalancing, make_balancer
from rpgmt.engine.callbacks import Recorder
from rpgmt.engine.evaluate import pick_device, pick_precision
from rpgmt.engine.module import TrainingModule
from rpgmt.engine.task import Task
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


class Interrupted(KeyboardInterrupt):
    """Training was ended by SIGINT or SIGTERM, in order: checkpoint, model file and metrics are written."""


def fit(task: Task, config: DataclassInstance, *, summary: Mapping[str, Any] | None = None) -> Path:
    """Train ``task.model`` and return the run folder.

    The model ends, and is written to the model file, with the weights that the last validation measured: the
    moving average if ``ema`` is on, else those of the last step. (The best ones are in `checkpoints/best.ckpt`.) An
    interrupted run writes the same of the step where it ended; `val` in `metrics.json` is then of the validation
    before.

    A run ends after ``epochs``, or after ``max_steps`` if that comes first. A resumed run may change these, and what
    else does not make the run what it is (`run_folder.MAY_CHANGE`); the learning rate then follows the schedule of
    the new length from where it stands. Resuming a finished run does nothing.

    Args:
        task: what to train; ``task.model`` is trained in place.
        config: a dataclass with ``train: TrainConfig`` and what else makes the run; saved in the run folder (as config.yaml,
            and in the model file), without ``out`` and ``resume``, and with this machine's precision for ``auto``.
        summary: what `metrics.json` says of model and data: its keys parameters, macs and data.

    Raises:
        UserError: `out` is in use, or the config does not fit the machine, the run to resume or the model's tasks.
        NonFiniteLossError: before the optimizer step; the last checkpoint stays.
        Interrupted: a `KeyboardInterrupt`, after SIGINT or SIGTERM. (With several processes the others exit.)
    """
    config = for_this_machine(config)
    train: TrainConfig = config.train  # type: ignore[attr-defined]
    balancer = make_balancer(task)
    trainer, rank = _trainer(train, task.model)
    if rank > 0:  # the first process starts the others when it has taken the folder: they do not ask whether it is free
        return _fit(task, config, summary, balancer, trainer, rank, run_folder.RunFolder(train.out or Path()))
    with run_folder.taken(train, task.name) as folder:
        return _fit(task, config, summary, balancer, trainer, rank, folder)


def for_this_machine(config: C) -> C:
    """The config with the precision that ``auto`` is on its device: what a run keeps.

    Raises:
        UserError: this machine has no such device.
    """
    train: TrainConfig = config.train  # type: ignore[attr-defined]
    precision = pick_precision(train.precision, pick_device(train.device))
    changed: Any = dataclasses.replace(train, precision=precision)  # type: ignore[arg-type]
    return dataclasses.replace(config, train=changed)


def _fit(
    task: Task,
    config: DataclassInstance,
    summary: Mapping[str, Any] | None,
    balancer: Balancer,
    trainer: pl.Trainer,
    rank: int,
    folder: run_folder.RunFolder,
) -> Path:
    train: TrainConfig = config.train  # type: ignore[attr-defined]
    loader = ResumableLoader(
        task.train_data,
        train.batch_size,
        seed=train.seed,
        workers=train.workers,
        rank=rank,
        world_size=trainer.world_size,
        pin_memory=pick_device(train.device) == "cuda",
    )
    loader.stop = train.epochs * loader.batches_per_epoch
    if train.max_steps is not None:
        loader.stop = min(loader.stop, train.max_steps * train.accumulate)

    checkpoint = None
    if train.resume:
        if rank == 0:
            run_folder.check_same_run(folder, config)
        if folder.last.is_file():
            checkpoint = run_folder.load_checkpoint(folder.last)
            loader.load_state_dict(checkpoint["loader"])
            task.model.load_state_dict(checkpoint["model"])
            if len(loader) == 0:
                _say(rank, f"{folder.path}: this run is finished; more --epochs would go on with it")
                return folder.path
            if loader.batch % train.accumulate:
                raise UserError(
                    f"{folder.path}: the run ended within a step of {train.accumulate} batches (`accumulate`), so more "
                    "--epochs would not be the longer run: start it again with another --out"
                )
        _say(rank, f"resuming {folder.path} at batch {loader.batch} of {loader.stop}")
    # What is saved is a `--config` for a new run.
    clean = dataclasses.replace(config, train=dataclasses.replace(train, out=None, resume=False))
    if rank == 0:
        run_folder.write_config(folder, clean, task.name)

    task.model.train()
    if train.channels_last:
        task.model.to(memory_format=torch.channels_last)
    if train.compile:
        task.model.compile()
    module = TrainingModule(task, train, loader, balancer, checkpoint and checkpoint["optimizer"])
    recorder = Recorder(train, folder, {"task": task.name, **to_dict(clean)}, summary or {}, checkpoint)
    trainer.callbacks.append(recorder)  # type: ignore[attr-defined]
    # A compiled backward pass may write over what it was given; not where every task makes one through the same graph.
    several = functorch.patch(donated_buffer=False) if isinstance(balancer, GradientBalancing) else nullcontext()
    try:
        with _quiet_lightning(), several, _deterministic(trainer.strategy.root_device.type == "cpu"):
            trainer.fit(module, loader)
    except SystemExit as error:  # Lightning's answer to a Ctrl-C that comes outside of training, or for the second time
        if isinstance(error.__context__, KeyboardInterrupt):
            raise Interrupted(_advice(folder)) from None
        raise
    if recorder.interrupted:
        if rank > 0:
            raise SystemExit(0)  # another status would make Lightning kill the first process
        _say(rank, _advice(folder))
        raise Interrupted(str(folder.path))
    return folder.path


def _trainer(train: TrainConfig, model: nn.Module) -> tuple[pl.Trainer, int]:
    """Return Lightning's Trainer and the number of this process."""
    device = pick_device(train.device)
    world_size = train.devices * train.nodes
    if train.precision == "16" and device == "cpu":
        raise UserError("`precision` is 16: a CPU has no mixed precision with float16; give 32 or bf16")
    if device == "cuda" and train.devices > torch.cuda.device_count():
        raise UserError(f"`devices` is {train.devices}: this machine has {torch.cuda.device_count()}")
    with _quiet_lightning():
        trainer = pl.Trainer(
            accelerator=device,
            devices=train.devices,
            num_nodes=train.nodes,
            # Buffers may be large tables of integers, which DistributedDataParallel would send in every step.
            strategy=DDPStrategy(broadcast_buffers=False) if world_size > 1 else "auto",
            sync_batchnorm=device == "cuda" and world_size > 1,
            precision={"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[train.precision],  # type: ignore[arg-type]
            accumulate_grad_batches=train.accumulate,
            gradient_clip_val=train.clip_norm,
            max_epochs=1,
            limit_val_batches=0,
            benchmark=device == "cuda",
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if device == "cpu" and world_size > 1 and normed and trainer.is_global_zero:
        warnings.warn(
            "batch norm is not synchronised on CPUs: every process normalises with statistics of its own batches, and"
            " the first one's running statistics are validated and saved",
            stacklevel=3,
        )
    return trainer, trainer.global_rank


def _say(rank: int, text: str) -> None:
    if rank == 0:
        print(text, flush=True)


def _advice(folder: run_folder.RunFolder) -> str:
    out = [] if "--out" in sys.argv else ["--out", str(folder.path)]
    command = shlex.join([*(word for word in sys.argv if word != "--resume"), *out, "--resume"])
    return f"interrupted; results are in {folder.path}; go on with: {command}"


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's lines on devices found and tips; its warnings stay, but for two that nobody here can mend."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 makes a LeafSpec of torch.utils._pytree with every batch, which newer torch deprecates.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            # torch 2.11 does not know the new name of this argument.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _deterministic(enable: bool) -> Iterator[None]:
    """Deterministic algorithms meanwhile, if enabled. New memory need not be filled for that: nothing reads it."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = _memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    if enable:
        torch.use_deterministic_algorithms(True)
        _memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        _memory.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
