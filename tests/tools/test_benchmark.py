"""The command `benchmark.py`, and that its benchmarks know nothing of each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from rpgmt import cli
from tools import benchmark, benchmarks

FOLDER = Path(benchmarks.__file__).parent


def test_no_benchmark_imports_another() -> None:
    """What two of them need is in `common`, which imports none of them."""
    seen = set()
    for path in FOLDER.rglob("*.py"):
        own = path.relative_to(FOLDER).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            parts = {name.split(".")[2] for name in names if name.startswith("tools.benchmarks.")}
            assert parts <= {own, "common"}, f"{path} imports {names}"
            seen |= parts
    assert seen == {"common", *benchmark.BENCHMARKS}


def test_the_benchmarks_are_listed_with_what_they_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in benchmark.BENCHMARKS:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert line.endswith(".")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["load"], "`load` is not a benchmark: give one of step, loader"),
        ([], "no benchmark is named: give one of step, loader"),
        (["step", "--json", "/"], "/ is a folder: give the name of a file in it"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(benchmark.main, arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
