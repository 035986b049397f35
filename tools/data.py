#!/usr/bin/env python
"""Make, check and convert data sets: `synthetic --out DIR`, `check DIR`, `convert SOURCE --from … --to … --out DIR`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

from rpgmt import cli
from rpgmt.engine.closing import command
from rpgmt.errors import UserError
from rpgmt.whole_files import write_text

if TYPE_CHECKING:
    from rpgmt.data.check.examination import Report


def main(argv: list[str], prog: str = "data.py") -> int:
    """Writes or reads a data set, and prints what is in it."""
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
    check = verbs.add_parser("check", help="all that is wrong with a data set; exit status 1 if training would refuse it")
    check.add_argument("path", type=Path, metavar="PATH", help="folder of the data set, or its dataset.yaml")
    check.add_argument(
        "--task", choices=("pose", "multitask", "classification"), help="that is to train on it (default: what fits)"
    )
    check.add_argument(
        "--data", metavar="NAME", help="what it is to be taken for, as `--data` of training (default: what fits)"
    )
    check.add_argument("--split", nargs="+", metavar="NAME", help="splits to look at (default: train and val)")
    check.add_argument(
        "--categories",
        type=_names,
        metavar="NAME,…",
        help="which of several categories with key points are the people, as in training (default: all)",
    )
    check.add_argument("--sheet", type=cli.output_file, metavar="FILE.png", help="write a picture of samples with their labels")
    check.add_argument("--json", type=cli.output_file, metavar="FILE", help="write what is found as data too")
    convert = verbs.add_parser("convert", help="labelled key points from one format to another")
    formats = ("coco", "yolo-pose", "label-studio", "cvat", "deeplabcut", "sleap")
    convert.add_argument("source", type=Path, metavar="SOURCE", help="file or folder of the labels")
    for flag, dest, text in (("--from", "origin", "format of the source"), ("--to", "target", "format to write")):
        convert.add_argument(
            flag, dest=dest, required=True, choices=formats, metavar="FORMAT", help=f"{text}: {', '.join(formats)}"
        )
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    convert.add_argument("--images", type=Path, metavar="DIR", help="folder of the images (default: where the labels say)")
    convert.add_argument("--category", metavar="NAME", help="of several categories with key points the one to take over")
    convert.add_argument(
        "--val", type=_share, default=0.2, metavar="X", help="part of a source without splits to validate on (default: 0.2)"
    )
    convert.add_argument("--seed", type=int, default=0, metavar="S", help="which images these are (default: 0)")
    convert.add_argument("--link", action="store_true", help="symbolic links to the images in place of copies")
    arguments = parser.parse_args(argv)
    return {"synthetic": _synthetic, "check": _check, "convert": _convert}[arguments.verb](arguments, prog)


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of images: give 1 to 1000000")
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of the images: give a number from 0 to below 1")
    return value


def _check(arguments: argparse.Namespace, prog: str) -> int:
    from rpgmt.data.check.examination import examine

    options = {"task": arguments.task, "data": arguments.data, "splits": arguments.split}
    report = examine(arguments.path, categories=arguments.categories, **options)
    own, findings = report.recognised, report.findings
    print(f"{arguments.path}: {own.title} (--task {own.task} --data {own.data})")
    for split, counts in report.counts.items():
        _print_wrapped(f"{split}: " + ", ".join(f"{count} {name}" for name, count in counts.items()), "  ")
    below = f"{own.root}/"  # paths are long enough without
    for heading, found in (("Would be refused", findings.refused), ("Notes", findings.notes)):
        if found:
            print(f"\n{heading}:")
        for finding in found:
            _print_wrapped(f"- {f'{finding.count} × ' if finding.count else ''}{finding.title}".replace(below, ""), "  ")
            for example in finding.examples:
                _print_wrapped(f"    {example}".replace(below, ""), "      ")
    print()
    if arguments.sheet:
        from rpgmt.data.check.sheet import write_sheet

        write_sheet(arguments.sheet, report)
        print(f"written: {arguments.sheet}")
    if arguments.json:
        write_text(arguments.json, json.dumps(report.as_data(), indent=2) + "\n", folders=True)
        print(f"written: {arguments.json}")
    if findings.refused:
        kinds = len(findings.refused)
        print(f"{kinds} {'kind' if kinds == 1 else 'kinds'} of things that training would refuse")
        return 1
    print(f"Nothing that training would refuse. Train on it:\n{_training(report, prog)}")
    return 0


def _training(report: Report, prog: str) -> str:
    own = report.recognised
    heads = ",".join(f"{name}={channels}" for name, channels in report.heads.items())
    preset = "coco_json" if (own.task, own.data) == ("pose", "coco") else own.data
    options = ["--heads", heads] if heads and preset not in ("coco_json", "folders") and heads != "keypoints=17" else []
    if own.task == "classification":
        classes = str(next(iter(report.counts.values()))["classes"])
        options = ["--classes", classes, *(["--val-split", "test"] if "test" in own.splits else [])]
    if report.categories is not None:
        options += ["--categories", ",".join(report.categories)]
    return command("train", prog, own.task, "--config", preset, "--data-root", str(own.root), *options)


def _convert(arguments: argparse.Namespace, prog: str) -> int:
    if arguments.seed < 0:
        raise UserError(f"`--seed` is {arguments.seed}: give 0 or more")
    from rpgmt.data.convert.conversion import convert
    from rpgmt.data.file_names import ALLOWED

    options = {key: getattr(arguments, key) for key in ("origin", "target", "images", "category", "val", "seed", "link")}
    done = convert(arguments.source, arguments.out, **options)
    for part in done.parts:
        print(f"{part.split}: {len(part.images)} images, {len(part.annotations)} labelled boxes")
    for note in done.notes:
        _print_wrapped(f"note: {note}", "      ")
    print(f"written: {done.result}")
    if arguments.target == "coco":
        out = str(arguments.out)
        allowed = f"{ALLOWED}={shlex.quote(done.linked)} " if done.linked else ""
        print(f"Check it: {allowed}{command('data', prog, 'check', out)}")
        print(f"Train on it: {allowed}{command('train', prog, 'pose', '--config', 'coco_json', '--data-root', out)}")
    return 0


def _print_wrapped(text: str, indent: str) -> None:
    """Lines of at most 80 columns, the second and further ones indented."""
    print(textwrap.fill(text, 80, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


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
        write_text(arguments.json, json.dumps({"out": str(out), "size": size, "seed": seed, "splits": rows}, indent=2))
    _print(rows, command("train", prog, "pose", "--config", "coco_json", "--data-root", str(out)), out)
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
