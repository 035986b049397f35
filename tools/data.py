#!/usr/bin/env python
"""Make data sets: `synthetic --out DIR` writes the people that the project draws itself as files."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

from rpgmt import cli
from rpgmt.errors import UserError


def main(argv: list[str], prog: str = "data.py") -> int:
    """Writes a data set, and prints what is in it."""
    parser = cli.Parser(prog=prog, description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    synthetic = verbs.add_parser("synthetic", help="draw people: a COCO-format data set with masks, parts, depth and normals")
    synthetic.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    synthetic.add_argument("--train", type=_count, default=1000, metavar="N", help="training images (default: 1000)")
    synthetic.add_argument("--val", type=_count, default=200, metavar="N", help="validation images (default: 200)")
    synthetic.add_argument("--size", type=int, default=96, metavar="S", help="pixels, both ways (default: 96)")
    synthetic.add_argument("--seed", type=int, default=0, metavar="S", help="of the scenes (default: 0)")
    synthetic.add_argument("--json", type=cli.output_file, metavar="FILE", help="write the printed table as data too")
    synthetic.add_argument("--sheet", type=Path, metavar="FILE.png", help="write a picture of the first 6 scenes too")
    return _synthetic(parser.parse_args(argv), prog)


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of images: give 1 to 1000000")
    return value


def _synthetic(arguments: argparse.Namespace, prog: str) -> int:
    out, size, seed = arguments.out, arguments.size, arguments.seed
    if size < 16:
        raise UserError(f"`--size` is {size}: give at least 16 pixels")
    if seed < 0:
        raise UserError(f"`--seed` is {seed}: give 0 or more")
    if out.exists() and not out.is_dir():
        raise UserError(f"`--out` is {out}: that is a file, give a new or empty folder")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"`--out` is {out}: the folder is not empty, give a new one or delete what is in it")
    if arguments.json and not arguments.json.parent.is_dir():
        raise UserError(f"`--json` is {arguments.json}: the folder {arguments.json.parent} does not exist")

    from rpgmt.synthetic.files import write_sheet, write_split
    from rpgmt.synthetic.parallel import split_start
    from rpgmt.synthetic.render import render

    counts = {"train": arguments.train, "val": arguments.val}
    finished = dict.fromkeys(counts, 0)
    rows = []
    try:
        for split, count in counts.items():
            begin = time.perf_counter()

            def written(number: int, split: str = split) -> None:
                finished[split] = number

            document = write_split(out, split, count=count, size=size, seed=seed, written=written)
            rows.append(_summary(split, document, time.perf_counter() - begin))
    except KeyboardInterrupt:
        done = ", ".join(f"{finished[split]} of {count} {split} images" for split, count in counts.items())
        complete = ", ".join(row["split"] for row in rows) or "no split"
        print(f"{prog}: interrupted: {out} holds {done}; complete with annotations: {complete}", file=sys.stderr)
        return 130
    if arguments.sheet:
        start = split_start("train", 1)
        write_sheet(arguments.sheet, [render(seed, start + i, size) for i in range(min(6, arguments.train))])
    if arguments.json:
        arguments.json.write_text(json.dumps({"out": str(out), "size": size, "seed": seed, "splits": rows}, indent=2))
    train = "tools/train.py" if prog.endswith(".py") else prog.removesuffix("data") + "train"
    _print(rows, f"{train} pose --data coco --data-root {out}", out)
    return 0


def _summary(split: str, document: dict[str, Any], seconds: float) -> dict[str, Any]:
    flags = [v for annotation in document["annotations"] for v in annotation["keypoints"][2::3]]
    images = len(document["images"])
    return {
        "split": split,
        "images": images,
        "people": len(document["annotations"]),
        "keypoints": {"visible": flags.count(2), "occluded": flags.count(1), "not labelled": flags.count(0)},
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1),
    }


def _print(rows: list[dict[str, Any]], training: str, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Synthetic people in {out}", title_justify="left")
    table.add_column("split")
    for title in ("images", "people", "visible", "occluded", "not labelled", "seconds", "images/s"):
        table.add_column(title, justify="right")
    for row in rows:
        points = row["keypoints"].values()
        cells = (row["images"], row["people"], *points, row["seconds"], row["images_per_second"])
        table.add_row(row["split"], *(str(cell) for cell in cells))
    console = Console()
    console.print(table)
    console.print(f"Train on it: {training}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "data.py"))
