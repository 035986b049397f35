"""Batches of a map-style data set: an endless, resumable stream for training, and one pass for validation.

Samples are asked for as ``dataset[epoch, index]``: augmentation is a function of (seed, epoch, index) and no worker
process holds state. So the state of training is where it stands: two integers, (epoch, position).
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from rpgmt.data.random_numbers import generator
from rpgmt.errors import UserError
from rpgmt.process import end_with_parent

if TYPE_CHECKING:
    from rpgmt.engine.task import Dataset

SIGNAL_WITHIN = 1.0
"""Seconds within which the signal of a worker's death comes, once its connection is broken."""


class ResumableLoader:
    """Iterates over shuffled training batches, from where it stands to batch number `stop`.

    The order of an epoch is a permutation keyed by (seed, epoch). What does not fill a batch at an epoch's end is
    left out (a data set smaller than one batch is one smaller batch). Batch k of n processes with batches of B
    samples is batch k of one process with batches of n·B samples, cut into n parts.

    One iterator runs through the epochs: worker processes start once and load the next epoch's first batches while
    the last ones of this epoch are used. ``len(loader)`` is the number of batches left.

    Args:
        dataset: samples ``dataset[epoch, index]``.
        batch_size: samples a batch, of this process.
        seed: of the order.
        workers: processes that load; 0 loads in this one.
        rank, world_size: number of this process, and of all.
        pin_memory: page-locked batches, for faster copies to a GPU.

    Raises:
        ValueError: the data set has fewer samples than there are processes.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        if len(dataset) < world_size:
            raise ValueError(f"the training data has {len(dataset)} samples: give at least one for each process")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.workers, self.rank, self.world_size, self.pin_memory = workers, rank, world_size, pin_memory
        self.batches_per_epoch = max(1, len(dataset) // (batch_size * world_size))
        self._order = (-1, np.empty(0, np.int64))  # the epoch and its permutation
        self.batch = 0
        """Number of the next batch, counted over all epochs: how many have been handed out."""
        self.stop = self.batches_per_epoch
        """Number of the batch before which iteration ends; one epoch, unless set."""

    def state_dict(self) -> dict[str, int]:
        """Return (epoch, position in it) of the next batch; loading ahead does not count."""
        epoch, position = divmod(self.batch, self.batches_per_epoch)
        return {"epoch": epoch, "position": position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to where another loader of the same data and batches stood."""
        self.batch = state["epoch"] * self.batches_per_epoch + state["position"]

    def epoch(self) -> str:
        """Say which epoch the last batch is of: "epoch 2/10"."""
        return f"epoch {-(-self.batch // self.batches_per_epoch)}/{-(-self.stop // self.batches_per_epoch)}"

    def place(self) -> str:
        """Say which batch of its epoch the last one is: "batch 5 of the epoch"."""
        return f"batch {(self.batch - 1) % self.batches_per_epoch + 1} of the epoch"

    def __len__(self) -> int:
        return max(0, self.stop - self.batch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        batches = _torch_loader(self.dataset, self.workers, self.pin_memory, batch_sampler=_Batches(self))
        with lost_workers():
            for batch in batches:
                self.batch += 1
                yield batch

    def indices(self, batch: int) -> list[tuple[int, int]]:
        """Return (epoch, index) of the samples that batch number `batch` holds in this process."""
        epoch, position = divmod(batch, self.batches_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, generator(self.seed, epoch).permutation(len(self.dataset)))
        joint = self.batch_size * self.world_size
        of_all = self._order[1][position * joint : (position + 1) * joint]
        return [(epoch, int(index)) for index in np.array_split(of_all, self.world_size)[self.rank]]


def validation_loader(
    dataset: Dataset,
    batch_size: int,
    *,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Return batches of samples rank, rank + world_size, … in order: nothing is padded, nothing left out."""
    samples = [(0, index) for index in range(rank, len(dataset), world_size)]
    return _torch_loader(dataset, workers, pin_memory, batch_size=batch_size, sampler=samples, persistent_workers=workers > 0)


@contextmanager
def lost_workers() -> Iterator[None]:
    """Raise UserError, one line, where a worker process dies meanwhile.

    Torch says it when the next batch is asked for, or at once: wherever the main thread is.
    """
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        said = str(_from_torch(error)).partition("\n")[0]
        if not (found := re.match(r"DataLoader worker \(pid.*?(?:is killed by signal: ([^.]*)|$)", said)):
            raise
        how = f"was ended by a signal ({found[1].strip()})" if found[1] else "ended"
        raise UserError(
            f"a process that loads data {how}, as a rule for want of memory: give `--workers 0`, or fewer of them; a run "
            "goes on by --resume"
        ) from None


def _from_torch(error: Exception) -> Exception:
    """What torch says of a connection that broke while a worker handed a batch over, once the signal of its death has come.

    It must have come: torch raises an error wherever it finds the main thread, be it writing a checkpoint.
    """
    if isinstance(error, ConnectionError):
        try:
            time.sleep(SIGNAL_WITHIN)
        except RuntimeError as said:
            return said
    return error


class _Batches:
    """The batch sampler of a ResumableLoader."""

    def __init__(self, loader: ResumableLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return (self.loader.indices(batch) for batch in range(self.loader.batch, self.loader.stop))

    def __len__(self) -> int:
        return len(self.loader)


def _torch_loader(dataset: Dataset, workers: int, pin_memory: bool, **arguments: Any) -> DataLoader[Any]:
    fork = workers > 0 and sys.platform == "linux"  # the data set is not copied, and workers start at once
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # torch names keys `index` alone
        num_workers=workers,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if fork else None,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the global one stays as it is
        **arguments,
    )


def _start_worker(_: int) -> None:
    # Ctrl-C and `kill` of the process group are for the main process, which may want to finish what it does.
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # from the main process; its own handler came along with the fork
    end_with_parent()  # torch looks every 5 s only, and meanwhile the run folder's lock, which came along, is held
    if cv2 := sys.modules.get("cv2"):
        cv2.setNumThreads(0)  # a pool of threads does not survive a fork
