"""What the comparison has stored: the grid that was asked for, and the results of each network, read without torch."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpgmt.errors import UserError
from rpgmt.whole_files import write_text
from tools.benchmarks.sharing.measure import result_path

GRID = "grid.json"
"""What was asked for, of all commands that had this folder."""


def run_name(row: str, rate: float, seed: int, tuning_epochs: int | None = None) -> str:
    """Name of a run folder; runs that only try a rate have epochs of their own."""
    shorter = f"-epochs{tuning_epochs}" if tuning_epochs else ""
    return f"{row}-lr{rate:g}{shorter}-seed{seed}"


def choose_rate(scores: Mapping[float, float | None]) -> float | None:
    """The rate with the highest score on the held-out images, the lower of equal ones; None without any score."""
    known = {rate: score for rate, score in scores.items() if score is not None and math.isfinite(score)}
    return max(sorted(known), key=known.__getitem__, default=None)


@dataclass(frozen=True)
class StoredTuning:
    """How the rate of a row that is in the folder was chosen; epochs are None where they are those of the comparison."""

    rates: tuple[float, ...]
    seed: int
    epochs: int | None


def read_grid_file(out: Path) -> dict[str, Any]:
    """What the folder's commands have asked for so far; nothing in a new one."""
    path = out / GRID
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": {}}
    return found


def stored_tunings(before: Mapping[str, Any]) -> dict[str, StoredTuning]:
    """By row, of what `read_grid_file` gives."""
    return {
        name: StoredTuning(
            tuple(row["rates"]),
            row["tuning_seed"],
            None if row["tuning_epochs"] == before["epochs"] else row["tuning_epochs"],
        )
        for name, row in before["rows"].items()
    }


def stored_draws(out: Path, before: Mapping[str, Any]) -> int | None:
    """Draws of the folder's measurements; None where there are none yet.

    Args:
        out: the folder.
        before: what `read_grid_file` gives; earlier versions did not note them there.
    """
    if "draws" in before:
        return int(before["draws"])
    records = sorted(out.glob("*/val*.json")) if before["rows"] else []
    return int(json.loads(records[0].read_text(encoding="utf-8"))["draws"]) if records else None


def write_grid(out: Path, about: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]], command: str | None = None) -> None:
    """Adds what is asked for to what was.

    Args:
        out: the folder.
        about: what holds for all rows.
        rows: with `seeds`, `rates`, …; those that are there already get more seeds. With more rates, too: then earlier
            commands, which lack these, are forgotten.
        command: that asks for them: it goes on with them, too.
    """
    path, found = out / GRID, read_grid_file(out)
    before = found["rows"]
    with_more = {name for name, row in rows.items() if name in before and set(row["rates"]) > set(before[name]["rates"])}
    commands = {words: asked for words, asked in found.get("commands", {}).items() if not with_more & set(asked)}
    if command:
        commands.pop(command, None)  # it becomes the last one
        commands[command] = {name: row["seeds"] for name, row in rows.items()}
    merged = {**before}
    for name, row in rows.items():
        seeds = [*before.get(name, {}).get("seeds", []), *row["seeds"]]
        merged[name] = {**row, "seeds": list(dict.fromkeys(seeds))}
    write_text(path, json.dumps({**about, "commands": commands, "rows": merged}, indent=2) + "\n")


@dataclass(frozen=True)
class Result:
    """A network that was trained and measured.

    Args:
        seed: of its training.
        rate: its learning rate.
        record: what `measure` found: `val`, `parameters`, `bytes`, `macs`, `order`, ….
        seconds: of the training.
        draws: the main metric on images drawn with repetition.
        course: the main metric on the held-out images, by epochs.
    """

    seed: int
    rate: float
    record: Mapping[str, Any]
    seconds: float
    draws: NDArray[np.float64]
    course: Mapping[float, float]

    @property
    def score(self) -> float:
        """The main metric of the last stage; NaN where there is none."""
        value = self.record["val"][self.record["monitor"]]
        return math.nan if value is None else float(value)


