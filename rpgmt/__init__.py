"""Networks whose repeated stages are generated from a small bank of parameters."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rpgmt.engine.model_file import load_model as load
    from rpgmt.prediction.predictor import Predictor
    from rpgmt.rpg.bake import bake
    from rpgmt.rpg.bank import Bank
    from rpgmt.rpg.convert import convert
    from rpgmt.rpg.kept_weights import defer_gradients
    from rpgmt.rpg.layers import RPGConv2d, RPGConvTranspose2d, RPGLinear
    from rpgmt.rpg.learned_signs import learn_signs, made_together, set_firmness
    from rpgmt.rpg.optim import parameter_groups
    from rpgmt.rpg.report import report

__all__ = [
    "Bank",
    "Predictor",
    "RPGConv2d",
    "RPGConvTranspose2d",
    "RPGLinear",
    "bake",
    "convert",
    "defer_gradients",
    "learn_signs",
    "load",
    "made_together",
    "parameter_groups",
    "report",
    "set_firmness",
]

_HOMES = {
    "Bank": "rpgmt.rpg.bank:Bank",
    "Predictor": "rpgmt.prediction.predictor:Predictor",
    "RPGConv2d": "rpgmt.rpg.layers:RPGConv2d",
    "RPGConvTranspose2d": "rpgmt.rpg.layers:RPGConvTranspose2d",
    "RPGLinear": "rpgmt.rpg.layers:RPGLinear",
    "bake": "rpgmt.rpg.bake:bake",
    "convert": "rpgmt.rpg.convert:convert",
    "defer_gradients": "rpgmt.rpg.kept_weights:defer_gradients",
    "learn_signs": "rpgmt.rpg.learned_signs:learn_signs",
    "load": "rpgmt.engine.model_file:load_model",
    "made_together": "rpgmt.rpg.learned_signs:made_together",
    "parameter_groups": "rpgmt.rpg.optim:parameter_groups",
    "report": "rpgmt.rpg.report:report",
    "set_firmness": "rpgmt.rpg.learned_signs:set_firmness",
}


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    # Looked up when it is used: the command line parses and answers --help without waiting for torch.
    if name in _HOMES:
        module, _, attribute = _HOMES[name].partition(":")
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'rpgmt' has no attribute {name!r}")
