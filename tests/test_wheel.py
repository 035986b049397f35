"""The project away from its checkout: the wheel in an environment of its own, and the checkout where nothing is installed."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rpgmt.config.presets import ROOT

TINY = ["--stages", "2", "--channels", "8", "--depth", "1", "--rpg-size", "50%", "--train-images", "8", "--val-images", "4"]
TINY += ["--batch-size", "4", "--max-steps", "2", "--warmup-steps", "0", "--workers", "0", "--device", "cpu"]
COMMANDS = "benchmark, data, demo, evaluate, export, predict, report, summary, train"
TOOLS = COMMANDS.split(", ")

Run = Callable[..., subprocess.CompletedProcess[str]]


def make_environment(folder: Path, *, with_pip: bool = False) -> Path:
    """A virtual environment that has the dependencies of this one, and not the project; returns its folder of programs.

    Python reads the `.pth` files of its own folder only: those by which this environment finds the checkout do nothing there.
    """
    venv.create(folder, with_pip=with_pip, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "bin"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program in a folder that is not the checkout's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(words, cwd=folder, env=own, capture_output=True, text=True, timeout=180)
        assert done.returncode == status, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="no wheel: hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel."""
    programs = make_environment(tmp_path_factory.mktemp("installed"), with_pip=True)
    run(programs / "python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel)
    return programs


def test_the_wheel_has_the_whole_project_under_one_name(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"rpgmt"}
    own = [path for ending in ("py", "css", "html", "js") for path in (ROOT / "rpgmt").rglob(f"*.{ending}")]
    expected = {f"rpgmt/{path.relative_to(ROOT / 'rpgmt')}" for path in own} | {"rpgmt/py.typed"}
    for folder in ("tasks", "tools", "configs"):
        files = {path.relative_to(ROOT) for ending in ("py", "yaml") for path in (ROOT / folder).rglob(f"*.{ending}")}
        assert files
        expected |= {f"rpgmt/bundle/{path}" for path in files}
    assert names == expected


def test_training_evaluation_and_counting_from_a_wheel(installed: Path, run: Run, tmp_path: Path) -> None:
    homes = run(
        installed / "python",
        "-c",
        "import rpgmt.config.presets as p, rpgmt, torch; print(rpgmt.__file__, p.ROOT, torch.__file__)",
    )
    own, root, torch = map(Path, homes.stdout.split())
    assert own.is_relative_to(installed.parent)
    assert root == own.with_name("bundle")
    assert not torch.is_relative_to(installed.parent)  # of the dependencies, in their place

    rpgmt, out = installed / "rpgmt", tmp_path / "out"
    # Two processes: the second one is the console script started once more.
    words = ["--devices", "2", "--data-root", str(tmp_path / "data"), "--out", str(out)]
    assert "2 steps, " in run(rpgmt, "train", "pose", *TINY, *words).stdout
    assert json.loads((out / "metrics.json").read_text())["steps"] == 2
    run(rpgmt, "evaluate", out, "--json", tmp_path / "evaluation.json")
    measured = json.loads((tmp_path / "evaluation.json").read_text())["val"]
    assert {"stage_1/AP", "stage_2/AP"} <= set(measured)
    assert "bank N" in run(rpgmt, "summary", out).stdout
    assert run(rpgmt, "report", out, "--out", "page.html").stdout == "written: page.html\n"
    command = (out / "commands.txt").read_text().splitlines()[1:]
    assert len(command) == 1  # of the first process
    assert command[0].startswith("rpgmt train pose --stages 2 ")


def test_a_benchmark_starts_programs_of_the_wheel(installed: Path, run: Run, tmp_path: Path) -> None:
    code = "import sys; from rpgmt.config.presets import ROOT; sys.path.insert(0, str(ROOT))\n"
    code += "from tools.benchmarks import classification\n"
    code += "from tools.benchmarks.common import trainings; print(trainings.TRAIN, classification.DERIVE, sep='\\n')"
    for program in run(installed / "python", "-c", code).stdout.splitlines():
        assert Path(program).is_relative_to(installed.parent)
        assert "usage: " in run(installed / "python", program, "--help").stdout


def test_the_console_script_lists_the_tools(installed: Path, run: Run) -> None:
    text = run(installed / "rpgmt", "--help").stdout
    lines = text.partition("commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == TOOLS
    assert all(len(line.split()) > 3 for line in lines)
    module = run(installed / "python", "-m", "rpgmt", "--help").stdout
    assert module == text.replace("rpgmt COMMAND", "python -m rpgmt COMMAND")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [],
            f"rpgmt: the command comes first: `rpgmt COMMAND [arguments]` with one of {COMMANDS}",
        ),
        (
            ["trian"],
            f"rpgmt: `trian` is not a command: did you mean `train`? commands: {COMMANDS}",
        ),
        (["train", "pose", "--rpg-size", "0"], "rpgmt train: `--rpg-size` is 0: give at least 1, e.g. 250K"),
        (["train", "pse"], "rpgmt train: `pse` is not a task: did you mean `pose`? tasks: classification, multitask, pose"),
        (
            ["train", "pose", "--stage", "2"],
            "rpgmt train: `--stage` is not a flag of `rpgmt train pose`: did you mean `--stages`?",
        ),
        (
            ["evaluate"],
            "rpgmt evaluate: `MODEL` is missing: give a run folder or model file first, e.g. rpgmt evaluate runs/pose-1",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_command(words: list[str], line: str, installed: Path, run: Run) -> None:
    done = run(installed / "rpgmt", *words, status=2)
    assert (done.stdout, done.stderr) == ("", f"{line}\n")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "pose", "--help"], ["summary", "--help"]])
def test_help_does_not_wait_for_torch(words: list[str], installed: Path, run: Run) -> None:
    code = f"import sys; from rpgmt.__main__ import main\nsys.argv = ['rpgmt', *{words}]\ntry: main()\n"
    code += "except SystemExit as end: assert not end.code\nassert 'torch' not in sys.modules"
    assert run(installed / "python", "-c", code).stdout.startswith(f"usage: {' '.join(['rpgmt', *words[:-1]])} ")


def test_a_checkout_works_without_being_installed(run: Run, tmp_path: Path) -> None:
    python = make_environment(tmp_path / "bare") / "python"
    missing = run(python, "-c", "import rpgmt", status=1)
    assert "No module named 'rpgmt'" in missing.stderr
    for tool in TOOLS:
        assert f"usage: {tool}.py" in run(python, ROOT / "tools" / f"{tool}.py", "--help").stdout
    arguments: list[Any] = ["pose", *TINY, "--data-root", tmp_path / "data", "--out", tmp_path / "out"]
    run(python, ROOT / "tools/train.py", *arguments)
    assert (tmp_path / "out/model.safetensors").is_file()
