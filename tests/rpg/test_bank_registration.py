"""How a bank learns where it is registered, and what that does to a process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn
from torch.nn.modules import module as torch_module

from rpgmt import Bank

WAYS: dict[str, Callable[[nn.Module], object]] = {
    "an attribute": lambda child: setattr(nn.Module(), "child", child),
    "add_module": lambda child: nn.Module().add_module("child", child),
    "register_module": lambda child: nn.Module().register_module("child", child),
    "Sequential": nn.Sequential,
    "append": lambda child: nn.Sequential().append(child),
    "ModuleList": lambda child: nn.ModuleList([child]),
    "ModuleDict": lambda child: nn.ModuleDict({"child": child}),
}


@pytest.mark.parametrize("way", WAYS)
def test_torch_tells_a_child_nothing(way: str) -> None:
    # Were this to fail, the hook for the whole process could go: a bank would be told in another way.
    asked: list[str] = []

    class Child(nn.Module):
        def __getattribute__(self, name: str) -> object:
            asked.append(name)
            return super().__getattribute__(name)

    child = Child()
    asked.clear()
    WAYS[way](child)
    assert set(asked) <= {"__class__"}  # what it is


def test_other_modules_are_registered_as_ever() -> None:
    Bank(3)  # the hook is set
    for child in (nn.Linear(2, 2), None):
        root = nn.Module()
        root.add_module("child", child)
        assert root.child is child
        assert not root._forward_pre_hooks
        assert not root._forward_hooks


_COUNT = """
from torch.nn.modules import module as torch_module
hooks = torch_module._global_module_registration_hooks
before = len(hooks)
import rpgmt
from torch import nn
rpgmt.Bank, rpgmt.RPGConv2d, rpgmt.load
rpgmt.report(rpgmt.bake(nn.Sequential(nn.Linear(2, 2))))
imported = len(hooks)
rpgmt.convert(nn.Sequential(nn.Linear(2, 2)), 3)
first = len(hooks)
rpgmt.convert(nn.Sequential(nn.Linear(2, 2)), 3)
print(before, imported, first, len(hooks))
everywhere = [name for name in vars(torch_module) if name.startswith("_global_") and name.endswith("_hooks")]
print(*[name for name in everywhere if vars(torch_module)[name]])
"""


def run(script: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_process_has_one_hook_and_only_with_its_first_bank() -> None:
    assert "_global_module_registration_hooks" in vars(torch_module)
    assert run(_COUNT) == ["0 0 1 1", "_global_module_registration_hooks"]


_UNPICKLE = """
import pickle, sys
from torch import nn
bank = pickle.loads(open(sys.argv[1], "rb").read()).bank
try:
    nn.Module().bank = bank
except ValueError as error:
    print(error)
"""


def test_an_unpickled_bank_notices_where_it_is_put(tmp_path: Path) -> None:
    root = nn.Module()
    root.bank = Bank(3)
    (tmp_path / "root").write_bytes(pickle.dumps(root))
    # The root is gone with its only reference, and the bank still points to it.
    assert run(_UNPICKLE, str(tmp_path / "root")) == [
        "the bank is registered on another module already: a bank is registered once, at the root"
    ]
