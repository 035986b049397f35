"""Measures a trained network on the validation set, once: its last weights, or those rounded to few bits.

Run by the benchmark: `python tools/benchmarks/sharing/measure.py RUN [--bits B] [--draws D]`. Writes RUN/val.json and
RUN/val.npz, or val-8bit.json, … beside a packed file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # what lies beside tools/ is found, installed or not

import tasks as task_package
from rpgmt import cli
from rpgmt.config import from_dict

if TYPE_CHECKING:
    from rpgmt.config import TrainConfig
    from rpgmt.engine.task import Dataset

DRAWS = 200
"""Of the bootstrap: its standard error is then known to a twentieth."""


def result_path(run: Path, bits: int | None) -> Path:
    """Where the figures of a run's network are written."""
    return run / (f"val-{bits}bit.json" if bits else "val.json")


def main(argv: list[str]) -> int:
    """Measures one network."""
    parser = cli.Parser(prog="measure.py", description=main.__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run")
    parser.add_argument("--bits", type=int, choices=[8, 4], help="of its bank, magnitudes or stages' convolutions")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"of the bootstrap over images (default: {DRAWS})")
    arguments = parser.parse_args(argv)

    import numpy as np
    import torch

    import rpgmt
    from rpgmt.baselines.quantize import pack, unpack
    from rpgmt.data.loader import validation_loader
    from rpgmt.engine.device import pick_device
    from rpgmt.engine.evaluate import validate
    from rpgmt.engine.model_file import NAME, read_config
    from rpgmt.models.counting import count
    from rpgmt.models.width import STAGES
    from rpgmt.tables import write_json
    from rpgmt.whole_files import whole_file
    from tools.benchmarks.sharing import samples

    saved = read_config(arguments.run)
    module = cli.find_tasks(task_package)[saved.pop("task")]
    trained: Any = from_dict(module.Config, saved)
    # The validation set itself: training saw a held-out part of the training images alone.
    config = dataclasses.replace(trained, data=dataclasses.replace(trained.data, hold_out=0.0))
    model: Any = rpgmt.load(arguments.run)
    counts, path = count(model, config.model.input_size), result_path(arguments.run, arguments.bits)
    file = arguments.run / NAME
    size, tensors = file.stat().st_size, tensor_bytes(file)
    if arguments.bits:
        packed = path.with_suffix(".safetensors")
        # A packed file holds no config; with it, it is as large as the model file would be.
        size = pack(packed, model, arguments.bits, [STAGES]) + len(json.dumps(saved))
        tensors = tensor_bytes(packed)
        unpack(packed, model)

    task: Any = module.build(config)
    place = torch.device(pick_device(config.train.device))
    # One sample a batch: so what was measured of each can be drawn by itself.
    batches = validation_loader(task.val_data, 1)
    found = validate(task, rpgmt.bake(model).to(place), batches, place, channels_last=config.train.channels_last)
    assert found is not None
    arrays = samples.figures(task, found.predictions)
    arrays["draws"] = samples.resampled(task, found.predictions, arguments.draws)
    with whole_file(path.with_suffix(".npz")) as part, part.open("wb") as figures:  # first: the JSON says that it is done
        np.savez_compressed(figures, allow_pickle=False, **arrays)
    record = {
        "val": found.metrics,
        "monitor": task.monitor,
        "mains": _mains(task),
        "label": task.metric_label,
        "samples": len(task.val_data),
        "images": int(arrays["image"].max()) + 1,
        "draws": arguments.draws,
        "bytes": size,
        "tensor_bytes": tensors,
        **counts,
        "order": order_of(module.build(trained).train_data, trained.train),
    }
    write_json(path, record)
    return 0


def _mains(task: Any) -> dict[str, bool]:
    """The main metric of each head, and whether a higher one is better."""
    alone = len(task.heads) == 1 and task.monitor in task.heads[next(iter(task.heads))].higher
    return {head.main if alone else f"{name}.{head.main}": head.higher[head.main] for name, head in task.heads.items()}


def tensor_bytes(file: Path) -> int:
    """Bytes of a safetensors file without its header, which holds the tensors' names: of small networks a tenth."""
    with file.open("rb") as opened:
        return file.stat().st_size - 8 - int.from_bytes(opened.read(8), "little")


def order_of(data: Dataset, train: TrainConfig) -> str:
    """A digest of which samples a run's batches hold, in their order: rows with the same one are paired."""
    from rpgmt.data.loader import ResumableLoader
    from rpgmt.engine.plan import make_plan

    loader = ResumableLoader(data, train.batch_size, seed=train.seed)
    digest = hashlib.sha256(f"{len(data)} {train.accumulate}".encode())
    for batch in range(make_plan(train, loader.batches_per_epoch).batches):
        digest.update(str(loader.indices(batch)).encode())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "measure.py"))
