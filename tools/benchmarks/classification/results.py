"""The figures of the networks that were trained, one by one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rpgmt.whole_files import write_text
from tasks.classification import ClassificationTask
from tools.benchmarks.classification import inference_time
from tools.benchmarks.classification.derive import trained
from tools.benchmarks.classification.rows import Row
from tools.benchmarks.common.trainings import Training, count_steps


def measure(
    rows: Sequence[Row],
    trainings: dict[tuple[str, int], Training],
    failed: dict[tuple[str, int], str],
    task: ClassificationTask,
    out: Path,
) -> dict[str, dict[int, dict[str, Any]]]:
    """The figures of all that is trained, by row and seed; each is written beside its run folder. Timed here, one by one.

    Args:
        rows: what was planned.
        trainings: by row and seed.
        failed: (row, seed) → why; what cannot be run here is added.
        task: whose images are timed.
        out: the folder.
    """
    images = inference_time.images_to_time(task)
    by_name = {row.name: row for row in rows}
    results: dict[str, dict[int, dict[str, Any]]] = {}
    print("timing inference …", flush=True)
    for (name, seed), training in trainings.items():
        run = training.result()
        if run is None or (name, seed) in failed:
            continue
        row = by_name[name]
        before = trainings[row.source, seed] if row.source else None
        source = before.folder.path if before else None
        try:
            model = trained(row.family, training.config, training.folder.path, source, row.parameters)
            times = inference_time.measure(model, images)
        except Exception as error:  # one network that cannot be run does not take the others' figures away
            failed[name, seed] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            continue
        record = _record(run, times, _epochs(training, task))
        if before is not None:
            earlier = before.result() or {}
            record |= {"epochs_before": _epochs(before, task), "seconds_before": earlier.get("seconds")}
        results.setdefault(name, {})[seed] = record
        text = json.dumps({"row": name, "seed": seed, **record}, indent=2, allow_nan=False)
        write_text(out / f"{name}-seed{seed}.json", text + "\n")
    return results


def _record(run: dict[str, Any], times: dict[str, Any], epochs: float) -> dict[str, Any]:
    parameters = run["parameters"]
    return {
        **{name: run["val"][name] for name in ("top1", "top5")},
        **{name: parameters[name] for name in ("bank", "generated", "fixed", "trainable")},
        "remaining": parameters.get("remaining", parameters["trainable"]),
        "bytes": run["bytes"]["model_file"],
        # What a network with zeros in its weights would need is up to the library that runs it.
        "macs": run["macs"],
        **times,
        "seconds": run["seconds"],
        "epochs": epochs,
    }


def _epochs(training: Training, task: ClassificationTask) -> float:
    one = dataclasses.replace(training.config.train, epochs=1, max_steps=None)
    return round(training.steps / count_steps(task.train_data, one), 2)
