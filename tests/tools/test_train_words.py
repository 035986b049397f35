"""What a training says from its first second to its end, and that the commands it names work."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.people_files import write_coco
from rich.cells import cell_len

from rpgmt import cli
from rpgmt.config.presets import ROOT as REPOSITORY
from rpgmt.synthetic.cache import load
from tools import evaluate, summary, train

TINY = ["--channels", "16", "--depth", "2", "--stages", "2", "--rpg-size", "20%", "--batch-size", "4", "--workers", "0"]
TINY += ["--train-images", "8", "--val-images", "6", "--device", "cpu"]

WITHOUT_TORCH = """
import sys
sys.path.insert(0, ".")
from rpgmt import cli
from tools import train
status = cli.run(train.main, sys.argv[1:], "train.py")
assert "torch" not in sys.modules
sys.exit(status)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    load(folder, count=8, split="train", progress=False)
    load(folder, count=6, split="val", progress=False)
    return folder


def tool(name: str, *words: str) -> list[str]:
    return [sys.executable, f"tools/{name}.py", *words]


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name != "UV"}
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, env=own, **options)


def test_from_the_first_second_to_what_comes_next(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "my run"
    done = run(tool("train", "pose", *TINY, "--data-root", str(root), "--max-steps", "6", "--out", str(out)))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if cell_len(line) > 80 and str(tmp_path) not in line and str(root) not in line] == []
    begun = [re.fullmatch(r" *(\d+\.\d) s  (.+)", line) for line in lines]
    phases = [(float(found[1]), found[2]) for found in begun if found]
    assert [seconds for seconds, _ in phases] == sorted(seconds for seconds, _ in phases)
    said = [what for _, what in phases]
    assert said == [
        f"pose: reading people (drawn once, kept there) in {root}",
        "loading torch",
        "building the network",
        "loading Lightning",
        "training: 6 steps; the first one takes longest",
    ]
    assert any(line.startswith("note: warm-up takes 2 of the 6 steps") for line in lines)

    record = json.loads((out / "metrics.json").read_text())
    assert f"note: AP is {record['val']['AP']:.3f}: 6 steps are few, give more --max-steps for some hundreds" in lines
    assert f"model.safetensors: the last weights, AP {record['val']['AP']:.3f}" in lines
    assert f"look at:  {out}/predictions.png" in lines
    commands = dict(line.split(maxsplit=1) for line in lines if line.startswith(("evaluate:", "predict:")))
    evaluated = run([*shlex.split(commands["evaluate:"]), "--json", str(tmp_path / "found.json")])
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads((tmp_path / "found.json").read_text())["model"] == str(out)
    assert shlex.split(commands["predict:"]) == tool("predict", str(out), "PICTURE.jpg")

    again = run([sys.executable, "-c", WITHOUT_TORCH, "pose", "--resume", "--out", str(out)])
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"{out}: this run is finished; more of --epochs or --max-steps would go on with it\n"


def test_a_bad_folder_is_known_before_torch(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "note").touch()
    for folder, line in (
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "file" / "run", "is not a folder"),
        (tmp_path / "used", "not an empty folder"),
        ("", "`--out` is '': give the name of a folder"),
    ):
        done = run([sys.executable, "-c", WITHOUT_TORCH, "pose", "--out", str(folder)])
        assert (done.returncode, done.stdout) == (2, "")
        assert line in done.stderr
        assert done.stderr.count("\n") == 1


