"""Notices within seconds that a process of a run has died, and ends the others with its status.

Every process keeps a connection to the first one open. The system closes it when a process ends, whatever ended it, also
while the others wait for the dead one in a collective operation, which on GPUs lasts ten minutes. A process that ends in order
says so.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import TYPE_CHECKING

from rpgmt.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import Store

SECONDS_TO_END = 10.0
"""So long a process has, after another one's death, to come to its own end, e.g. with an error that all of them met."""

LEAVES = b"leaves"


class LostProcessError(UserError):
    """Another process of the run has died.

    ``status`` is the exit status to end with: the dead one's, where it is known.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Lost:
    """A dead process.

    Attributes:
        rank: its number.
        status: its exit status, or minus the signal that ended it; None: not known, as of a process on another machine.
    """

    rank: int
    status: int | None

    def error(self, processes: int) -> LostProcessError:
        """The error with which the others end."""
        how, status = "ended early", 1
        if self.status is not None and self.status < 0:
            how = f"was ended by signal {-self.status}{', perhaps for want of memory' if self.status == -9 else ''}"
            status = 128 - self.status
        elif self.status:
            how, status = f"ended with status {self.status}", self.status
        line = (
            f"process {self.rank} of {processes} (numbered from 0) {how}, so all end; --resume goes on from the last checkpoint"
        )
        return LostProcessError(line, status)


class Watch:
    """The eye that a process keeps on the others, from now until `leave`.

    Args:
        rank: number of this process.
        processes: how many there are.
        store: tells the others where the first one listens.
        host: address of the first one.
        children: the processes that this one started, by their rank. Their end is noticed also before they watch themselves.
    """

    def __init__(self, rank: int, processes: int, store: Store, host: str, children: Mapping[int, subprocess.Popen[bytes]]):
        self._rank, self._processes, self._children = rank, processes, children
        self._lock = threading.Lock()
        self._left: set[int] = set()  # those that ended in order, this one included
        self._peers: dict[int, Connection] = {}
        self._noticed, self._over = threading.Event(), threading.Event()
        self._lost: Lost | None = None
        if rank == 0:
            key = secrets.token_bytes(32)
            self._listener = Listener(("127.0.0.1" if host in ("127.0.0.1", "localhost") else "", 0), authkey=key)
            port: int = self._listener.address[1]
            store.set("watch", f"{port} {key.hex()}")
            self._in_background(self._welcome)
        else:
            port_text, key_text = store.get("watch").decode().split()
            first: Connection = Client((host, int(port_text)), authkey=bytes.fromhex(key_text))
            first.send_bytes(str(rank).encode())
            self._peers[0] = _kept_alive(first)
            self._in_background(self._listen, 0)
        for child in children:
            self._in_background(self._wait_for_child, child)

    def lost(self, seconds: float) -> LostProcessError | None:
        """The error of a process that has died, or dies in the next seconds; else None."""
        self._noticed.wait(seconds)
        return self._lost.error(self._processes) if self._lost else None

    def leave(self) -> None:
        """Say that this process ends in order: nobody is to end for it, nor it for others."""
        self._over.set()
        with self._lock:
            self._left.add(self._rank)
            self._tell(LEAVES)

    def _in_background(self, target: Callable[..., None], *arguments: int) -> None:
        threading.Thread(target=target, args=arguments, daemon=True, name="rpgmt-watch").start()

    def _welcome(self) -> None:
        for _ in range(self._processes - 1):
            while True:
                with suppress(OSError, EOFError, AuthenticationError):  # somebody else knocked
                    peer: Connection = self._listener.accept()
                    rank = int(peer.recv_bytes(16))
                    break
            with self._lock:
                self._peers[rank] = _kept_alive(peer)
            self._in_background(self._listen, rank)
        self._listener.close()

    def _listen(self, rank: int) -> None:
        """Read what a process says, until it is gone."""
        with suppress(OSError, EOFError):
            while True:
                word, *numbers = self._peers[rank].recv_bytes(64).split()
                if word == LEAVES:
                    self._left.add(rank)
                else:
                    whose, status = numbers
                    self._notice(Lost(int(whose), None if status == b"None" else int(status)))
        if rank not in self._left:
            own_status = None
            if rank in self._children:
                with suppress(subprocess.TimeoutExpired):
                    own_status = self._children[rank].wait(SECONDS_TO_END / 2)
            self._notice(Lost(rank, own_status))

    def _wait_for_child(self, rank: int) -> None:
        status = self._children[rank].wait()
        if status == 0:
            time.sleep(1)  # it may have said that it leaves, and `_listen` not have read it yet
        if rank not in self._left:
            self._notice(Lost(rank, status))

    def _notice(self, lost: Lost) -> None:
        with self._lock:
            if self._lost or self._rank in self._left:
                return
            self._lost = lost
            self._tell(f"lost {lost.rank} {lost.status}".encode())
        self._noticed.set()
        if self._over.wait(SECONDS_TO_END):
            return
        error = lost.error(self._processes)  # the main thread waits for what will not come, or computes
        if self._rank == min({0, 1} - {lost.rank}):
            print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr, flush=True)
        os._exit(error.status)

    def _tell(self, message: bytes) -> None:
        for peer in self._peers.values():
            with suppress(OSError):
                peer.send_bytes(message)


def _kept_alive(connection: Connection) -> Connection:
    """Let the system ask whether the other machine is still there: its end of the connection may have no time to be closed."""
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, option):  # other systems have other names, and longer times
                same.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection
