"""Which module of the library imports which: no circles, and the packages of the data in one direction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import rpgmt

ROOT = Path(rpgmt.__file__).parent


def _imported(node: ast.AST) -> Iterator[str]:
    """Names that are imported anywhere in a module, in functions too, but for those of type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and child.module:
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        yield from _imported(child)


def _graph() -> dict[str, set[str]]:
    """Module → the modules of the library that it imports."""
    files = {".".join(("rpgmt", *path.relative_to(ROOT).with_suffix("").parts)): path for path in ROOT.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = {part if part in modules else part.rpartition(".")[0] for part in _imported(ast.parse(path.read_text()))}
        graph[name] = (found & modules.keys()) - {name}
    return graph


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = _graph()
    assert "rpgmt.data.regions" in graph["rpgmt.data.crops"]  # it sees something
    assert "rpgmt.rpg.placement" in graph["rpgmt.data.random_numbers"]  # in functions too
    list(TopologicalSorter(graph).static_order())  # a CycleError names the modules of a circle


def test_data_know_nothing_of_the_people_that_are_drawn_and_of_training() -> None:
    graph = _graph()
    users = ("rpgmt.synthetic", "rpgmt.heads", "rpgmt.metrics", "rpgmt.engine", "rpgmt.models")
    for module, imported in graph.items():
        if module.startswith("rpgmt.data"):
            assert not [name for name in imported if name.startswith(users)], module
        if module.startswith("rpgmt.synthetic"):
            assert not [name for name in imported if name.startswith(users[1:])], module
