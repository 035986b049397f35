"""Where a model runs, and with which precision: devices, Lightning's Fabric, deterministic algorithms."""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import torch
import torch.distributed as dist
import torch.utils.deterministic as _memory
from torch import nn

from rpgmt.config import TrainConfig
from rpgmt.config.schema import Device
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from lightning_fabric import Fabric

C = TypeVar("C", bound="DataclassInstance")


def pick_device(name: str) -> str:
    """Return ``cuda`` or ``cpu`` for ``auto``, another name as it is: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UserError: the device is not there, or there is no such kind.
    """
    kind, colon, number = name.partition(":")
    if kind not in get_args(Device) or (colon and not (kind == "cuda" and number.isdecimal())):
        raise UserError(f"`device` is {name}: give one of {', '.join(get_args(Device))}, or the number of a GPU as in cuda:1")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(f"`device` is {name}: this machine has no CUDA device; give cpu, or auto")
    if number and int(number) >= torch.cuda.device_count():
        raise UserError(f"`device` is {name}: this machine has {torch.cuda.device_count()} of them, numbered from 0")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("`device` is mps: this machine has none; give cpu, or auto")
    return name


def check_machine(train: TrainConfig) -> None:
    """Raise UserError where this machine has no such device, not so many, or does not compute in such a precision."""
    device = pick_device(train.device)
    if pick_precision(train.precision, device) == "16" and device == "cpu":
        raise UserError("`precision` is 16: a CPU has no mixed precision with float16; give 32 or bf16")
    if device == "cuda" and train.devices > torch.cuda.device_count():
        raise UserError(f"`devices` is {train.devices}: this machine has {torch.cuda.device_count()}")


def hardware(device: torch.device, processes: int) -> dict[str, Any]:
    """What a run computes on, for its record: the device's and the processor's names, processes, cores of the machine."""
    processor = platform.machine()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:  # Linux says it there alone
        processor = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), processor)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "processes": processes, "processor": processor, "cores": os.cpu_count()}


def pick_precision(name: str, device: str) -> str:
    """Return, for ``auto``, bf16 if the device computes in it and else 32; another name as it is.

    A CPU without instructions for bfloat16 takes ten times as long with it as with float32.

    Args:
        name: auto, 32, bf16 or 16.
        device: cpu, cuda or mps.
    """
    if name != "auto":
        return name
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    return "bf16" if device == "cpu" and torch.cpu._is_avx512_bf16_supported() else "32"


def for_this_machine(config: C) -> C:
    """The config with the precision that ``auto`` is on its device: what a run keeps.

    Raises:
        UserError: this machine has no such device.
    """
    train: TrainConfig = config.train  # type: ignore[attr-defined]
    precision = pick_precision(train.precision, pick_device(train.device))
    changed: Any = dataclasses.replace(train, precision=precision)  # type: ignore[arg-type]
    return dataclasses.replace(config, train=changed)


def make_fabric(train: TrainConfig) -> Fabric:
    """Return the Fabric of a training: its device, precision, processes and nodes. `rpgmt.engine.joining` starts the others.

    Raises:
        UserError: as `check_machine`.
    """
    check_machine(train)
    # Imported here, as it takes seconds. The large package, which some machines bring, has the same under its own name.
    written = warnings.formatwarning
    lightning = import_module("lightning_fabric" if find_spec("lightning_fabric") else "lightning.fabric")
    warnings.formatwarning = written  # which it replaces

    device = pick_device(train.device)
    precision = pick_precision(train.precision, device)
    logging.getLogger(lightning.__name__).setLevel(logging.WARNING)  # no lines on devices found
    several = train.devices * train.nodes > 1
    fabric: Fabric = lightning.Fabric(
        accelerator=device,
        devices=train.devices,
        num_nodes=train.nodes,
        # Buffers may be large tables of integers, which DistributedDataParallel would send in every step.
        strategy=lightning.strategies.DDPStrategy(broadcast_buffers=False) if several else "auto",
        precision={"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[precision],
    )
    return fabric


@contextmanager
def chosen_algorithms(device: torch.device) -> Iterator[None]:
    """Meanwhile a CPU computes with deterministic algorithms, and a GPU with the convolutions that it finds fastest.

    New memory need not be filled for the former: nothing reads it.
    """
    deterministic, filled = torch.are_deterministic_algorithms_enabled(), _memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        _memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = device.type == "cuda"
    try:
        with warnings.catch_warnings():
            # torch 2.11 does not know the new name of this argument.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        _memory.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark


def processes() -> int:
    """How many processes train."""
    return dist.get_world_size() if dist.is_initialized() else 1


def synchronise_norms(model: nn.Module, fabric: Fabric) -> None:
    """Let batch norm on several GPUs normalise with the statistics of all; on CPUs, where torch cannot, warn."""
    normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if fabric.world_size == 1 or not normed:
        return
    if fabric.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    elif fabric.is_global_zero:
        warnings.warn(
            f"batch norm is not synchronised on {fabric.device.type}: every process normalises with statistics of its own"
            " batches, and the first one's running statistics are validated and saved",
            stacklevel=2,
        )


def share_buffers(model: nn.Module) -> None:
    """Give all processes the first one's running statistics, which are those that are saved."""
    if processes() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.broadcast(buffer, 0)
