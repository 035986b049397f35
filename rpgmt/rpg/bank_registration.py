"""Where a bank is registered, and how it learns of it.

A bank must know its *root*, the module whose forward uses its layers: it generates at the start of that forward, and says so
when it would train unseen. torch tells a child nothing of where it is put (`tests/rpg/test_bank_registration.py` watches one
being registered), and a layer cannot see it later: a bank that was assigned to a second root, or to a list, looks the same from
below. What is left is torch's hook for registrations, which belongs to the whole process. So it is set when a process makes its
first bank, and not on import; it costs 0.3 µs a registration of any module (2.2 µs without it), and changes none. To search the
memory for the owner instead (`gc.get_referrers`) takes 70 ms a bank in a process that has imported torch, and comes too late
for the errors below.

The bank is a child of its root, but not of one whose children are counted (`nn.Sequential` and the like): there it would be the
last of them, and the first to go when a head is taken off. It is a child of the first layer that it generates instead.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook


class Registration:
    """The place of one bank: its root, and the hooks there.

    Attributes:
        root: The module whose forward uses the bank's layers.
        holder: The layer that holds the bank for a root whose children are counted.
    """

    def __init__(self) -> None:
        self.root: nn.Module | None = None
        self.holder: nn.Module | None = None
        self._path: Sequence[str] = ()  # where the bank was last seen
        self._alias = ""  # its name as an attribute of the root
        self._hooks: list[Any] = []

    def holds(self, bank: nn.Module) -> bool:
        """Whether the bank is still somewhere in the root."""
        if self.root is None:
            return False
        module: nn.Module | None = self.root
        for name in self._path:
            module = module._modules.get(name) if module is not None else None
        if module is bank:
            return True
        found = next((name for name, module in self.root.named_modules() if module is bank), None)
        self._path = () if found is None else found.split(".")
        return found is not None

    def check(self, bank: nn.Module, what: str) -> None:
        """Sees to it that the root has the bank.

        Raises:
            RuntimeError: It has not; `what` is what to call the bank.
        """
        if not self.holds(bank):
            raise RuntimeError(
                f"{what} would train unseen by the optimizer: it is not registered on the model, or no more; make it an "
                "attribute of the root, `self.bank = Bank(…)`, or call `rpgmt.bake(model)` before you take layers out"
            )

    def check_copy(self, bank: nn.Module, memo: dict[int, Any]) -> None:
        """Sees to it that the bank is copied with its root.

        Raises:
            RuntimeError: The root is not in `memo`, that of `deepcopy`.
        """
        if id(self.root) not in memo and self.holds(bank):
            raise RuntimeError(
                "a part of a model was copied without its bank, and would train apart from it: copy the whole model, or "
                "the part of a copy that went through `rpgmt.bake`"
            )

    def move(self, bank: nn.Module, root: nn.Module, name: str, before: Callable[..., Any], after: Callable[..., Any]) -> None:
        """Makes `root` the bank's root, of which it is about to become a child.

        Args:
            bank: The bank.
            root: The module.
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
        if (self.root is not root or self.holder is not None) and self.holds(bank):
            raise ValueError("the bank is registered on another module already: a bank is registered once, at the root")
        if any(child is bank and other != name for other, child in root._modules.items()):
            raise ValueError(f"the bank was put under the name `{name}` too: a bank is registered once, at the root")
        self._begin(root, before, after)
        self._path = (name,)

    def lend(
        self,
        bank: nn.Module,
        root: nn.Module,
        name: str,
        before: Callable[..., Any],
        after: Callable[..., Any],
        layers: Sequence[nn.Module],
    ) -> None:
        """Makes `root` the bank's root, and puts the bank into the first of `layers`, which are somewhere in it.

        As an attribute that is no child the bank is the root's, too.
        """
        self._begin(root, before, after)
        counts = Counter(id(module) for _, module in root.named_modules(remove_duplicate=False))
        self.holder = next((layer for layer in layers if counts[id(layer)] == 1), layers[0])  # one is saved once
        self.holder._modules["bank"] = bank
        self._alias = name
        root.__dict__[name] = bank
        self._hooks.append(root.register_load_state_dict_pre_hook(self._read_old_names))

    def _begin(self, root: nn.Module, before: Callable[..., Any], after: Callable[..., Any]) -> None:
        self._remove_hooks()
        self.root, self.holder, self._path, self._alias = root, None, (), ""
        self._hooks = [root.register_forward_pre_hook(before), root.register_forward_hook(after, always_call=True)]

    def _read_old_names(self, root: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Finds the bank's entries in states that were saved when it was the root's own child."""
        bank = root.__dict__.get(self._alias)
        if bank is None or not self.holds(bank):
            return
        for entry in ("values", "_extra_state"):
            old, new = f"{prefix}{self._alias}.{entry}", f"{prefix}{'.'.join(self._path)}.{entry}"
            if old in state and new not in state:
                state[new] = state.pop(old)

    def end(self, bank: nn.Module) -> None:
        """Takes the bank out of its root, if it has one."""
        self._remove_hooks()
        root, self.root, self.holder = self.root, None, None
        if root is None:
            return
        for module in list(root.modules()):
            for name in [name for name, child in module._modules.items() if child is bank]:
                del module._modules[name]
        if root.__dict__.get(self._alias) is bank:
            del root.__dict__[self._alias]

    def _remove_hooks(self) -> None:
        for handle in self._hooks:
            handle.remove()
        self._hooks = []


def counts_its_children(root: nn.Module) -> bool:
    """Whether a child more would change what `root` is: its length, its indices, what it iterates."""
    return isinstance(root, nn.Sequential | nn.ModuleList | nn.ModuleDict)


@functools.cache
def tell_of_registrations(kind: type[nn.Module], tell: Callable[[Any, nn.Module, str], None]) -> None:
    """From now on `tell(child, parent, name)` is called before a child of type `kind` is registered; set once a process."""

    def hook(parent: nn.Module, name: str, child: nn.Module | None) -> None:
        if isinstance(child, kind):
            tell(child, parent, name)

    register_module_module_registration_hook(hook)
