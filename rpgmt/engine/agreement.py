"""Whether the processes of a run train the same: compared once, before the first step.

Gradients of processes that disagree would be averaged without a word: of other data, of another order of the samples, of
weights that were generated from other entries of the bank.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import itertools
import json
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

import rpgmt
from rpgmt.config.validation import leaves
from rpgmt.engine.device import processes
from rpgmt.errors import UserError
from rpgmt.rpg.bank import Bank

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from rpgmt.engine.task import Task

OF_THE_MACHINE = {"out", "root", "also", "detections", "workers", "init_from", "trunk_weights", "teacher"}
"""Fields of a config that each machine may have another value of: where files are. What was read from them is compared."""
TOLERANCE = 1e-5
"""Relative, of a tensor's mean and mean magnitude: processors may round the first weights differently. The first process's are
sent to all, so that no more is needed here than to notice other ones."""

Facts = dict[str, str]
Sizes = dict[str, tuple[float, float]]
"""Mean and mean magnitude of each tensor of a model."""


def check_agreement(task: Task, config: DataclassInstance, device: torch.device, stands: str) -> None:
    """Compare versions, config, placement, first weights and data between processes; nothing where there is one.

    Args:
        task: what is trained; its model has its first weights, or those to go on from.
        config: of the run.
        device: where this process trains.
        stands: where in the run it stands, in words.

    Raises:
        UserError: in every process; the line says what each one has.
    """
    if processes() == 1:
        return
    own = facts(task, config) | {"kind of device": device.type, "the run stands at": stands}
    gathered: list[Any] = [None] * processes()
    dist.all_gather_object(gathered, (own, sizes(task.model)))
    if found := differences([part[0] for part in gathered]) + other_weights([part[1] for part in gathered]):
        raise UserError(f"the processes do not train the same: {'; '.join(found)}. Give all of them the same")


def facts(task: Task, config: DataclassInstance) -> Facts:
    """What has to be equal in all processes, by its name for messages."""
    found = {"Python": platform.python_version(), "rpgmt": f"code {_code()}"}
    found |= {package: importlib.metadata.version(package) for package in ("torch", "numpy", "lightning-fabric")}
    found |= {f"`{leaf.name}`": str(leaf.get(config)) for leaf in leaves(type(config)) if leaf.name not in OF_THE_MACHINE}
    for name, module in task.model.named_modules():
        if isinstance(module, Bank):
            version, seed, number, checksum = module.get_extra_state()[:4].tolist()
            found[f"placement of {name}"] = f"version {version}, seed {seed}, bank {number}, checksum {checksum}"
    found |= {f"digest of `{name}`": value for name, value in task.fingerprints.items()}
    for name, data in (("training data", task.train_data), ("validation data", task.val_data)):
        found[name] = f"{len(data)} samples, {digest(data)}"
    return found


def sizes(model: nn.Module) -> Sizes:
    """Mean and mean magnitude of each parameter and floating-point buffer."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    double = {name: tensor.detach().double() for name, tensor in tensors if tensor.is_floating_point()}
    return {name: (float(tensor.mean()), float(tensor.abs().mean())) for name, tensor in double.items() if tensor.numel()}


def differences(of_all: Sequence[Facts]) -> list[str]:
    """For each fact that is not the same in all processes, who has what."""
    lines = []
    for name in dict.fromkeys(name for found in of_all for name in found):
        values = [found.get(name, "none") for found in of_all]
        if len(set(values)) > 1:
            each = [f"{value} in {_processes(values, value)}" for value in dict.fromkeys(values)]
            lines.append(f"{name} is {' and '.join(each)}")
    return lines


def other_weights(of_all: Sequence[Sizes]) -> list[str]:
    """Which processes have other first weights than the first one, and where."""
    lines = []
    for rank, found in enumerate(of_all):
        other = [name for name, own in of_all[0].items() if name not in found or not _close(own, found[name])]
        if other:
            more = f" and {len(other) - 1} more" if len(other) > 1 else ""
            lines.append(f"the first weights of {other[0]}{more} are others in process {rank} than in process 0")
    return lines


def digest(data: object) -> str:
    """What can be told of a data set without reading images: names, sizes, boxes, labels, settings. Eight hexadecimal digits.

    Everything that its public attributes hold is looked at, and what that holds, but for `name`, which is for messages and may
    be where files lie. Of a path the name counts, not the folder; of an array in a file its shape; of a function its name, and
    whose method it is.
    """
    found = hashlib.sha256()
    _feed(found.update, data, {})
    return found.hexdigest()[:8]


def _feed(update: Callable[[bytes], None], value: Any, seen: dict[int, Any]) -> None:
    """Give a digest what a value holds, each object once: some are shared, some know each other."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        update(repr(value).encode())
        return
    if id(value) in seen:
        return
    seen[id(value)] = value  # and is kept, so that no other one gets its number
    if isinstance(value, np.memmap):
        update(f"{value.shape} {value.dtype}".encode())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        update(f"{value.shape} {value.dtype}".encode())
        update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Tensor):
        _feed(update, value.detach().cpu().numpy(), seen)
    elif isinstance(value, Path):
        update(value.name.encode())
    elif isinstance(value, set | frozenset):
        update(repr(sorted(map(repr, value))).encode())
    elif isinstance(value, functools.partial):
        _feed(update, [value.func, value.args, value.keywords], seen)
    elif hasattr(value, "__qualname__"):  # a function or a class
        update(value.__qualname__.encode())
        _feed(update, getattr(value, "__self__", None), seen)
    else:
        try:
            update(json.dumps(value).encode())  # plain data: many, and this is fast
        except (TypeError, ValueError):
            update(type(value).__qualname__.encode())
            for item in _parts(value):
                _feed(update, item, seen)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return itertools.chain.from_iterable(value.items())
    if isinstance(value, list | tuple | np.ndarray):
        return value
    slots = [name for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
    own = {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots}}
    return [item for name, item in own.items() if not name.startswith("_") and name != "name"]


def _close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two tensors are the same, up to rounding; what is not a number is refused elsewhere."""
    room = TOLERANCE * max(one[1], other[1])
    return all(math.isnan(a) or math.isnan(b) or abs(a - b) <= room for a, b in zip(one, other, strict=True))


def _processes(values: Sequence[str], value: str) -> str:
    """The processes that have a value, e.g. ``processes 0, 1, 2``."""
    numbers = [str(rank) for rank, own in enumerate(values) if own == value]
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(numbers)}"


@functools.cache
def _code() -> str:
    """A digest of this package's own files: checkouts may differ and have one version."""
    folder = Path(rpgmt.__file__).parent
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:8]
