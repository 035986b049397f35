"""Nothing but the baselines' own tests and benchmarks needs them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BASELINES = "rpgmt.baselines"
GOLDEN = ROOT / "tests" / "golden" / "runs_0_1" / "classification"


def imports(path: Path) -> set[str]:
    """Modules, and what is imported from them, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def of_baselines(folder: str) -> dict[str, set[str]]:
    """The files of a folder that import baselines, and what."""
    own = {path.relative_to(ROOT).as_posix(): imports(path) for path in (ROOT / folder).rglob("*.py")}
    found = {path: {name for name in names if f"{name}.".startswith(f"{BASELINES}.")} for path, names in own.items()}
    return {path: names for path, names in found.items() if names}


def test_the_library_and_its_tasks_import_no_baseline() -> None:
    assert [path for path in of_baselines("rpgmt") if not path.startswith("rpgmt/baselines/")] == []
    assert of_baselines("tasks") == {}


def test_of_the_tools_the_comparisons_alone_do() -> None:
    found = of_baselines("tools")
    assert found  # else the search finds nothing anywhere
    assert {path.rpartition("/")[0] for path in found} == {"tools/benchmarks/classification", "tools/benchmarks/sharing"}


def test_loading_training_and_evaluating_import_no_baseline() -> None:
    code = f"""
import sys, rpgmt, rpgmt.engine.loop, rpgmt.engine.evaluate, tasks.classification, tasks.multitask, tasks.pose
rpgmt.report(rpgmt.load({str(GOLDEN)!r}))
assert "rpgmt.rpg.bank" in sys.modules
print(*(name for name in sys.modules if f"{{name}}.".startswith("{BASELINES}.")))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout.strip() == ""
