"""Detectors of torchvision with their published weights."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from torch import nn

from rpgmt.detection.detector import DEFAULT_THRESHOLD, Corners, Detector
from rpgmt.engine.device import pick_device
from rpgmt.errors import UserError

SHORT_NAMES = {
    "fasterrcnn": "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet": "fasterrcnn_mobilenet_v3_large_fpn",
    "keypointrcnn": "keypointrcnn_resnet50_fpn",
    "retinanet": "retinanet_resnet50_fpn_v2",
    "ssdlite": "ssdlite320_mobilenet_v3_large",
}
"""Short names, and the functions of `torchvision.models.detection` that they stand for. Those have names too."""

PERSON = 1
"""Label of persons in all of torchvision's weights: COCO's ids, 0 is the background."""


class TorchvisionDetector(Detector):
    """A detector of torchvision, on any device, in batches.

    Args:
        name: one of `SHORT_NAMES`, or the name of a function of `torchvision.models.detection`.
        threshold: the lowest score that counts, from 0 to 1; None for 0.5.
        classes: labels that count, COCO's ids; None for persons.
        device: auto, or a name of torch's.
        batch_size: images that go through the network at once.
        published: with the published weights, downloaded when they are used first; False for random ones, for tests.

    Raises:
        UserError: there is no such detector or device, its weights cannot be had, the threshold is not from 0 to 1, or the
            batch size not above 0.
    """

    def __init__(
        self,
        name: str,
        *,
        threshold: float | None = None,
        classes: Sequence[int] | None = None,
        device: str = "auto",
        batch_size: int = 4,
        published: bool = True,
    ) -> None:
        super().__init__(DEFAULT_THRESHOLD if threshold is None else threshold, (PERSON,) if classes is None else classes)
        if batch_size < 1:
            raise UserError(f"`batch_size` is {batch_size}: give 1 or more")
        self._batch_size = batch_size
        self._device = torch.device(pick_device(device))
        self._network = _network(name, published).to(self._device).eval()

    @torch.inference_mode()
    def _detect(self, images: Sequence[np.ndarray]) -> list[Corners]:
        found = []
        for start in range(0, len(images), self._batch_size):
            batch = [
                torch.tensor(image, device=self._device).permute(2, 0, 1).float() / 255
                for image in images[start : start + self._batch_size]
            ]
            found += [
                Corners(*(result[key].cpu().numpy() for key in ("boxes", "scores", "labels")))
                for result in self._network(batch)
            ]
        return found


def _network(name: str, published: bool) -> nn.Module:
    from torchvision import models

    function = SHORT_NAMES.get(name, name)
    if function not in models.list_models(module=models.detection):
        names = ", ".join(SHORT_NAMES)
        raise UserError(f"`detector` is {name}: give {names}, another of torchvision's detectors, or an .onnx file")
    if not published:
        return models.get_model(function, weights=None, weights_backbone=None)
    weights = models.get_model_weights(function).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    try:
        # Looked at first by the reader that runs nothing; torchvision's own would run what a pickle says.
        with contextlib.redirect_stdout(sys.stderr):  # torch prints what it downloads; standard output is for results
            torch.hub.load_state_dict_from_url(weights.url, map_location="cpu", check_hash=True, weights_only=True)
        return models.get_model(function, weights=weights)
    except OSError as error:  # of urllib too
        reason = getattr(error, "reason", error)
        raise UserError(
            f"`detector` is {name}: its weights {file.name} are not in {file.parent} and cannot be downloaded ({reason}): "
            f"fetch {weights.url} and put the file there"
        ) from error
    except Exception as error:  # what unpickling raises on bytes that are no pickle is of any class
        raise UserError(f"{file}: not the weights of `detector` {name}: put {weights.url} there, or delete the file") from error
