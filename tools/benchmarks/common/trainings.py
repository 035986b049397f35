"""Many trainings, and what else is a process each: started, watched, ended in order, gone on with."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rpgmt.config import TrainConfig, to_yaml
from rpgmt.config.presets import load_preset
from rpgmt.data.loader import ResumableLoader
from rpgmt.engine import run_folder
from rpgmt.engine.task import Dataset
from rpgmt.errors import UserError
from rpgmt.whole_files import write_text

TRAIN = Path(__file__).resolve().parents[2] / "train.py"
WITH_PARENT = Path(__file__).with_name("with_parent.py")
LINES = 8
"""Of a failed training's output that are shown."""


class Job(Protocol):
    """A process that is run once: a training, or what comes after one.

    Attributes:
        cost: of the whole, in any unit: what the time left is estimated by.
    """

    @property
    def name(self) -> str: ...

    @property
    def cost(self) -> float: ...

    @property
    def log(self) -> Path: ...

    def ready(self) -> bool:
        """Whether what it needs is there: it is started as soon as that is so."""

    def result(self) -> Any | None:
        """What it was run for, if it is finished."""

    def start(self, *, one_thread: bool) -> subprocess.Popen[bytes]:
        """Start it, or go on with it, in a process that a Ctrl-C in this terminal does not reach."""


J = TypeVar("J", bound=Job)


@dataclass(frozen=True, eq=False)
class Training:
    """One run of `tools/train.py`, or of a program that trains as it does.

    Args:
        task: the training task's name.
        config: its config; `out` is the run folder. Beside it lie the config as a file and the output, `.yaml` and `.log`.
        steps: how many it takes from begin to end.
        cost: of the whole, in any unit: what the time left is estimated by.
        program: what Python is to run instead; it takes --config, --out and --resume as `tools/train.py` does.
    """

    task: str
    config: Any
    steps: int
    cost: float
    program: tuple[str, ...] | None = None

    @property
    def folder(self) -> run_folder.RunFolder:
        return run_folder.RunFolder(self.config.train.out)

    @property
    def name(self) -> str:
        return self.folder.path.name

    @property
    def log(self) -> Path:
        return self.folder.path.with_name(f"{self.name}.log")

    def check(self) -> None:
        """Raise UserError where the folder holds a run with another config, one of another length included."""
        folder, train = self.folder, self.config.train
        if not folder.config.is_file():
            return
        run_folder.check_same_run(folder, self.config)
        before = load_preset(str(folder.config), self.task, type(self.config)).train
        for field in ("epochs", "max_steps"):
            if (old := getattr(before, field)) != (new := getattr(train, field)):
                raise UserError(
                    f"`{field}` is {new}: the run in {folder.path} has {old}; give another --out for a new comparison"
                )

    def ready(self) -> bool:
        return True

    def result(self) -> dict[str, Any] | None:
        """The run's `metrics.json`, if it is finished."""
        try:
            record: dict[str, Any] = json.loads(self.folder.metrics.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return record if record["steps"] == self.steps else None

    def command(self) -> list[str]:
        """What starts it, or goes on with it; writes its config."""
        config = self.folder.path.with_name(f"{self.name}.yaml")
        plain = dataclasses.replace(self.config, train=dataclasses.replace(self.config.train, out=None, resume=False))
        write_text(config, to_yaml(plain, task=self.task))
        program = self.program or (str(TRAIN), self.task)
        resume = ["--resume"] if self.folder.config.is_file() else []
        return [sys.executable, *program, "--config", str(config), "--out", str(self.folder.path), *resume]

    def start(self, *, one_thread: bool) -> subprocess.Popen[bytes]:
        _wait_until_free(self.folder.path)
        return start(self.command(), self.log, one_thread=one_thread)


def start(command: Sequence[str], log: Path, *, one_thread: bool) -> subprocess.Popen[bytes]:
    """Start a process whose output is added to a file, and that a Ctrl-C in this terminal does not reach.

    It is asked to end, as by SIGTERM, when the thread that calls this has ended, killed perhaps (Linux alone can do so).
    """
    command = [sys.executable, "-I", "-S", str(WITH_PARENT), str(os.getpid()), *command]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if one_thread else {})
    with log.open("ab") as file:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def _wait_until_free(folder: Path) -> None:
    """Wait while another process trains there: what a killed benchmark has left ends after its step, or at its own end."""
    said = False
    while folder.is_dir() and run_folder.is_taken(folder):
        if not said:
            print(f"another process still trains in {folder}: waiting for it to end", flush=True)
        said = True
        time.sleep(0.2)


