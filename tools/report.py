#!/usr/bin/env python
"""Write a page about a run, or about several side by side, e.g. `runs/pose-1 runs/pose-2 --out both.html`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

from rpgmt import cli


def main(argv: list[str], prog: str = "report.py") -> int:
    """Writes the page, and prints where it is."""
    parser = cli.Parser(prog=prog, description=__doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="run folder")
    where = "report.html in the folder of one run, and here of several"
    parser.add_argument("--out", type=cli.output_file, metavar="FILE", help=f"the page (default: {where})")
    arguments = parser.parse_args(argv)

    from rpgmt.run_report.page import write_report

    default = arguments.runs[0] / "report.html" if len(arguments.runs) == 1 else Path("report.html")
    file = arguments.out or default
    write_report(arguments.runs, file)
    print(f"written: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "report.py"))
