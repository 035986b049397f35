"""The demo's real server, in a thread of the tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rpgmt
from rpgmt.demo.desk import Desk
from rpgmt.demo.server import DemoServer

NAME = "runs/<b>multi</b>-1"
"""As a folder may be called."""


@contextmanager
def serving(predictor: rpgmt.Predictor, name: str = NAME) -> Iterator[DemoServer]:
    with DemoServer("127.0.0.1", 0) as server:
        server.desk = Desk(predictor, name)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
