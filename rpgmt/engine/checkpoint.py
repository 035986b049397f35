"""Checkpoints: all that training needs to go on, in one file that is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rpgmt.errors import UserError


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; whoever pulls the plug finds the old one or the new one."""
    import torch  # here, for those who only ask what is in a run folder

    replace_file(path, lambda temporary: torch.save(dict(state), temporary))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing of it is executed.

    Raises:
        UserError: it is not whole.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        advice = "put best.ckpt in its place, or start again with another --out"
        raise UserError(f"{path} is not a whole checkpoint: {advice}") from error


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` make a file beside ``path``, which then takes its place."""
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    os.replace(temporary, path)
