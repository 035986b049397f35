"""How the processes of a run are started, find each other, and end together (docs/processes.md)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist

from rpgmt.engine.device import make_fabric
from rpgmt.engine.watch import Watch
from rpgmt.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import ClusterEnvironment

    from rpgmt.config import TrainConfig

SECONDS_TO_COME = 60
"""So long processes wait for each other, which load torch and nothing else before: they are to start at about the same time."""
SECONDS_FOR_OWN = 600
"""So long a process waits for those that it started itself; if one of them dies, it knows at once."""

_watch: Watch | None = None
_store: dist.Store | None = None
"""Kept for as long as the program: the first process serves it to the others."""
_children: dict[int, subprocess.Popen[bytes]] = {}
_meetings = 0


def join(train: TrainConfig) -> None:
    """Start a run's other processes, unless something else starts them, and wait for all; nothing for a run in one process.

    To be called first of all: what happens to one process afterwards, e.g. that its machine has no data, ends all of them.

    Raises:
        UserError: a process did not come, or has another number of devices or nodes; or as `make_fabric`.
    """
    if train.devices * train.nodes > 1 and _watch is None:
        _join(make_fabric(train))


@contextmanager
def together(fabric: Fabric) -> Iterator[None]:
    """Meanwhile the death of one of a run's processes ends all of them, within seconds and with its exit status.

    Joins them first, if `join` did not. Other processes may end with ``SystemExit(0)`` before the first one.

    Raises:
        LostProcessError: in place of the error that a collective operation gives whose partner has died.
    """
    global _watch
    if fabric.world_size == 1:
        yield
        return
    watch = _watch or _join(fabric)
    try:
        yield
    except RuntimeError:
        if error := watch.lost(seconds=3):
            raise error from None
        raise
    except SystemExit as end:
        if not end.code:
            watch.leave()
        raise
    watch.leave()
    _watch = None


def _join(fabric: Fabric) -> Watch:
    global _watch, _store, _meetings
    strategy = fabric.strategy
    environment: ClusterEnvironment = strategy.cluster_environment  # type: ignore[attr-defined]
    if not environment.creates_processes_externally:
        _start_others(environment, fabric.world_size, strategy.num_processes)  # type: ignore[attr-defined]
    rank, processes = fabric.global_rank, fabric.world_size
    _meetings += 1
    if _store is None:
        _store = _meet(environment, rank, processes)
    store = dist.PrefixStore(f"rpgmt/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{_meetings}", _store)
    _watch = Watch(rank, processes, store, environment.main_address, _children)
    _check_in(store, rank, processes, SECONDS_FOR_OWN if _children else SECONDS_TO_COME, _watch)
    fabric.launch()
    return _watch


def _start_others(environment: ClusterEnvironment, processes: int, on_this_machine: int) -> None:
    """Start this program again for every further device, with what `torchrun` would set in their environment.

    Fabric does the same, and would end this process by SIGKILL, without a word, where another one ends with an error.
    """
    os.environ.update(
        MASTER_ADDR=environment.main_address,
        MASTER_PORT=str(environment.main_port),
        NODE_RANK=str(environment.node_rank()),
        LOCAL_RANK="0",
        WORLD_SIZE=str(processes),
    )
    module = sys.modules["__main__"].__spec__
    program = [os.path.abspath(sys.argv[0])] if module is None else ["-m", module.name]
    for local in range(1, on_this_machine):
        own = os.environ | {"LOCAL_RANK": str(local)}
        rank = environment.node_rank() * on_this_machine + local
        _children[rank] = subprocess.Popen([sys.executable, *program, *sys.argv[1:]], env=own)


def _meet(environment: ClusterEnvironment, rank: int, processes: int) -> dist.Store:
    """The store of the first process, or of `torchrun`."""
    host, port = environment.main_address, environment.main_port
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun
    wait = timedelta(seconds=SECONDS_TO_COME)
    try:
        return dist.TCPStore(
            host, port, processes, rank == 0 and not served, wait, wait_for_workers=False, multi_tenant=not served
        )
    except dist.DistError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"process {rank} of {processes} does not find process 0 at {host}:{port}: start all within a minute, with the same "
            f"MASTER_ADDR and MASTER_PORT ({reason})"
        ) from None


def _check_in(store: dist.Store, rank: int, processes: int, seconds: int, watch: Watch) -> None:
    """Wait until every process is there.

    Raises:
        UserError: some are not, or one counts other processes.
    """
    names = [f"process {number}" for number in range(processes)]
    end = time.monotonic() + seconds
    try:
        counted = int(store.compare_set("processes", "", str(processes)))
        if counted != processes:
            other = f"{processes} in process {rank} and {counted} in one that came before"
            raise UserError(f"`devices` × `nodes` is {other}: give the same to all")
        store.set(names[rank], "here")
        while not store.check(names):
            if error := watch.lost(seconds=0.1):
                raise error
            if time.monotonic() > end:
                missing = ", ".join(name for name in names if not store.check([name]))
                raise UserError(
                    f"{missing} of {processes} (numbered from 0) did not come within {seconds} s: start all within a minute; "
                    "its own output may say why it did not"
                )
    except dist.DistError:
        raise watch.lost(seconds=3) or UserError("process 0 cannot be reached any more") from None
