#!/usr/bin/env python
"""Measure and compare: steps, loading, generation, prediction, and trainings of several networks."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

from rpgmt import cli
from rpgmt.errors import UserError
from tools.benchmarks import classification, generation, loader, multitask, predict, sharing, step

BENCHMARKS = {
    "step": step,
    "loader": loader,
    "generation": generation,
    "predict": predict,
    "multitask": multitask,
    "classification": classification,
    "sharing": sharing,
}


def main(argv: list[str], prog: str = "benchmark.py") -> int:
    """Runs one benchmark."""
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        print(f"usage: {prog} BENCHMARK [flags]\n\n{__doc__}\n\nbenchmarks:")
        for known, module in BENCHMARKS.items():
            print(f"  {known:16}{(module.__doc__ or '').splitlines()[0]}")
        print(f"\n`{prog} BENCHMARK --help` lists the flags.")
        return 0
    if name not in BENCHMARKS:
        wrong = f"`{name}` is not a benchmark" if name else "no benchmark is named"
        raise UserError(f"{wrong}: give one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name].main(argv[1:], f"{prog} {name}")


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "benchmark.py"))
