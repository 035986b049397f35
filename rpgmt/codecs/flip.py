"""The flip test: the mean of the maps of an image and of its mirror image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def average_with_mirror(
    maps: Tensor, mirrored: Tensor, flip_order: Sequence[int], *, shift: int = 0, kind: Literal["logits", "values"]
) -> Tensor:
    """Mean of maps and of the mirror image's maps, mirrored back.

    Args:
        maps: (B, K, h, w), of the images.
        mirrored: (B, K, h, w), of `images.flip(-1)`.
        flip_order: for each of K key points the index of its mirror image (`KeypointSet.flip_order`).
        shift: cells by which the maps that are mirrored back move right, their first columns staying: the
            codec's `flip_shift`. A codec whose cells do not mirror onto each other needs one: with 1 cell for 4 pixels, the
            mirror image of x = 4 c is W - 1 - 4 c, three quarters of a cell off.
        kind: what the maps are. Of logits it is the probabilities that are averaged.

    Returns:
        (B, K, h, w), of the same kind; float32.
    """
    back = mirrored.float().flip(-1)[:, list(flip_order)]
    if shift:
        back = torch.cat([back[..., :shift], back[..., :-shift]], dim=-1)
    if kind == "values":
        return (maps.float() + back) / 2
    both = torch.stack([x.flatten(2).log_softmax(-1) for x in (maps.float(), back)])
    return (both.logsumexp(0) - math.log(2)).view_as(maps)
