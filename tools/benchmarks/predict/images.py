"""The rate of prediction on files and on arrays, against that of the bare network.

Besides the rate, what all cores together spend on an image is measured, which other programs change least.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from rich.table import Table
from torch import Tensor

from rpgmt.data.images import normalize
from rpgmt.prediction.network import Decoded, Network, TorchNetwork
from rpgmt.prediction.predictor import Predictor
from rpgmt.prediction.source import SourceImage
from tools.benchmarks.common.made_images import make_files
from tools.benchmarks.common.turns import quartiles, ratios, shuffled

BARE = "bare network, crops ready"
WAYS = (BARE, "arrays of whole images", "JPEG files", "JPEG files, in one thread")


def measure(predictor: Predictor, folder: Path, rounds: int) -> dict[str, Any]:
    """Takes turns on the same people: images a second of each way, and the ratio to the bare network within a turn."""
    predictor = copy.copy(predictor)
    predictor.detector = None
    files, boxes = people(folder)
    arrays = [SourceImage.open(file).pixels for file in files]
    batches = batches_of(predictor, files, boxes)
    ways: dict[str, Callable[[], None]] = dict(
        zip(
            WAYS,
            (
                lambda: _bare(predictor.network, batches),
                lambda: _drain(predictor.attempts(arrays, boxes, ahead=predictor.batch_size)),
                lambda: _drain(predictor.attempts(files, boxes, ahead=predictor.batch_size)),
                lambda: _drain(predictor.attempts(files, boxes)),
            ),
            strict=True,
        )
    )
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    of_cores: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in track(range(-1, rounds), "images", transient=True):  # the first is for caches
        for way in shuffled(WAYS, turn):
            started, spent = time.perf_counter(), time.process_time()
            ways[way]()
            if turn >= 0:
                seconds[way].append(time.perf_counter() - started)
                of_cores[way].append(time.process_time() - spent)
    rates = {way: quartiles([len(files) / taken for taken in seconds[way]])[1] for way in WAYS}
    return {
        way: {
            "images_per_second": rates[way],
            "core_ms": 1000 * quartiles(of_cores[way])[1] / len(files),
            **ratios(seconds[BARE], seconds[way]),
        }
        for way in WAYS
    }


def table(title: str, record: dict[str, Any]) -> Table:
    table = Table(title=f"images, {title}", title_justify="left")
    for column in ("", "images/s", "of the bare", "quartiles", "core ms"):
        table.add_column(column, justify="right" if column else "left")
    for way, figures in record.items():
        low, high = figures["ratio_quartiles"]
        table.add_row(
            way,
            f"{figures['images_per_second']:.1f}",
            f"{figures['ratio']:.2f}",
            f"{low:.2f} … {high:.2f}",
            f"{figures['core_ms']:.1f}",
        )
    return table


def people(folder: Path) -> tuple[list[Path], list[list[list[float]]]]:
    document, images = make_files(folder)
    return (
        [images / image["file_name"] for image in document["images"]],
        [[person["bbox"]] for person in document["annotations"]],
    )


class _Kept(Network):
    """Keeps the crops that it is given."""

    def __init__(self, network: Network) -> None:
        self.reading, self.stages = network.reading, network.stages
        self._network = network
        self.crops: list[np.ndarray] = []

    def __call__(self, crops: np.ndarray, stop_after: int | None, flip_test: bool) -> Decoded:
        self.crops.append(crops)
        return self._network(crops, stop_after, flip_test)


def batches_of(predictor: Predictor, files: list[Path], boxes: list[list[list[float]]]) -> list[Tensor]:
    """The very batches that the predictor makes, normalised."""
    kept = _Kept(predictor.network)
    _drain(Predictor(kept, batch_size=predictor.batch_size, every_stage=False).attempts(files, boxes))
    assert isinstance(predictor.network, TorchNetwork)
    return [normalize(torch.from_numpy(crops).to(predictor.network.device)).contiguous() for crops in kept.crops]


@torch.inference_mode()
def _bare(network: Network, batches: list[Tensor]) -> None:
    assert isinstance(network, TorchNetwork)
    for batch in batches:
        outputs = network.model(batch)
    for output in outputs[-1].values():
        output.cpu()  # waits for a GPU


def _drain(found: Any) -> None:
    deque(found, maxlen=0)