@dataclass(frozen=True)
class StoredRow:
    """A row with its results.

    Args:
        name, kind, stages, size, bits, channels, parameters: as of `rows.Row`.
        seeds: that were asked for.
        tried: score on the held-out images by rate, None of a run that has not ended.
        results: by seed.
    """

    name: str
    kind: str
    stages: int
    size: str | None
    bits: int | None
    channels: int
    parameters: int
    seeds: list[int]
    tried: Mapping[float, float | None]
    results: Mapping[int, Result]

    @property
    def missing(self) -> list[int]:
        """Seeds without a result."""
        return [seed for seed in self.seeds if seed not in self.results]


@dataclass(frozen=True)
class Store:
    """A folder of the comparison.

    Args:
        out: the folder.
        about: what `grid.json` says of all rows: task, config, monitor, epochs, ….
        rows: those that were asked for, by name.
        commands: that asked for them, with the seeds of each row.
    """

    out: Path
    about: Mapping[str, Any]
    rows: Mapping[str, StoredRow]
    commands: Mapping[str, Mapping[str, Sequence[int]]]

    @classmethod
    def read(cls, out: Path) -> Store:
        """Reads all that is finished.

        Raises:
            UserError: the folder is none of a comparison.
        """
        path = out / GRID
        if not path.is_file():
            raise UserError(f"`--out` is {out}: no comparison of sharing is there (no {GRID}); give the folder of one")
        about = read_grid_file(out)
        entries, commands = about.pop("rows"), about.pop("commands", {})
        return cls(out, about, {name: _read_row(out, about, name, entries) for name in entries}, commands)

    def commands_to_go_on(self) -> list[str]:
        """Of those that asked for a network which is not there yet, the last that together ask for all of them."""
        kept: list[str] = []
        covered: set[tuple[str, int]] = set()
        for command, networks in reversed(list(self.commands.items())):
            wanted = {(name, seed) for name, seeds in networks.items() for seed in seeds if seed in self.rows[name].missing}
            if wanted - covered:
                kept.append(command)
                covered |= wanted
        return kept[::-1]


def _read_row(out: Path, about: Mapping[str, Any], name: str, entries: Mapping[str, Mapping[str, Any]]) -> StoredRow:
    entry = entries[name]
    trained = entry["source"] or name
    shorter = entry["tuning_epochs"] if entry["tuning_epochs"] != about["epochs"] else None
    runs = {rate: out / run_name(trained, rate, entry["tuning_seed"], shorter) for rate in entry["rates"]}
    ended = {rate: _finished(run) for rate, run in runs.items()}
    tried = {rate: record["val"][about["monitor"]] if record else None for rate, record in ended.items()}
    if len(entry["rates"]) == 1:
        chosen = entry["rates"][0]
    else:  # one that was begun and came to no end may have been too high; one that is still to be tried may be the best
        chosen = choose_rate(tried) if all(run.is_dir() for run in runs.values()) else None
    results = {}
    for seed in entry["seeds"]:
        if chosen is not None and (result := _read_result(out, about, trained, chosen, seed, entry["bits"])):
            results[seed] = result
    fields = {key: entry[key] for key in ("kind", "stages", "size", "bits", "channels", "parameters", "seeds")}
    return StoredRow(name=name, tried=tried if len(tried) > 1 else {}, results=results, **fields)


def _finished(run: Path) -> dict[str, Any] | None:
    """The `metrics.json` of a run that has come to its end."""
    path = run / "metrics.json"
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return record if record.get("ended", {}).get("by") == "length" else None


def _read_result(out: Path, about: Mapping[str, Any], trained: str, rate: float, seed: int, bits: int | None) -> Result | None:
    run = out / run_name(trained, rate, seed)
    path, finished = result_path(run, bits), _finished(run)
    if finished is None or not path.is_file():
        return None
    with np.load(path.with_suffix(".npz")) as arrays:
        draws = arrays["draws"]
    course = {}
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if value := line.get(f"val/{about['monitor']}"):
                course[float(line["epoch"])] = float(value)
    return Result(seed, rate, json.loads(path.read_text(encoding="utf-8")), finished["seconds"], draws, course)
