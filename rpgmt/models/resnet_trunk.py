"""The first half of a ResNet as a trunk, so that training starts from ImageNet's features.

torchvision takes seconds to import, so it is imported where a trunk is made.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rpgmt.errors import UserError


class ResNetTrunk(nn.Module):
    """Image to features at a quarter of its resolution: torchvision's ResNet up to its second stage.

    `layer1` has a quarter of the image's resolution, `layer2` an eighth; 1×1 convolutions give both the same channels, and
    `layer2` is enlarged to `layer1`'s size and added to it, as in a feature pyramid (Lin et al., arXiv 1612.03144, section 3).
    The parts of the ResNet have torchvision's names. Weights are random: see `load_trunk_weights`.

    Args:
        name: A ResNet of torchvision: resnet18, resnet34 or resnet50.
        channels: Channels of the output.
    """

    stride = 4

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        from torchvision.models import get_model

        resnet = get_model(name, weights=None)
        self.name = name
        self.conv1, self.bn1 = resnet.conv1, resnet.bn1
        self.relu, self.maxpool = resnet.relu, resnet.maxpool
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        width = resnet.fc.in_features // 8  # of layer1; each of the three stages after it doubles the channels
        self.lateral1 = nn.Conv2d(width, channels, 1)
        self.lateral2 = nn.Conv2d(2 * width, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), normalised by ImageNet's mean and deviation → (B, channels, H / 4, W / 4)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer1(x)
        fine, coarse = self.lateral1(x), self.lateral2(self.layer2(x))
        return fine + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")


def load_trunk_weights(model: nn.Module, source: str) -> str | None:
    """Gives a model's ResNet trunk weights that were trained before; its 1×1 convolutions keep their own.

    Args:
        model: A network. Where it has no trunk that is a ResNet, it is left as it is.
        source: "imagenet": torchvision's first weights for ImageNet, those of the field's published baselines, downloaded
            unless torch.hub's cache has them. "none": the trunk stays as it is. Otherwise a file with the state dict of the
            same ResNet (or with it under `state_dict`), .safetensors or torch.save's; `layer3`, `layer4` and `fc` are ignored.

    Returns:
        What was loaded, in words; None for nothing.

    Raises:
        UserError: No file or download, a file that holds no state dict or another network's, or a file for another trunk.
    """
    trunk = getattr(model, "trunk", None)
    if not isinstance(trunk, ResNetTrunk):
        if source not in ("imagenet", "none"):
            what = "the network has no trunk" if trunk is None else "the residual trunk has none to load, give --trunk resnet50"
            raise UserError(f"`trunk_weights` is {source!r}: {what}")
        return None
    if source == "none":
        return None
    if source == "imagenet":
        what, state = _download(trunk.name)
    else:
        what, state = source, _read(Path(source))
    _load(trunk, state, what)
    return what


def _load(trunk: ResNetTrunk, state: dict[str, Any], what: str) -> None:
    """Copies tensors into the trunk's ResNet by name; nothing is copied where one is missing, left over or of another shape."""
    state = {name.removeprefix("module."): value for name, value in state.items()}  # DistributedDataParallel's prefix
    own = {name: tensor for name, tensor in trunk.state_dict().items() if not name.startswith("lateral")}
    parts = {name.partition(".")[0] for name in own}
    given = {name: value for name, value in state.items() if name.partition(".")[0] in parts}
    for name in [*own, *given]:
        if name.endswith("num_batches_tracked"):  # older files have none, and nothing reads it
            continue
        shapes = [str(tuple(t[name].shape)) if name in t else "missing" for t in (given, own)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{what}: `{name}` is {shapes[0]} in the file and {shapes[1]} in the trunk: give weights of a {trunk.name}"
            )
    trunk.load_state_dict(given, strict=False)


def _read(file: Path) -> dict[str, Any]:
    """The state dict of a file; nothing of it is executed."""
    from safetensors.torch import load_file

    if not file.is_file():
        raise UserError(_no_weights(file, "no such file"))
    try:
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the readers fail in any way
        raise UserError(_no_weights(file, "cannot be read as safetensors or as tensors of torch.save")) from error
    if isinstance(state, dict):
        state = state.get("state_dict", state)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(_no_weights(file, "it holds no state dict"))
    return {str(name): tensor for name, tensor in state.items()}


def _no_weights(file: Path, reason: str) -> str:
    return f"`trunk_weights` is '{file}': {reason}, give a file of weights, imagenet or none"


def _download(name: str) -> tuple[str, dict[str, Any]]:
    """torchvision's weights and their name."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(name)["IMAGENET1K_V1"]
    try:
        state = weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # URLError is an OSError
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"`trunk_weights` is 'imagenet': {weights.url} cannot be had ({reason}): give --trunk-weights FILE or none"
        ) from error
    return f"torchvision's {weights}", dict(state)
