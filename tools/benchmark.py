#!/usr/bin/env python
"""Measure and compare: tools/benchmark.py {step,loader,generation,multitask,classification} [flags]"""

from __future__ import annotations

import sys

from rpgmt import cli
from rpgmt.errors import UserError
from tools.benchmarks import classification, generation, loader, multitask, step

BENCHMARKS = {
    "step": step,
    "loader": loader,
    "generation": generation,
    "multitask": multitask,
    "classification": classification,
}


def main(argv: list[str]) -> int:
    """Runs one benchmark."""
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        print(f"usage: benchmark.py BENCHMARK [flags]\n\n{__doc__}\n\nbenchmarks:")
        for known, module in BENCHMARKS.items():
            print(f"  {known:16}{(module.__doc__ or '').splitlines()[0]}")
        print("\n`benchmark.py BENCHMARK --help` lists the flags.")
        return 0
    if name not in BENCHMARKS:
        wrong = f"`{name}` is not a benchmark" if name else "no benchmark is named"
        raise UserError(f"{wrong}: give one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name].main(argv[1:])


if __name__ == "__main__":
    sys.exit(cli.run(main))