def test_best_weights_are_evaluated_and_summed_up(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert train.main(["pose", *TINY, "--data-root", str(root), "--epochs", "3", "--out", str(out)]) == 0
    (out / "best.safetensors").write_bytes((out / "model.safetensors").read_bytes())
    last = out / "model.safetensors"
    last.rename(tmp_path / "moved")
    assert evaluate.main([str(out), "--weights", "best", "--json", str(tmp_path / "best.json")]) == 0
    assert json.loads((tmp_path / "best.json").read_text())["weights"] == "best"
    assert summary.main([str(out), "--weights", "best"]) == 0
    capsys.readouterr()
    (tmp_path / "moved").rename(last)
    (out / "best.safetensors").unlink()
    for main in (evaluate.main, summary.main):
        assert cli.run(main, [str(out), "--weights", "best"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "holds no best.safetensors" in line
        assert "leave out `weights`" in line


def test_after_a_loss_that_is_not_finite_the_command_that_is_told_works(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["tools/train.py"])
    monkeypatch.delenv("UV", raising=False)
    out = tmp_path / "run"
    arguments = ["pose", *TINY, "--data-root", str(root), "--max-steps", "2", "--out", str(out)]
    assert cli.run(train.main, [*arguments, "--lr", "1e30"]) == 2
    said, _, words = capsys.readouterr().err.strip().partition("may help: ")
    assert "the loss is not finite at step 2" in said
    command = shlex.split(words)
    assert command == tool("train", "pose", "--config", f"{out}/config.yaml", "--lr", "5e+29", "--out", f"{out}-2")
    done = run([*command, "--lr", "1e-3"])  # half of that is no better
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run-2" / "model.safetensors").is_file()


@pytest.mark.parametrize("preset", ["synthetic", "coco_json"])
def test_training_and_evaluation_find_the_same(preset: str, root: Path, tmp_path: Path) -> None:
    """With the preset's own precision and memory format; the last bits differ with the size of batches, AP by nothing here."""
    flags = ["--channels", "16", "--depth", "2", "--stages", "2", "--batch-size", "4", "--workers", "0", "--device", "cpu"]
    flags += ["--rpg-size", "50%", "--max-steps", "40", "--epochs", "40", "--lr", "0.01", "--precision", "bf16"]
    if preset == "coco_json":
        write_coco(tmp_path / "coco", 6)
        flags += ["--data-root", str(tmp_path / "coco"), "--ema", "0.9"]
    else:
        flags += ["--train-images", "8", "--val-images", "6", "--data-root", str(root)]
    out, found = tmp_path / "run", tmp_path / "found.json"
    assert train.main(["pose", "--config", preset, *flags, "--out", str(out)]) == 0
    trained = json.loads((out / "metrics.json").read_text())
    assert evaluate.main([str(out), "--device", "cpu", "--json", str(found)]) == 0
    measured = json.loads(found.read_text())["val"]
    assert measured.keys() == trained["val"].keys()
    for name, value in trained["val"].items():
        assert measured[name] == pytest.approx(value, abs=1e-6), name
    assert evaluate.main([str(out), "--weights", "best", "--device", "cpu", "--json", str(found)]) == 0
    best = json.loads(found.read_text())["val"][trained["best"]["metric"]]
    assert best == pytest.approx(trained["best"]["value"], abs=1e-6)


def test_validation_computes_in_float32_while_training_does_not(root: Path, tmp_path: Path) -> None:
    kinds: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def note(module: torch.nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, torch.nn.Conv2d):
            kinds[module.training].add(output.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        flags = ["--data-root", str(root), "--max-steps", "2", "--precision", "bf16", "--sharing", "none"]
        assert train.main(["pose", *TINY, *flags, "--out", str(tmp_path / "run")]) == 0
    finally:
        hook.remove()
    assert kinds == {True: {torch.bfloat16}, False: {torch.float32}}


def test_on_a_terminal_of_80_columns_nothing_wraps_and_ctrl_c_has_a_line_of_its_own(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    words = ["pose", *TINY, "--data-root", str(root), "--epochs", "100000", "--schedule", "constant", "--out", str(out)]
    screen, end = pty.openpty()
    size = os.environ | {"COLUMNS": "80", "LINES": "40", "TERM": "xterm"}
    process = subprocess.Popen(
        tool("train", *words),
        cwd=REPOSITORY,
        stdin=end,
        stdout=end,
        stderr=end,
        env=size,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(end)
    text = b""
    try:
        sent = False
        with contextlib.suppress(OSError):  # the end of a terminal that nobody writes to
            while part := os.read(screen, 65536):
                text += part
                if not sent and re.search(rb"AP \d\.\d{3} +[\d.]+ it/s", text):  # after the first validation
                    process.send_signal(signal.SIGINT)
                    sent = True
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    lines = re.split(r"\r\n|\r", text.decode())
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in lines]
    assert max(cell_len(line) for line in plain if str(tmp_path) not in line and str(root) not in line) <= 80
    bars = [line for line in plain if "it/s" in line]
    assert bars
    assert all("loss" in line and line.rstrip().endswith("left") for line in bars)
    assert "stopping after this step and its validation, if any; once more: at once" in plain
    place = text.index(b"stopping after")
    assert text[:place].endswith(b"\r\x1b[K")
