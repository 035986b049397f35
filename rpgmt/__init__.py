"""Networks whose repeated stages are generated from a small bank of parameters."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rpgmt.rpg.bank import Bank
    from rpgmt.rpg.convert import bake, convert
    from rpgmt.rpg.layers import RPGConv2d, RPGConvTranspose2d, RPGLinear
    from rpgmt.rpg.optim import parameter_groups
    from rpgmt.rpg.report import report

__all__ = [
    "Bank",
    "RPGConv2d",
    "RPGConvTranspose2d",
    "RPGLinear",
    "bake",
    "convert",
    "parameter_groups",
    "report",
]

_HOMES = {
    "Bank": "rpgmt.rpg.bank",
    "RPGConv2d": "rpgmt.rpg.layers",
    "RPGConvTranspose2d": "rpgmt.rpg.layers",
    "RPGLinear": "rpgmt.rpg.layers",
    "bake": "rpgmt.rpg.convert",
    "convert": "rpgmt.rpg.convert",
    "parameter_groups": "rpgmt.rpg.optim",
    "report": "rpgmt.rpg.report",
}


def __getattr__(name: str) -> Any:
    # Looked up when it is used: the command line parses and answers --help without waiting for torch.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rpgmt' has no attribute {name!r}")
