"""Who imports whom: read from the source, imports inside functions too; `if TYPE_CHECKING` aside, which runs nothing."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def modules_of(root: Path, package: str) -> dict[str, Path]:
    """The modules of a package by name."""
    names = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(name: str, path: Path, known: dict[str, Path], *, for_types: bool = False) -> set[str]:
    """What the module `name` imports, with what it imports `for_types` alone if asked: of `known` the module itself, of others
    the name as it is written.

    Whoever imports a module runs the packages around it as well; but a package is a circle with its parts only where it names
    them, so those are left out.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree) if for_types else nodes_that_run(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # `from package import x`: x may be a module, or a name in the package's own file.
            found |= {inner if (inner := f"{base}.{alias.name}") in known else base for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return found


def nodes_that_run(node: ast.AST, *, inside: bool = True) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`, and those `inside` functions or not."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not inside and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield from nodes_that_run(other, inside=inside)
        else:
            yield from nodes_that_run(child, inside=inside)


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Groups of modules of which each reaches every other (strongly connected components), and those that import themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in graph.get(waiting.pop(), set()) - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reach = {name: reached(name) for name in graph}
    return {frozenset(b for b in reach[a] if a in reach.get(b, set())) for a in graph if a in reach[a]}


MODULES = modules_of(ROOT, "rpgmt")
GRAPH = {name: imported(name, path, MODULES) for name, path in MODULES.items()}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_no_two_modules_import_each_other() -> None:
    found = circles({name: others & MODULES.keys() for name, others in GRAPH.items()})
    assert found == set()


def test_the_generators_modules_need_no_other_in_turn_even_for_types() -> None:
    inside = {name: path for name, path in MODULES.items() if within(name, "rpgmt.rpg")}
    graph = {name: imported(name, path, inside, for_types=True) & inside.keys() for name, path in inside.items()}
    assert circles(graph) == set()


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("rpgmt", ("tasks", "tools", "tests")),
        ("rpgmt.models", ("rpgmt.data", "rpgmt.engine")),
        ("rpgmt.rpg.backends.index_tables", ("rpgmt.rpg.backends.block_tables", "rpgmt.rpg.backends.fused", "triton")),
        ("rpgmt.rpg.backends.block_tables", ("rpgmt.rpg.backends.index_tables", "rpgmt.rpg.backends.fused", "triton")),
        ("rpgmt.rpg.backends.fused", ("rpgmt.rpg.backends.index_tables", "rpgmt.rpg.backends.block_tables")),
        ("rpgmt.rpg.backends", ("rpgmt.rpg.generate", "rpgmt.rpg.bank")),
    ],
)
def test_a_room_knows_nothing_of_the_rooms_above_it(package: str, others: tuple[str, ...]) -> None:
    inside = [name for name in GRAPH if within(name, package)]
    assert inside
    assert {(name, other) for name in inside for other in GRAPH[name] if within(other, *others)} == set()


def test_the_generator_imports_nothing_of_the_rest() -> None:
    inside = [name for name in GRAPH if within(name, "rpgmt.rpg")]
    assert "rpgmt.rpg.bank" in inside
    wrong = {(a, b) for a in inside for b in GRAPH[a] if within(b, "rpgmt") and not within(b, "rpgmt.rpg")}
    assert wrong == set()


def test_imports_of_every_form_are_seen(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "",
        "p/a.py": "def f():\n    from p import b\n",
        "p/b.py": "import p.c\n",
        "p/c.py": "from .a import f\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.d import g\n",
        "p/d.py": "from . import c\n",
        "p/e/__init__.py": "from .h import x\n",
        "p/e/h.py": "from importlib import import_module\nimport_module('p.e')\nx = 0\n",
        "p/i.py": "from . import i\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    known = modules_of(tmp_path, "p")
    graph = {name: imported(name, path, known) for name, path in known.items()}
    assert graph["p.a"] == {"p.b"}
    assert graph["p.c"] == {"p.a", "typing"}
    assert imported("p.c", known["p.c"], known, for_types=True) == {"p.a", "p.d", "typing"}
    assert graph["p.d"] == {"p.c"}
    assert circles(graph) == {frozenset({"p.a", "p.b", "p.c"}), frozenset({"p.e", "p.e.h"}), frozenset({"p.i"})}


def test_data_knows_nothing_of_the_people_that_are_drawn_nor_of_training() -> None:
    users = ("rpgmt.synthetic", "rpgmt.heads", "rpgmt.metrics", "rpgmt.engine", "rpgmt.models")
    data = {name: found for name, found in GRAPH.items() if within(name, "rpgmt.data")}
    assert "rpgmt.data.regions" in data["rpgmt.data.crops"]  # it sees something
    for name, found in data.items():
        assert not [other for other in found if within(other, *users)], name


def test_tests_are_collected_without_what_only_some_of_them_need() -> None:
    """They import it inside, or begin with `pytest.importorskip`; also where a helper of theirs needs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lists = [*project["project"]["optional-dependencies"].values(), project["dependency-groups"]["dev"]]
    names = {re.split(r"[^\w-]", line)[0].replace("-", "_") for lines in lists for line in lines}
    extras = names - {"rpgmt", "pytest", "pytest_xdist", "ruff", "mypy"}
    assert {"onnx", "torch_pruning", "hypothesis"} <= extras

    def needs(path: Path) -> set[str]:
        nodes = list(nodes_that_run(ast.parse(path.read_text(encoding="utf-8")), inside=False))
        words = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                words |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.importorskip"]
        helpers = [ROOT / "tests" / f"{word.replace('.', '/')}.py" for word in words if word.startswith("helpers.")]
        found = {word.partition(".")[0] for word in words} & extras
        found |= {extra for helper in helpers if helper.is_file() for extra in needs(helper)}
        return found - {ast.literal_eval(node.args[0]) for node in calls}

    assert needs(ROOT / "tests/helpers/mutated_kind.py") == {"hypothesis"}
    for pattern in ("test_*.py", "conftest.py"):
        for path in (ROOT / "tests").rglob(pattern):
            assert not needs(path), path
