#!/usr/bin/env python
"""Try a model on a local web page, e.g. `runs/pose-1 [--detector NAME|FILE]`."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what lies beside tools/ is found, installed or not

from rpgmt import cli
from rpgmt.demo.server import DEFAULT_PORT, DemoServer
from rpgmt.errors import UserError


def main(argv: list[str], prog: str = "demo.py") -> int:
    """Serves the page until Ctrl-C."""
    arguments = _parser(prog).parse_args(argv)
    if arguments.port is not None and not 0 <= arguments.port <= 65535:
        raise UserError(f"`--port` is {arguments.port}: give 1 to 65535, or none for a free one")
    with DemoServer(arguments.host, arguments.port) as server:
        if not server.local:
            warnings.warn(f"`--host` is {arguments.host}: anyone in the network can use this page", stacklevel=2)

        from rpgmt.demo.desk import Desk
        from rpgmt.prediction.predictor import Predictor

        options = {name: getattr(arguments, name) for name in ("weights", "device", "detector")}
        server.desk = Desk(Predictor.load(arguments.model, **options), arguments.model)
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        if arguments.open:
            import webbrowser

            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            # Python's own end would stop threads that compute in the middle of torch, which aborts. Nothing is to be tidied.
            print(f"{prog}: interrupted", file=sys.stderr, flush=True)
            os._exit(130)
    return 0


def _parser(prog: str) -> cli.Parser:
    parser = cli.Parser(prog=prog, description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="run folder, model file or exported ONNX file")
    detector = "finds the people: one of torchvision's, or an ONNX file (default: draw boxes, or the whole image)"
    parser.add_argument("--detector", metavar="NAME|FILE", help=detector)
    weights = "of a run folder: the last ones, or those of the best validation (default: last)"
    parser.add_argument("--weights", default="last", choices=["last", "best"], help=weights)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps … (default: auto)")
    host = "address to listen at; any but this machine's own lets others in (default: 127.0.0.1)"
    parser.add_argument("--host", default="127.0.0.1", help=host)
    port = f"port to listen at (default: {DEFAULT_PORT}, or a free one where that is taken)"
    parser.add_argument("--port", type=int, metavar="N", help=port)
    parser.add_argument("--open", action=argparse.BooleanOptionalAction, default=False, help="open the page in a browser")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "demo.py"))
