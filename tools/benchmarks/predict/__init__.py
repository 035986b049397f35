"""Prediction on images and on a video: how much of the bare network's rate is left, and where the time goes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import tasks as task_package
from rpgmt import cli
from tools.benchmarks.common.flags import add_json, add_rounds, check_positive


def main(argv: list[str], prog: str) -> int:
    """Times prediction on JPEG files and on a video, against the bare baked network on the same crops in the same run.

    The network is that of the flags, untrained, which takes no other time. 64 photographs of 640×480 are made, with a person
    in each. The bare network has their crops ready as normalised batches; the predictor, as `predict` runs it, is given the
    files. They take turns; a ratio is within a turn. The video shows one person before a still picture; its steps are timed
    one after another, and its rate is that of the whole command, in which they overlap.
    """
    name = "pose"
    parser = cli.Parser(prog=prog, description=main.__doc__)
    add_rounds(parser, "turns of each way")
    parser.add_argument("--frames", type=int, default=300, help="of the video (default: 300)")
    parser.add_argument("--detector", metavar="NAME|FILE", help="for the video (default: none, the frame is the box)")
    add_json(parser)
    arguments, config = cli.parse_config(parser, argv, name, cli.find_tasks(task_package)[name].Config)
    check_positive("--rounds", arguments.rounds)
    check_positive("--frames", arguments.frames)

    import torch

    from rpgmt.engine.device import pick_device
    from rpgmt.tables import print_table, write_json
    from tools.benchmarks.predict import images, network, video

    device = pick_device(config.train.device)
    predictor = network.untrained(config, device, arguments.detector)
    width, height = config.model.input_size
    words = f"{config.model.stages} stages, {config.model.channels} channels, {width}×{height}"
    title = f"{words}, batch {predictor.batch_size}, {device}, {torch.get_num_threads()} threads"
    record: dict[str, Any] = {"title": title, "torch": torch.__version__, "rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as temporary:
        record["images"] = images.measure(predictor, Path(temporary), arguments.rounds)
        print_table(images.table(title, record["images"]))
        record["video"] = video.measure(predictor, Path(temporary), arguments.frames)
        print_table(video.table(title, record["video"]))
    if arguments.json:
        write_json(arguments.json, record)
    return 0
