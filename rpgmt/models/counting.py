"""What a model costs: parameters by kind, bytes, multiply-accumulates."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rpgmt.rpg.bake import bake
from rpgmt.rpg.report import report


def count(model: nn.Module, input_size: tuple[int, int]) -> dict[str, Any]:
    """Counts of a model, as `metrics.json` has them.

    Args:
        model: The root, converted or not.
        input_size: (width, height) of the image for which multiply-accumulates are counted.

    Returns:
        `parameters`: trainable (= bank + fixed), bank N, generated M, fixed, and signed, where weights learn signs: so many of
        the generated weights are trained themselves, and stored as magnitudes and signs, which N counts; `buffers`: elements;
        `macs`: multiply-accumulates of convolutions and matrix products for one image, which generated weights do not change.
    """
    counts = report(model)
    return {
        "parameters": {
            "trainable": counts.trainable,
            "bank": counts.bank,
            "generated": counts.generated,
            "fixed": counts.fixed,
            **({"signed": counts.signed} if counts.signed else {}),
        },
        "buffers": counts.buffers,
        "macs": count_macs(model, input_size),
    }


def count_macs(model: nn.Module, input_size: tuple[int, int], stop_after: int | None = None) -> int:
    """Multiply-accumulates of one forward pass over an image of (width, height) pixels.

    Args:
        model: The root, converted or not.
        input_size: (width, height) in pixels.
        stop_after: Count the first stages of a `Refinement` only, as its forward computes them.
    """
    # A baked copy without storage: shapes are all that is counted, and the model is left as it is.
    plain = bake(copy.deepcopy(model)).to("meta").eval()
    width, height = input_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        plain(torch.empty(1, 3, height, width, device="meta"), **({} if stop_after is None else {"stop_after": stop_after}))
    return int(counter.get_total_flops()) // 2
