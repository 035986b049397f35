"""The kinds of networks that `tools/benchmark.py step` compares: how the stages' weights come about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rpgmt.config import TrainConfig
from rpgmt.errors import UserError
from tools.benchmarks.common.flags import read_names


@dataclass(frozen=True)
class Kind:
    """How the stages' weights come about.

    Args:
        model: What that changes in the model's config.
        defer: Whether the weights are generated once for all batches of a step, and their gradients folded once.
    """

    model: Mapping[str, Any]
    defer: bool = True


NONE, TIED, RPG, UNDEFERRED, REGENERATE, SIGNED = "none", "tied", "rpg", "rpg-undeferred", "rpg-regenerate", "signed"
KINDS = {
    NONE: Kind({"sharing": "none"}),
    TIED: Kind({"sharing": "tied"}),
    RPG: Kind({"sharing": "rpg", "rpg_regenerate": False}),
    UNDEFERRED: Kind({"sharing": "rpg", "rpg_regenerate": False}, defer=False),
    REGENERATE: Kind({"sharing": "rpg", "rpg_regenerate": True}),
    SIGNED: Kind({"sharing": "signed"}),
}


def choose_kinds(text: str | None, train: TrainConfig) -> list[str]:
    """The kinds that `--kinds` names, or all; a line says which of them this training cannot show.

    Raises:
        UserError: A kind is unknown, or `none` is not among them.
    """
    if text is None:
        chosen = [kind for kind in KINDS if kind != UNDEFERRED or train.accumulate > 1]
    else:
        chosen = read_names("--kinds", text, KINDS)
        if NONE not in chosen:
            raise UserError(f"`--kinds` is {text!r}: the others are compared with {NONE}, add it")
    useless = {}
    if train.accumulate == 1:
        useless[UNDEFERRED] = f"with one batch a step it is {RPG}; give --accumulate"
    if train.compile:
        useless[UNDEFERRED] = f"a compiled network generates for every batch, so it is {RPG}"
        useless[REGENERATE] = "what a compiled network keeps for its backward pass is the compiler's choice"
    for kind in chosen:
        if kind in useless:
            print(f"{kind} is left out: {useless[kind]}")
    return [kind for kind in KINDS if kind in chosen and kind not in useless]
