#!/usr/bin/env python
"""Predict on images, videos, cameras and streams, e.g. `runs/pose-1 photos/ dance.mp4 --detector ssdlite --track`."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

from rpgmt import cli
from rpgmt.errors import UserError
from rpgmt.prediction.command.folder import check_new, new_folder

if TYPE_CHECKING:
    from rpgmt.prediction.command.sources import Sources


def main(argv: list[str], prog: str = "predict.py") -> int:
    """Writes what a model finds into a folder; status 1 if a source was left out, 130 after Ctrl-C."""
    arguments = _parser(prog).parse_args(argv)

    from rpgmt.prediction.command.boxes import read_boxes
    from rpgmt.prediction.command.sources import find_sources

    sources = find_sources(arguments.sources)
    _check(arguments, sources)
    boxes = read_boxes(arguments.boxes, arguments.annotations) if arguments.boxes else None

    from rpgmt.engine.signals import StopSignals
    from rpgmt.prediction.command.notes import Notes
    from rpgmt.prediction.command.run import Options, Run
    from rpgmt.prediction.predictor import Predictor

    detector = None
    if arguments.detector:
        from rpgmt.detection import make_detector

        detector = make_detector(arguments.detector, threshold=arguments.detector_threshold, device=arguments.device)
    predictor = Predictor.load(
        arguments.model,
        weights=arguments.weights,
        device=arguments.device,
        detector=detector,
        batch_size=arguments.batch_size,
        stop_after=arguments.stop_after,
        flip_test=arguments.flip_test,
        every_stage=arguments.stages,
    )
    options = Options(
        pictures=arguments.pictures,
        stages=arguments.stages,
        min_score=arguments.min_score,
        min_point_score=arguments.min_point_score,
        track=arguments.track,
        smooth=arguments.smooth,
    )
    notes = Notes(prog)
    notes.passed_over(sources.passed_over)
    with new_folder(arguments.out) as out, StopSignals(speak=False) as stop:
        Run(predictor, out, options, notes, stop).predict(sources, boxes)
        print(notes.summary())
        if any(out.iterdir()):
            print(f"written: {out}")
    if stop.asked:
        raise KeyboardInterrupt
    return 1 if notes.skipped else 0


def _check(arguments: Namespace, sources: Sources) -> None:
    """Raise UserError for what can be known to be wrong before torch is loaded, which takes seconds."""
    if not Path(arguments.model).exists():
        raise UserError(f"{arguments.model} does not exist: give a run folder or a model file, then the sources")
    if arguments.out is not None:
        check_new(arguments.out)
    if arguments.batch_size < 1:
        raise UserError(f"`--batch-size` is {arguments.batch_size}: give at least 1")
    if arguments.stop_after is not None and arguments.stop_after < 1:
        raise UserError(f"`--stop-after` is {arguments.stop_after}: give the number of a stage, from 1 on")
    threshold = arguments.detector_threshold
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"`--detector-threshold` is {threshold}: give a score from 0 to 1, e.g. 0.5")
    for flag in ("min_score", "min_point_score"):
        if not math.isfinite(getattr(arguments, flag)):
            raise UserError(f"`--{flag.replace('_', '-')}` is {getattr(arguments, flag)}: give a score, e.g. 0.2")
    needs = {"detector_threshold": "detector", "annotations": "boxes", "smooth": "track"}
    for flag, needed in needs.items():
        if getattr(arguments, flag) and not getattr(arguments, needed):
            raise UserError(f"`--{flag.replace('_', '-')}` is given without --{needed}")
    if arguments.boxes and arguments.detector:
        raise UserError("`--boxes` and `--detector` are given: boxes are from a file or from a detector")
    if arguments.boxes and sources.videos:
        raise UserError(f"`--boxes` is for images: leave out {sources.videos[0].name}, or give a --detector")
    if arguments.track and not sources.videos:
        raise UserError("`--track` is for videos: there are images only")


def _parser(prog: str) -> cli.Parser:
    parser = cli.Parser(prog=prog, description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="run folder, model file or exported .onnx file")
    parser.add_argument(
        "sources", metavar="SOURCE", nargs="+", help="image, folder of images, pattern, video, number of a camera, address"
    )
    where = "a new or empty folder (default: the next number in predictions/)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=where)
    people = parser.add_argument_group("where people are (default: the whole image is one person's box)")
    people.add_argument("--detector", metavar="NAME|FILE", help="torchvision's, e.g. ssdlite, or an .onnx file")
    people.add_argument("--detector-threshold", type=float, metavar="X", help="the lowest score that counts, from 0 to 1")
    people.add_argument("--boxes", type=Path, metavar="FILE", help="COCO annotations, or a list of COCO's box results")
    people.add_argument(
        "--annotations", type=Path, metavar="FILE", help="COCO document: which file an `image_id` of --boxes is"
    )
    network = parser.add_argument_group("network")
    network.add_argument("--weights", default="last", choices=["last", "best"], help="of a run folder (default: last)")
    network.add_argument("--stop-after", type=int, metavar="K", help="compute so many stages (default: all)")
    network.add_argument("--flip-test", action="store_true", help="average with the mirror image; key points alone")
    network.add_argument("--batch-size", type=int, default=16, metavar="N", help="people at a time (default: 16)")
    network.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default: auto)")
    written = parser.add_argument_group("what is written")
    written.add_argument("--min-score", type=float, default=0.0, metavar="X", help="leave out weaker people (default: 0)")
    written.add_argument("--no-pictures", dest="pictures", action="store_false", help="draw neither pictures nor videos")
    written.add_argument("--stages", action="store_true", help="draw all stages side by side")
    written.add_argument(
        "--min-point-score",
        type=float,
        default=0.2,
        metavar="X",
        help="neither draw nor smooth weaker key points (default: 0.2)",
    )
    written.add_argument("--track", action="store_true", help="give the people of a video lasting ids")
    written.add_argument("--smooth", action="store_true", help="with --track: smooth their key points")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "predict.py"))
