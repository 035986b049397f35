"""What holds for all measurements of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Setting:
    """What holds for all measurements of a run.

    Args:
        layers: sizes of the layers, repeated until there are as many weights as asked for.
        blocks: of our placements.
        rounds: turns of each kind.
        dtype: of the generated weights.
        device: where everything lies.
        split: whether ours is timed layer by layer, too.
        compile: whether a compiled generator is timed, too.
        queued: whether the device's time is taken alone.
    """

    layers: tuple[int, ...]
    blocks: tuple[int, ...]
    rounds: int
    dtype: torch.dtype
    device: torch.device
    split: bool
    compile: bool
    queued: bool
