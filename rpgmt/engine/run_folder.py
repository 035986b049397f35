"""What is where in a run folder.

OUT/config.yaml            the resolved config; a valid `--config`
OUT/metrics.json           the run's figures (see `write_metrics`), the best validation, and why the run ended
OUT/metrics.csv            losses every 50 steps, losses and metrics of every validation
OUT/events…                the same for TensorBoard
OUT/checkpoints/last.ckpt  all that training needs to go on
OUT/checkpoints/best.ckpt  the same, at the best validation
OUT/model.safetensors      the whole model as the run left it
OUT/best.safetensors       the whole model of the best validation
OUT/commands.txt           the commands that started the run and went on with it
OUT/curves.png             metrics.csv, drawn; what the task draws (predictions.png) lies beside it
OUT/gallery/               pictures of the best, the middle and the worst predictions
OUT/report.html            all of it in one page (`rpgmt.run_report`)
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rpgmt.config import TrainConfig, from_dict, load_yaml, to_yaml
from rpgmt.config.json_files import read_json
from rpgmt.config.validation import leaves
from rpgmt.errors import UserError
from rpgmt.whole_files import is_part, write_text, writing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from rpgmt.engine.task import Task

LENGTH = ("epochs", "max_steps", "patience")
"""Fields of a config that say when a run ends."""

MAY_CHANGE = {
    *LENGTH,
    "val_every",
    *("out", "resume", "init_from", "trunk_weights", "workers", "device", "compile", "channels_last"),
    "rpg_regenerate",
    *("root", "teacher", "skeleton", "keypoints", "class_names"),
}
"""Fields of a config that a resumed run may give another value than the run had; the rest makes the run what it is. Where files
lie may change, what they hold may not (`check_same_data`)."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run folder."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def table(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def commands(self) -> Path:
        return self.path / "commands.txt"

    @property
    def gallery(self) -> Path:
        return self.path / "gallery"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def best_model(self) -> Path:
        return self.path / "best.safetensors"


def choose(train: TrainConfig, task_name: str) -> RunFolder:
    """Return the folder that a run is to use, without touching the disk.

    Raises:
        UserError: the folder is not empty and the run is not resumed, there is no run to resume, or no folder can be made.
    """
    if train.out is None:
        if train.resume:
            raise UserError("`resume` needs the run's folder: give `--out DIR`")
        number = 1
        while (path := Path("runs") / f"{task_name}-{number}").exists():
            number += 1
        _check_writable(path)
        return RunFolder(path)
    folder = RunFolder(Path(train.out))
    _check_writable(folder.path)
    if train.resume:
        if not folder.config.is_file():
            raise UserError(f"`out` is {folder.path}: no run to resume (no {folder.config.name} there)")
        if not load_yaml(folder.config):
            raise UserError(
                f"`out` is {folder.path}: its {folder.config.name} is empty, so that nobody knows what its run was: put back a "
                "copy, or start again with another --out"
            )
        if folder.model.is_file() and not folder.last.is_file():
            raise UserError(
                f"`out` is {folder.path}: no checkpoint to go on from (no checkpoints/{folder.last.name}), and its model would "
                f"be lost; give another --out, with --init-from {folder.path} to start from its weights"
            )
    elif folder.path.exists() and (not folder.path.is_dir() or not _is_empty(folder.path)):
        raise UserError(f"`out` is {folder.path}: not an empty folder; give another, or go on with its run by --resume")
    return folder


def _is_empty(path: Path) -> bool:
    """Whether nothing is in a folder but what a kill left of a file that was to come."""
    return all(is_part(file) for file in path.iterdir())


def _check_writable(path: Path) -> None:
    """Raise UserError where the folder is not there and cannot be made."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise UserError(f"`out` is {path}: {there} is not a folder; give another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"`out` is {path}: {there} cannot be written to; give another")


@contextmanager
def taken(train: TrainConfig, task_name: str) -> Iterator[RunFolder]:
    """Choose the run's folder, make it and keep other processes out of it meanwhile; one that stays empty is removed.

    Raises:
        UserError: as `choose`, or another process trains there.
    """
    folder = choose(train, task_name)
    while train.out is None:
        try:
            folder.path.mkdir(parents=True)  # of two processes that start at once one makes it
            break
        except FileExistsError:
            folder = choose(train, task_name)
    folder.path.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder.path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process ends
            except BlockingIOError:
                raise UserError(f"`out` is {folder.path}: another process trains there; wait, or give another") from None
        choose(dataclasses.replace(train, out=folder.path), task_name)  # it may have been filled before it was ours
        yield folder
    finally:
        with suppress(OSError):  # as a rule it is not empty
            folder.path.rmdir()
        os.close(handle)


def is_taken(folder: Path) -> bool:
    """Whether another process trains in this folder at this moment; False where the file system has no locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    finally:
        os.close(handle)
    return False


def check_same_run(folder: RunFolder, config: DataclassInstance) -> None:
    """Raise UserError where the config of a resumed run differs from the run's in what makes the run (`MAY_CHANGE`)."""
    saved = load_yaml(folder.config)
    saved.pop("task", None)
    before = from_dict(type(config), saved)
    for leaf in leaves(type(config)):
        old, new = leaf.get(before), leaf.get(config)
        if (leaf.name, new) in (("precision", "auto"), ("heads", None)):  # what that is, only torch or the data know
            continue
        if leaf.name not in MAY_CHANGE and old != new:
            raise UserError(f"`{leaf.name}` is {new}: the run in {folder.path} has {old}, which resuming cannot change")


def check_same_data(folder: RunFolder, task: Task, checkpoint: Mapping[str, Any]) -> None:
    """Raise UserError where a run would go on with another teacher than it began with, or with other data, as far as names and
    numbers tell.

    Args:
        folder: of the run.
        task: what is trained now.
        checkpoint: the run's; one of before has no number of samples and no fingerprints.
    """
    from rpgmt.engine.model_file import check_same_names

    if folder.best_model.is_file():  # tells what the names were; config.yaml has their number
        check_same_names(folder.best_model, task.reading, task.metric_label)
    known, given = checkpoint.get("fingerprints", task.fingerprints), task.fingerprints
    for name in sorted(known.keys() | given.keys()):
        if known.get(name) != given.get(name):
            raise UserError(
                f"`{name}`: the file is not the one that the run in {folder.path} began with (digest "
                f"{given.get(name, 'none')[:12]}, not {known.get(name, 'none')[:12]}): give that one, or start again with "
                "another --out"
            )
    before, now = checkpoint.get("samples"), len(task.train_data)
    if before not in (None, now):
        raise UserError(
            f"{folder.path}: the training data have {now} samples, and had {before} when the run was left: give those that it "
            "began with, or start again with another --out"
        )


def is_finished(folder: RunFolder, config: DataclassInstance) -> bool:
    """Whether the run that is to be resumed has come to its end, and is to be no longer now.

    No torch is needed to know it; where this cannot tell, e.g. of a run before ``ended`` was noted, it says False.
    """
    try:
        record = read_json(folder.metrics)
    except UserError:
        return False
    if not isinstance(record, dict):
        return False
    train: TrainConfig = config.train  # type: ignore[attr-defined]
    return record.get("ended") in (ended("length", train), ended("patience", train)) and folder.model.is_file()


def finished_line(folder: RunFolder, train: TrainConfig, *, whole: bool) -> str:
    """What to say of a finished run that is to be resumed.

    Args:
        folder: of the run.
        train: how it was trained.
        whole: whether the last step had all its batches, so that a longer run would have begun as this one.
    """
    flags = [f"--{name.replace('_', '-')}" for name in LENGTH if name == "epochs" or getattr(train, name) is not None]
    longer = f"; more of {' or '.join(flags)} would go on with it" if whole else ""
    return f"{folder.path}: this run is finished{longer}"


def is_drawn(folder: RunFolder) -> bool:
    """Whether a finished run has its pictures; the report, of them all, is written last."""
    return folder.report.is_file()


def ended(by: Literal["length", "patience", "interrupted"], train: TrainConfig) -> dict[str, Any]:
    """What `metrics.json` says of a run's end: why, and the length that it was to have."""
    return {"by": by, **{name: getattr(train, name) for name in LENGTH}}


def write_config(folder: RunFolder, config: DataclassInstance, task_name: str) -> None:
    """Write config.yaml, which stays as it is where nothing that may change has changed, and make the folder of checkpoints."""
    text = to_yaml(config, task=task_name)
    if not folder.config.is_file() or folder.config.read_text(encoding="utf-8") != text:
        write_text(folder.config, text)  # first of all: without it there is no run to go on with
    with writing(folder.path):
        folder.last.parent.mkdir(exist_ok=True)


def note_command(folder: RunFolder, command: str, step: int) -> None:
    """Add to commands.txt, as a comment, when the run is started or gone on with, and the command."""
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    with writing(folder.commands), folder.commands.open("a", encoding="utf-8") as file:
        file.write(f"# {now}, at step {step}\n{command}\n")


def read_commands(folder: RunFolder) -> list[tuple[str, str]]:
    """When, and the command, of commands.txt; none where there is no such file."""
    if not folder.commands.is_file():
        return []
    text = folder.commands.read_text(encoding="utf-8", errors="replace")
    return [(when, command.strip()) for when, command in re.findall(r"^# (.*)\n((?:(?!# ).*\n?)+)", text, re.MULTILINE)]


def write_metrics(folder: RunFolder, metrics: Mapping[str, Any]) -> None:
    """Write metrics.json, with the size of the model file and the versions of what made it."""
    packages = ("rpgmt", "torch", "lightning-fabric", "numpy")
    record = {
        **metrics,
        "bytes": {"model_file": folder.model.stat().st_size},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
    }
    write_text(folder.metrics, json.dumps(record, indent=2, allow_nan=False) + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return None
