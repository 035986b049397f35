#!/usr/bin/env python
"""Train a task: tools/train.py pose --stages 4 --rpg-size 1M"""

from __future__ import annotations

import json
import sys
import time

import tasks as task_package
from rpgmt import cli


def main(argv: list[str]) -> int:
    """Trains, and prints where the results are."""
    started = time.perf_counter()
    tasks = cli.find_tasks(task_package)
    name, config = cli.parse_train(argv, tasks)
    print(f"{name}: loading torch …", flush=True)  # some seconds on a slow disk

    from rpgmt.engine.fit import fit
    from rpgmt.engine.model_file import load_weights
    from rpgmt.models.counting import count
    from rpgmt.tables import counts_table, metrics_table, print_table

    task = tasks[name].build(config)
    if config.train.init_from is not None and not config.train.resume:
        fresh = load_weights(task.model, config.train.init_from, heads_may_differ=True)
        print(f"weights from {config.train.init_from}" + (f", fresh: {', '.join(fresh)}" if fresh else ""))
    counts = count(task.model, config.model.input_size)
    print_table(counts_table(counts, f"{name}, {config.model.stages} stages, sharing {config.model.sharing}"))
    folder = fit(
        task,
        config,
        summary={"parameters": counts["parameters"], "macs": counts["macs"], "data": task.data_summary},
    )
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    print_table(metrics_table(metrics["val"], task.metric_label))
    print(f"{metrics['steps']} steps, {time.perf_counter() - started:.0f} s in all; results: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
