"""The networks that are compared: what each changes in the config."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rpgmt.config import BalanceConfig
from tasks.multitask import Config

NETWORKS: dict[str, dict[str, Any]] = {
    "one-stage": {"stages": 1, "sharing": "none"},
    "tied": {"sharing": "tied"},
    "rpg-stage": {"sharing": "rpg", "rpg_scope": "stage"},
    "rpg-block": {"sharing": "rpg", "rpg_scope": "block"},
    "rpg-global": {"sharing": "rpg", "rpg_scope": "global"},
    "none": {"sharing": "none"},
}
"""What each multi-task network changes in the model's config."""
CONSTANT, SINGLE = "constant", "single"
ROWS = (CONSTANT, SINGLE, *NETWORKS)
PREFIX = f"{SINGLE}-"
"""Of the networks of one task, before the task's name."""


def network_configs(config: Config, rows: Sequence[str]) -> dict[str, Config]:
    """The config of each network by its name; the row `single` is one network a task, `constant` is none."""
    networks = {}
    for row in rows:
        if row == SINGLE:
            for head, channels in (config.model.heads or {}).items():
                model = dataclasses.replace(config.model, heads={head: channels}, sharing="none")
                networks[f"{PREFIX}{head}"] = dataclasses.replace(config, model=model, balancing=BalanceConfig())
        elif row in NETWORKS:
            networks[row] = dataclasses.replace(config, model=dataclasses.replace(config.model, **NETWORKS[row]))
    return networks
