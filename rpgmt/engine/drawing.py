"""The pictures at a run's end, and the report that has them all."""

from __future__ import annotations

import torch

from rpgmt.config import TrainConfig
from rpgmt.engine.evaluate import Validation, evaluate
from rpgmt.engine.model_file import load_weights
from rpgmt.engine.run_folder import RunFolder
from rpgmt.engine.task import Task
from rpgmt.run_report.page import write_report
from rpgmt.visualize import plot_curves


def draw(task: Task, found: Validation, folder: RunFolder) -> None:
    """Draw what the last validation found, and the curves; and, last, the report of it all.

    Args:
        task: its model has the weights that were measured.
        found: by the validation.
        folder: of the finished run.
    """
    task.draw(found.predictions, folder.path)
    task.draw_gallery(found.predictions, task.model, folder.gallery)
    plot_curves(folder.table, folder.path / "curves.png")
    write_report([folder.path], folder.report)


def draw_again(task: Task, train: TrainConfig, folder: RunFolder, device: torch.device) -> None:
    """Draw a finished run that was killed before it was drawn: its model is measured once more, in this process alone."""
    load_weights(task.model, folder.model)
    found = evaluate(task, task.model, batch_size=train.batch_size, workers=train.workers, device=str(device))
    draw(task, found, folder)