def count_steps(data: Dataset, train: TrainConfig) -> int:
    """Optimizer steps of a training, as `rpgmt.engine.loop` takes them."""
    loader = ResumableLoader(data, train.batch_size, world_size=train.devices * train.nodes)
    steps = -(-train.epochs * loader.batches_per_epoch // train.accumulate)
    return min(steps, train.max_steps or steps)


def train_all(
    trainings: Sequence[J],
    jobs: int,
    *,
    what: str = "trainings",
    ended: Callable[[J], None] = lambda job: None,
    decisive: Callable[[J], bool] = lambda job: False,
) -> list[J]:
    """Train what is not finished, so many at once, and return those that failed. A line says when one starts and ends.

    The first that is ready is the next one. What never gets ready, because what it needs has failed, is not run, and counts as
    failed too.

    SIGINT or SIGTERM ends the trainings as it ends one: they write checkpoints, from which the next call goes on.

    Args:
        trainings: in the order in which they start; their folders are checked (`Training.check`).
        jobs: how many at once; more than one have one thread each.
        what: they are, in the words of a line.
        ended: is called with each that has ended, well or not.
        decisive: whether the rest is worth nothing when this one fails: those that run are ended then, and no more started.

    Raises:
        KeyboardInterrupt: after SIGINT or SIGTERM, when all trainings have ended.
    """
    waiting = deque(training for training in trainings if training.result() is None)
    clock = _Clock(waiting, jobs)
    running: dict[J, subprocess.Popen[bytes]] = {}
    failed: list[J] = []
    number = {training: f"{place} of {len(trainings)}" for place, training in enumerate(trainings, start=1)}
    if done := len(trainings) - len(waiting):
        print(f"{done} of {len(trainings)} {what} are finished already", flush=True)
    with _sigterm_is_sigint():
        try:
            while waiting or running:
                while len(running) < jobs and (training := next((job for job in waiting if job.ready()), None)):
                    waiting.remove(training)
                    if training.result() is not None:  # another one had the same result
                        clock.skip(training)
                        continue
                    running[training] = training.start(one_thread=jobs > 1)
                    clock.start(training)
                    print(f"start {number[training]}: {training.name}", flush=True)
                if not running:
                    for training in waiting:
                        print(f"LEFT OUT {number[training]}: {training.name}: what it needs has failed", flush=True)
                    return [*failed, *waiting]
                time.sleep(0.2)
                for training in [training for training, process in running.items() if process.poll() is not None]:
                    status = running.pop(training).returncode
                    clock.end(training)
                    ended(training)
                    if status == 0 and training.result() is not None:
                        print(f"end {number[training]}: {training.name}, {clock}", flush=True)
                    else:
                        failed.append(training)
                        print(f"FAILED {number[training]}: {training.name}, status {status}, {clock}; {training.log} ends:")
                        print(_tail(training.log), flush=True)
                if stopped := next((job for job in failed if decisive(job)), None):
                    left = len(waiting) + len(running)
                    print(f"STOPPED after {stopped.name}: {left} of {len(trainings)} {what} are left undone", flush=True)
                    if running:
                        _end(list(running.values()))
                    return failed
        except KeyboardInterrupt:
            _end(list(running.values()))
            raise
    return failed


class _Clock:
    """Time used, and time left as the cost of what has ended lets expect."""

    def __init__(self, trainings: Iterable[Job], jobs: int) -> None:
        self._begin, self._jobs = time.monotonic(), jobs
        self._left = {training: training.cost for training in trainings}
        self._starts: dict[Job, float] = {}
        self._seconds = self._cost = 0.0  # of what has ended

    def start(self, training: Job) -> None:
        self._starts[training] = time.monotonic()

    def skip(self, training: Job) -> None:
        del self._left[training]

    def end(self, training: Job) -> None:
        self._seconds += time.monotonic() - self._starts.pop(training)
        self._cost += self._left.pop(training)

    def __str__(self) -> str:
        now = time.monotonic()
        running = sum(now - start for start in self._starts.values())
        left = (sum(self._left.values()) * self._seconds / self._cost - running) / self._jobs
        return f"{_duration(now - self._begin)} used, about {_duration(max(0, left))} left"


def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-LINES:])


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask trainings to end, and wait for them; asked once more meanwhile, end them at once."""
    print("ending the trainings, each after its step; the same command goes on with them", flush=True)
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise


@contextmanager
def _sigterm_is_sigint() -> Iterator[None]:
    """Whoever ends this program must not leave its trainings behind."""
    if threading.current_thread() is not threading.main_thread():  # elsewhere Python allows no handlers
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
