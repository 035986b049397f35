"""A predictor with the network of a config, untrained."""

from __future__ import annotations

from typing import Any

import torch

from rpgmt import models
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.prediction.meaning import KeypointMaps, Reading
from rpgmt.prediction.network import TorchNetwork
from rpgmt.prediction.predictor import Predictor

STRIDE = 4
"""Input pixels in a cell of the heat maps."""


def untrained(config: Any, device: str, detector: str | None) -> Predictor:
    """The predictor of COCO's key points, in batches of 16, as `predict` makes it.

    Args:
        config: of the task pose.
        device: where the network runs.
        detector: its name or file; None: none.
    """
    from rpgmt.detection import make_detector

    torch.manual_seed(0)
    head = KeypointMaps(
        keypoints=COCO_KEYPOINTS,
        codec=config.codec,
        stride=STRIDE,
        sigma=config.sigma,
        logits=config.loss == "cross_entropy",
        flip_shift=0,
    )
    reading = Reading(input_size=config.model.input_size, cut="people", padding=config.data.padding, heads={"keypoints": head})
    network = TorchNetwork(models.build(config.model.with_heads()), reading, device)
    found = None if detector is None else make_detector(detector, device=device)
    return Predictor(network, detector=found, every_stage=False)
