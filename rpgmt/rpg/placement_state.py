"""What a checkpoint keeps of a bank beside its entries, so that they make the same weights again or are refused."""

from __future__ import annotations

import torch
from torch import Tensor

from rpgmt.rpg.layout import Layout
from rpgmt.rpg.placement import VERSION


def state_of(layout: Layout) -> Tensor:
    """(4 + layers,) int64: placement version, seed, bank number and checksum, and the bits of the layers' float64 scales,
    which were measured on weights that another model of the same placement does not have. A tensor, since safetensors takes
    nothing else, and not a buffer, since averaging of weights would average it."""
    placement = layout.placement
    scales = torch.tensor([segment.scale for segment in layout.segments], dtype=torch.float64)
    head = torch.tensor([VERSION, placement.seed, placement.bank, placement.checksum(layout.generated)], dtype=torch.int64)
    return torch.cat([head, scales.view(torch.int64)])


def other_scales(state: Tensor, layout: Layout) -> list[float] | None:
    """The scales of a saved state, where they are not those of `layout`.

    Raises:
        ValueError: The saved placement is another, or was averaged or cast with the entries.
    """
    if state.dtype != torch.int64:
        raise ValueError(f"`_extra_state` is {state.dtype}, no longer int64: copy it, do not average or cast it")
    saved, own = state.tolist(), state_of(layout).tolist()
    names = ("version", "seed", "bank number", "checksum", "layers")
    compared = [[*state[:4], len(state) - 4] for state in (saved, own)]
    for name, theirs, ours in zip(names, *compared, strict=True):
        if theirs != ours:
            raise ValueError(
                f"the saved bank was placed with {name} {theirs}, this one with {ours}: build the model with the same "
                "network, size, seed, scope and block as the saved one"
            )
    return None if saved == own else state[4:].cpu().clone().view(torch.float64).tolist()
