"""`tools/demo.py`: what it prints, where it listens, how it ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rpgmt import cli
from rpgmt.config.presets import ROOT
from rpgmt.demo import server
from rpgmt.demo.example import draw_example
from tools import demo

Start = Callable[..., subprocess.Popen[str]]


def fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.run(demo.main, argv, "demo.py") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_help_needs_nothing_heavy() -> None:
    code = "import sys\nfrom tools import demo\ntry: demo.main(['--help'])\nexcept SystemExit as end: assert not end.code\n"
    code += "assert not {'torch', 'numpy', 'cv2'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--detector NAME|FILE" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_what_the_user_can_mend_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        line = f"demo.py: `--port` is {port}, which is taken: give another one, or none for a free one\n"
        assert fails(["runs/none", "--port", port], capsys) == line
    assert "`--port` is 70000: give 1 to 65535" in fails(["runs/none", "--port", "70000"], capsys)
    assert "`--host` is 192.0.2.1, which is no address of this machine" in fails(["x", "--host", "192.0.2.1"], capsys)
    assert str(tmp_path) in fails([str(tmp_path), "--port", "0"], capsys)  # a folder without a model


def test_other_addresses_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match=r"^`--host` is 0\.0\.0\.0: anyone in the network can use this page$"):
        assert cli.run(demo.main, [str(tmp_path), "--host", "0.0.0.0", "--port", "0"], "demo.py") == 2


def test_a_free_port_where_the_default_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(server, "DEFAULT_PORT", other.getsockname()[1])
        with server.DemoServer("127.0.0.1", None) as found:
            assert found.server_port != other.getsockname()[1]


def test_it_serves_until_ctrl_c_and_leaves_nothing(run: Path, start: Start, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "here").mkdir()
    own = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "here"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tools/demo.py"), str(run), "--device", "cpu"]
    process = start(command, cwd=tmp_path / "here", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=own)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends it\)\n", line)
        assert found, line
        port = int(found[1])

        example = draw_example()

        def reply(method: str, path: str) -> bytes:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request(method, path, example.png)
                return connection.getresponse().read()

        def break_off() -> None:
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                reply("POST", f"/ask?boxes={[[0, 0, 480, 480]] * 64}".replace(" ", ""))

        assert b'"stages"' in reply("POST", "/ask?boxes=[[57,163,155,220]]")
        busy = threading.Thread(target=break_off)
        busy.start()
        while reply("GET", "/queue") == b'{"queue": 0}':
            pass
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - asked < 3
        busy.join()
    finally:
        process.kill()
    assert (process.returncode, errors) == (130, "demo.py: interrupted\n")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert list((tmp_path / "here").iterdir()) == []
