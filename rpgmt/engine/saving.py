"""What a run keeps: checkpoints, model files and metrics.json, none of them with a number that is not finite."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rpgmt.config import to_dict
from rpgmt.data.loader import ResumableLoader
from rpgmt.engine import run_folder
from rpgmt.engine.checkpoint import save_checkpoint
from rpgmt.engine.device import hardware
from rpgmt.engine.finite import check_parameters, check_state
from rpgmt.engine.model_file import save_model
from rpgmt.engine.run_folder import RunFolder
from rpgmt.engine.standing import Standing, states
from rpgmt.engine.training_step import TrainingStep


class Saver:
    """Writes the files of a run. All processes call it alike, the first one writes.

    Args:
        folder: of the run.
        config: of the run, as it is saved.
        step: the training, between two of its steps.
        loader: stands where the run does.
        standing: what validations found.
        seconds: that the run took before this start.

    Attributes:
        saved: when the last checkpoint was written, by `time.monotonic`.
    """

    def __init__(
        self, folder: RunFolder, config: Any, step: TrainingStep, loader: ResumableLoader, standing: Standing, seconds: float
    ) -> None:
        self._folder, self._config, self._step, self._loader, self._standing = folder, config, step, loader, standing
        self._first = step.fabric.is_global_zero
        self.saved = time.monotonic()
        self._start = self.saved - seconds

    def seconds(self) -> float:
        """Of training, those before this start included."""
        return time.monotonic() - self._start

    def check(self, done: int) -> None:
        """Look at all numbers, before they are measured or kept; ``done``: steps that are.

        Raises:
            NonFiniteError: one is not finite, or a weight is absurdly large.
        """
        check_parameters(self._step.task.model, when := f"after step {done}")
        check_state(states(self._step), when)

    def checkpoint(self, path: Path, done: int) -> None:
        """Write a checkpoint, in the first process; ``done``: as of `check`.

        Raises:
            NonFiniteError: as `check`, in all processes, so that all end; the file that is there stays.
        """
        self.check(done)
        if self._first:
            standing, place = dataclasses.asdict(self._standing), self._loader.state_dict()
            own = {"loader": place, "samples": len(self._loader.dataset), "seconds": self.seconds()}
            own["fingerprints"] = dict(self._step.task.fingerprints)
            save_checkpoint(path, {**states(self._step), **standing, **own})
        self.saved = time.monotonic()

    def model(self, path: Path) -> None:
        """Write a model file, with the weights that the model has now."""
        task = self._step.task
        save_model(path, task.model, {"task": task.name, **to_dict(self._config)}, task.reading)

    def results(self, summary: Mapping[str, Any], done: int, ended: Mapping[str, Any]) -> None:
        """Write metrics.json.

        Args:
            summary: what it says of model and data.
            done: steps.
            ended: why the run ends.
        """
        step, fabric = self._step, self._step.fabric
        record = {
            "task": step.task.name,
            **self._standing.results(step.task.monitor),
            **summary,
            "seed": step.train.seed,
            **({"fingerprints": fingerprints} if (fingerprints := dict(step.task.fingerprints)) else {}),
            "hardware": hardware(fabric.device, fabric.world_size),
            "steps": done,
            "ended": ended,
            "seconds": round(self.seconds(), 1),
        }
        run_folder.write_metrics(self._folder, record)

    def averaged(self) -> AbstractContextManager[None]:
        """Meanwhile the model has the moving average of its weights, if there is one."""
        return self._step.ema.applied() if self._step.ema else nullcontext()
