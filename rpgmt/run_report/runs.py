"""What a report reads of a run folder. Older and unfinished ones lack some of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rpgmt.config import load_yaml
from rpgmt.config.json_files import parse_json
from rpgmt.config.text_files import read_text
from rpgmt.engine.run_folder import RunFolder, read_commands
from rpgmt.errors import UserError
from rpgmt.run_report.stage_weights import StageWeights, stage_weights
from rpgmt.visualize import Lines, read_curves


@dataclass(frozen=True)
class Run:
    """A run.

    Args:
        name: as the page calls it.
        folder: where it lies.
        config: config.yaml.
        config_text: the same as it is written.
        record: metrics.json; empty where there is none.
        commands: when and at which step it was started or gone on with, and by which command.
        axis: what the curves run over.
        curves: metrics.csv, a plot each.
        gallery: the groups of gallery.json.
        stages: what the stages' weights have in common.
        buffers: elements of the network's buffers.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    config_text: str
    record: dict[str, Any]
    commands: list[tuple[str, str]]
    axis: str
    curves: dict[str, Lines]
    gallery: list[dict[str, Any]]
    stages: StageWeights | None
    buffers: int | None

    @property
    def task(self) -> str:
        return str(self.config.get("task", self.record.get("task", "run")))

    @property
    def val(self) -> dict[str, float | None]:
        """The metrics of the last validation."""
        return self.record.get("val", {})

    @property
    def main(self) -> list[str]:
        """The metrics of the last stage, the one by which the best step is chosen first."""
        return [name for name in self.val if "/" not in name and ":" not in name]

    @property
    def stage_names(self) -> list[str]:
        """`stage_1`, …; empty for a network without stages."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.val if "/" in name))

    @property
    def by_task(self) -> dict[str, list[str]]:
        """The metrics of `main` by the task whose name stands before them, "" for those without."""
        found: dict[str, list[str]] = {}
        for name in self.main:
            found.setdefault(self.task_of(name), []).append(name)
        return found

    def task_of(self, metric: str) -> str:
        """The task whose name stands before a metric's, "" for none."""
        heads = self.config.get("model", {}).get("heads", {})
        return next((head for head in heads if metric.startswith(f"{head}.")), "")

    @cached_property
    def best(self) -> tuple[float, float] | None:
        """Step and value of the best validation, by the first of the metrics; a higher one is better."""
        points = self.last_stage(f"val/{self.main[0]}") if self.main else []
        return max(points, key=lambda point: point[1], default=None)

    def last_stage(self, panel: str) -> list[tuple[float, float]]:
        """The curve of a plot that is the last stage's, or of all; empty if there is none."""
        lines = self.curves.get(panel, {})
        return lines.get("") or next(reversed(lines.values()), [])


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Runs by their folders, each with a name of its own.

    Raises:
        UserError: a folder is none of a run, or a file in it cannot be read.
    """
    for folder in folders:
        if not (folder / "config.yaml").is_file():
            what = "holds no config.yaml" if folder.is_dir() else "is no folder"
            raise UserError(f"{folder} {what}: give the folders of runs, e.g. runs/pose-1")
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        twice = next(folder for folder in folders if resolved.count(folder.resolve()) > 1)
        raise UserError(f"{twice} is given twice: give each run once")
    short = [folder.name for folder in resolved]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def _read(folder: Path, name: str) -> Run:
    files = RunFolder(folder)
    axis, curves = read_curves(files.table) if files.table.is_file() else ("step", {})
    stages, buffers = stage_weights(folder)
    return Run(
        name=name,
        folder=folder,
        config=load_yaml(files.config),
        config_text=read_text(files.config),
        record=_json(files.metrics),
        commands=read_commands(files),
        axis=axis,
        curves=curves,
        gallery=_json(folder / "gallery" / "gallery.json").get("groups", []),
        stages=stages,
        buffers=buffers,
    )


def _json(file: Path) -> dict[str, Any]:
    """What a file says; nothing if there is none."""
    if not file.is_file():
        return {}
    try:
        found = parse_json(read_text(file), str(file))
    except UserError as error:
        raise UserError(f"{error}: remove it, and the report goes without") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} is not what a run writes: remove it, and the report goes without")
    return found
