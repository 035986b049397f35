"""The trainings and measurements of the comparison, each a process: what is to be done, in which order, when it can be done."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from rpgmt.errors import UserError
from tools.benchmarks.common.comparison import Comparison
from tools.benchmarks.common.trainings import Job, Training, start
from tools.benchmarks.sharing.measure import result_path
from tools.benchmarks.sharing.rows import Row
from tools.benchmarks.sharing.store import StoredTuning, choose_rate, run_name

MEASURE = Path(__file__).with_name("measure.py")


@dataclass(frozen=True)
class Tuning:
    """How each row's learning rate is chosen: by the main metric on the held-out images, at the run's end.

    Args:
        rates: that are tried.
        seed: of the runs that try them.
        epochs: of these runs; those of the comparison: they are part of it.
    """

    rates: tuple[float, ...]
    seed: int
    epochs: int

    def kept(self, name: str, stored: StoredTuning, given: Mapping[str, object], out: Path) -> Tuning:
        """That of a row which is there already. Rates may be added, as where the best one was the end of the list.

        None may be left out, nor may seed or epochs change: what was tried with the old ones would count no more.

        Args:
            name: of the row.
            stored: what the folder says of it.
            given: flags with their values, None of those that the command line lacks: what they say stays as it was.
            out: the folder.

        Raises:
            UserError: a flag that is given says something else.
        """
        same = {
            "--rates": (set(stored.rates) <= set(self.rates), ",".join(f"{rate:g}" for rate in stored.rates)),
            "--tuning-seed": (stored.seed == self.seed, str(stored.seed)),
            "--tuning-epochs": (stored.epochs in (None, self.epochs), str(stored.epochs)),
        }
        for flag, (fits, before) in same.items():
            if given[flag] is not None and not fits:
                way = "give these and more, or another --out" if flag == "--rates" else "leave it out, or give another --out"
                raise UserError(f"`{flag}` is {given[flag]}: {name} in {out} has {before}; {way}")
        rates = self.rates if given["--rates"] is not None else stored.rates
        return Tuning(rates, stored.seed, stored.epochs or self.epochs)


@dataclass(eq=False)
class Grid:
    """All trainings by row, rate and seed.

    Args:
        task: name of the training task.
        config: what holds for all rows.
        asked: seeds and folder.
        tunings_of: how rates are chosen, by row.
        rows: by name, those that others are made of among them.
        monitor: the main metric.
        steps: of a training, by its epochs.
        samples: of the training set, and of the validation set.
        draws: of the bootstrap.
    """

    task: str
    config: Any
    asked: Comparison
    tunings_of: Mapping[str, Tuning]
    rows: Mapping[str, Row]
    monitor: str
    steps: Mapping[int, int]
    samples: tuple[int, int]
    draws: int
    _trainings: dict[Path, Training] = field(default_factory=dict)
    _ended: set[Job] = field(default_factory=set)

    def training(self, row: Row, rate: float, seed: int, epochs: int) -> Training:
        """The one training of a network."""
        whole = self.config.train.epochs
        out = self.asked.out / run_name(row.name, rate, seed, None if epochs == whole else epochs)
        if out not in self._trainings:
            train = dataclasses.replace(self.config.train, lr=rate, seed=seed, epochs=epochs, out=out)
            config = dataclasses.replace(self.config, model=row.model, train=train)
            cost = self._cost(row) * 3 * self.samples[0] * epochs  # the backward pass takes twice what the forward pass does
            self._trainings[out] = Training(self.task, config, self.steps[epochs], cost)
        return self._trainings[out]

    def tunings(self, row: Row) -> dict[float, Training]:
        """The runs that try the rates."""
        tuning = self.tunings_of[row.name]
        return {rate: self.training(row, rate, tuning.seed, tuning.epochs) for rate in tuning.rates}

    def rate(self, row: Row) -> float | None:
        """The rate of a row; None while it is not known. A run that has failed, as a rate too high makes it, does not count."""
        if len(rates := self.tunings_of[row.name].rates) == 1:
            return rates[0]
        tunings = self.tunings(row)
        results = {rate: training.result() for rate, training in tunings.items()}
        if any(result is None and tunings[rate] not in self._ended for rate, result in results.items()):
            return None
        return choose_rate({rate: result["val"][self.monitor] for rate, result in results.items() if result})

    def ended(self, job: Job) -> None:
        """Notes that a process has ended, well or not."""
        self._ended.add(job)

    def all_trainings(self) -> list[Training]:
        """Every training that there may be."""
        rows = [row for row in self.rows.values() if row.bits is None]
        tried = [training for row in rows for training in self.tunings(row).values()]
        whole = self.config.train.epochs
        return tried + [
            self.training(row, rate, seed, whole)
            for row in rows
            for rate in self.tunings_of[row.name].rates
            for seed in self.asked.seeds
        ]

    def jobs(self) -> list[Job]:
        """What is to be done, first things first: a grid that is cut short is to say as much as can be.

        First every row with one seed, the decisive rows before the others; then the other seeds, all rows of one before the
        next. A network is measured as soon as it is trained.
        """
        jobs: list[Job] = []
        for place, seed in enumerate(self.asked.seeds):
            for row in self.rows.values():
                if row.bits is not None:
                    continue
                tuning = self.tunings_of[row.name]
                if place == 0 and len(tuning.rates) > 1:
                    jobs += self.tunings(row).values()
                whole = self.config.train.epochs
                if len(tuning.rates) == 1 or (seed, whole) != (tuning.seed, tuning.epochs):
                    jobs.append(Chosen(self, row, seed))
                own = [other for other in self.rows.values() if row.name in (other.name, other.source)]
                jobs += [Measurement(self, one, seed) for one in own]
        return jobs

    def _cost(self, row: Row) -> float:
        """Of a forward pass of a sample, roughly, in stages of the width that is asked for; the trunk is one more."""
        return (1 + row.model.stages) * (row.channels / self.config.model.channels) ** 2

    def measuring_cost(self, row: Row) -> float:
        return self._cost(row) * 2 * self.samples[1]  # samples one by one take longer


@dataclass(frozen=True, eq=False)
class Chosen:
    """The training of a row with the rate that is chosen for it, as soon as that is so."""

    grid: Grid
    row: Row
    seed: int

    @property
    def training(self) -> Training | None:
        rate = self.grid.rate(self.row)
        return None if rate is None else self.grid.training(self.row, rate, self.seed, self.grid.config.train.epochs)

    @property
    def name(self) -> str:
        return self.training.name if self.training else f"{self.row.name}-seed{self.seed}"

    @property
    def cost(self) -> float:
        rate = self.grid.tunings_of[self.row.name].rates[0]
        return self.grid.training(self.row, rate, self.seed, self.grid.config.train.epochs).cost

    @property
    def log(self) -> Path:
        assert self.training is not None
        return self.training.log

    def ready(self) -> bool:
        return self.training is not None

    def result(self) -> Any | None:
        return self.training.result() if self.training else None

    def start(self, *, one_thread: bool) -> Popen[bytes]:
        assert self.training is not None
        return self.training.start(one_thread=one_thread)


@dataclass(frozen=True, eq=False)
class Measurement:
    """A trained network, or a rounded one, on the validation set."""

    grid: Grid
    row: Row
    seed: int

    @property
    def training(self) -> Training | None:
        source = self.grid.rows[self.row.source] if self.row.source else self.row
        return Chosen(self.grid, source, self.seed).training

    @property
    def name(self) -> str:
        return f"{self.row.name}-seed{self.seed} on val"

    @property
    def cost(self) -> float:
        return self.grid.measuring_cost(self.row)

    @property
    def log(self) -> Path:
        return self.grid.asked.out / f"{self.row.name}-seed{self.seed}-val.log"

    def ready(self) -> bool:
        return self.training is not None and self.training.result() is not None

    def result(self) -> Any | None:
        if not self.ready():
            return None
        assert self.training is not None
        path = result_path(self.training.folder.path, self.row.bits)
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        # Networks are compared draw by draw: one that was measured with others is measured again.
        return record if record and record["draws"] == self.grid.draws else None

    def command(self) -> list[str]:
        """What starts it, once it is ready."""
        assert self.training is not None
        bits = ["--bits", str(self.row.bits)] if self.row.bits else []
        return [sys.executable, str(MEASURE), str(self.training.folder.path), "--draws", str(self.grid.draws), *bits]

    def start(self, *, one_thread: bool) -> Popen[bytes]:
        return start(self.command(), self.log, one_thread=one_thread)
