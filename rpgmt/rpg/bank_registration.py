"""Where a bank is registered, and how it learns of it.

A bank must know the module that it is a child of: it generates at the start of that module's forward, and says so when it would
train unseen. torch tells a child nothing of that (`tests/rpg/test_registration.py` watches one being registered), and a layer
cannot see it later: a bank that was assigned to a second root, or to a list, looks the same from below. What is left is torch's
hook for registrations, which belongs to the whole process. So it is set when a process makes its first bank, and not on import;
it costs 0.3 µs a registration of any module (2.2 µs without it), and changes none. To search the memory for the owner instead
(`gc.get_referrers`) takes 70 ms a bank in a process that has imported torch, and comes too late for the errors below.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook


class Registration:
    """The place of one bank: its root, and the hooks there."""

    def __init__(self) -> None:
        self.root: nn.Module | None = None
        self._hooks: list[Any] = []

    def holds(self, bank: nn.Module) -> bool:
        """Whether the root still has the bank."""
        return self.root is not None and any(child is bank for child in self.root._modules.values())

    def move(self, bank: nn.Module, root: nn.Module, name: str, before: Callable[..., Any], after: Callable[..., Any]) -> None:
        """Makes `root` the bank's root.

        Args:
            bank: The bank.
            root: The module that it is about to become a child of.
            name: The child's name.
            before: To be called before the root's forwards.
            after: To be called after them, and after those that fail.

        Raises:
            ValueError: The bank has another place already, or the root has no forward.
        """
        if isinstance(root, nn.ModuleList | nn.ModuleDict):
            raise ValueError(
                f"a bank was put into an {type(root).__name__}: make it an attribute of the module whose forward uses it"
            )
        if self.root is not root and self.holds(bank):
            raise ValueError("the bank is registered on another module already: a bank is registered once, at the root")
        if any(child is bank and other != name for other, child in root._modules.items()):
            raise ValueError(f"the bank was put under the name `{name}` too: a bank is registered once, at the root")
        self._remove_hooks()
        self.root = root
        self._hooks = [root.register_forward_pre_hook(before), root.register_forward_hook(after, always_call=True)]

    def end(self, bank: nn.Module) -> None:
        """Takes the bank out of its root, if it has one."""
        self._remove_hooks()
        root, self.root = self.root, None
        if root is not None:
            for name in [name for name, child in root.named_children() if child is bank]:
                delattr(root, name)

    def _remove_hooks(self) -> None:
        for handle in self._hooks:
            handle.remove()
        self._hooks = []


@functools.cache
def tell_of_registrations(kind: type[nn.Module], tell: Callable[[Any, nn.Module, str], None]) -> None:
    """From now on `tell(child, parent, name)` is called before a child of type `kind` is registered; set once a process."""

    def hook(parent: nn.Module, name: str, child: nn.Module | None) -> None:
        if isinstance(child, kind):
            tell(child, parent, name)

    register_module_module_registration_hook(hook)
