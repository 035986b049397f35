"""A comparison of trained networks, a run folder for each network and seed: what it is asked for, where it begins and ends."""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rpgmt.config import to_yaml
from rpgmt.errors import UserError
from rpgmt.whole_files import write_text
from tools.benchmarks.common.flags import check_positive, read_names, read_numbers

if TYPE_CHECKING:
    from tools.benchmarks.common.trainings import Training


def add_seeds_and_jobs(parser: ArgumentParser) -> None:
    """`--seeds` and `--jobs`."""
    parser.add_argument("--seeds", metavar="K,...", help="train every network with each of these (default: that of --seed)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once; more than one have a thread each (default: 1)")


def add_rows(parser: ArgumentParser, rows: Sequence[str]) -> None:
    """`--rows`, some of all the networks."""
    parser.add_argument("--rows", metavar="ROW,...", help=f"networks to compare, of {', '.join(rows)} (default: all)")


@dataclass(frozen=True)
class Comparison:
    """What is asked for.

    Args:
        seeds: every network is trained with each.
        rows: which networks, in their own order.
        jobs: trainings at once.
        out: the folder of all.
    """

    seeds: list[int]
    rows: list[str]
    jobs: int
    out: Path

    def folder(self, name: str, seed: int) -> Path:
        """The run folder of a network."""
        return self.out / f"{name}-seed{seed}"

    def config_of(self, config: Any, name: str, seed: int) -> Any:
        """A network's config for the training with this seed."""
        return dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed, out=self.folder(name, seed)))

    def begin(self, trainings: Iterable[Training], config: Any, task: str) -> None:
        """Makes the folder.

        Args:
            trainings: all that will be in it.
            config: what holds for all networks.
            task: the training task's name.

        Raises:
            UserError: a training is there already, with another config.
        """
        for training in trainings:
            training.check()
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / "config.yaml", to_yaml(config, task=task))


def read_comparison(arguments: Namespace, config: Any, rows: Sequence[str], out: Path) -> tuple[Comparison, Any]:
    """What is asked for, and the config without what is each training's own.

    Args:
        arguments: with `seeds`, `jobs` and `rows`.
        config: as given.
        rows: all there are.
        out: the folder, if the config has none.

    Raises:
        UserError: a flag has no such value or no meaning here, or the folder is that of one run.
    """
    if config.train.resume:
        raise UserError("`--resume`: the same command goes on with what is there; leave it out")
    seeds = [config.train.seed]
    if arguments.seeds:
        seeds = read_numbers("--seeds", arguments.seeds, "whole numbers, e.g. 0,1,2")
    chosen = read_names("--rows", arguments.rows, rows) if arguments.rows else list(rows)
    check_positive("--jobs", arguments.jobs)
    out = config.train.out or out
    if (out / "checkpoints").exists():
        raise UserError(f"`--out` is {out}: the folder of one run; give that of a comparison, or a new one")
    train = dataclasses.replace(config.train, out=None, resume=False, seed=seeds[0])
    return Comparison(seeds, chosen, arguments.jobs, out), dataclasses.replace(config, train=train)


def exit_status(failed: Sequence[str]) -> int:
    """The program's exit status; a line names the runs that failed."""
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries them again")
    return 1 if failed else 0
