"""ResNets that say which class an image is of, with weights that are generated, shared or independent.

Built of torchvision's residual blocks, under torchvision's names. torchvision takes seconds to import, so it is imported where
a network is made.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any, cast

import torch
from torch import Tensor, nn

from rpgmt.config import ClassifierConfig
from rpgmt.errors import UserError
from rpgmt.rpg.size import parse_size

HEAD = "class"
"""The name of the one prediction."""

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""Residual blocks of layer1 … layer4 (He et al., arXiv 1512.03385, table 1)."""

CHANNELS = (64, 128, 256, 512)
"""Of layer1 … layer4 at width 1; a bottleneck block, of resnet50, gives out four times as many."""

STRIDES = {"3x3": 8, "7x7": 32}
"""Pixels of the input for one cell of layer4, by stem."""


GENERATED = "layer*"
"""Pattern of the layers that are generated, the paper's choice: all convolutions but the first, downsampling ones too."""


class Classifier(nn.Module):
    """A ResNet: image to a logit for each class. At width 1 and with stem 7x7 it is torchvision's, tensor by tensor.

    All weights are independent until `tie_blocks(model)` or `rpgmt.convert(model, …, include=["layer*"])` makes blocks
    share. First convolution, norms and the last layer are shared by nobody.

    Args:
        network: resnet18, resnet34 or resnet50.
        stem: "7x7": 7×7 of stride 2 and a pooling. "3x3": 3×3 of stride 1, for images of some 32 pixels.
        width: Factor on the channels of all layers, which are rounded, and at least 1.
        classes: Number of logits.
    """

    def __init__(self, network: str, stem: str, width: float, classes: int) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock, Bottleneck

        block = Bottleneck if network == "resnet50" else BasicBlock
        channels = [max(1, round(width * count)) for count in CHANNELS]
        small = stem == "3x3"
        self.conv1 = nn.Conv2d(3, channels[0], 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        inputs = channels[0]
        layers: list[nn.Sequential] = []
        for outputs, count in zip(channels, BLOCKS[network], strict=True):
            layers.append(_layer(block, inputs, outputs, count, stride=2 if layers else 1))
            inputs = outputs * block.expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # torchvision's initialiser; that of norms and fc is torch's
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Logits.

        Args:
            images: (B, 3, H, W), normalised by ImageNet's mean and deviation; any size.

        Returns:
            As all networks here, for each stage a dict head → tensor: one stage, {"class": (B, classes)}.
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return [{HEAD: self.fc(self.avgpool(x).flatten(1))}]

    def bank_scope(self, scope: str, layer: str) -> str:
        """Name of the bank for a layer, for `rpgmt.convert`.

        Args:
            scope: "block": one for each of the paper's building blocks, layer1 … layer4 (arXiv 2107.07110, local RPGs).
            layer: The layer's name, `layer<i>.<block>.<…>`.
        """
        if scope != "block":
            raise ValueError(f"`scope` is {scope!r}: must be one of global, block")
        return layer.partition(".")[0]


def _layer(block: Any, inputs: int, channels: int, count: int, stride: int) -> nn.Sequential:
    """Residual blocks in a row; a 1×1 convolution takes the first one's input along where its shape changes."""
    outputs = channels * block.expansion
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(block(inputs, channels, stride, shortcut), *(block(outputs, channels) for _ in range(count - 1)))


def tie_blocks(model: Classifier) -> None:
    """Gives the residual blocks of a layer the same convolution weights, as the same parameters; norms stay the block's own.

    Each convolution takes the weight of the layer's first block that has one of its name and shape: a layer's first block
    has other channels coming in, so its first convolution stays alone.
    """
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        first: dict[tuple[str, torch.Size], nn.Parameter] = {}
        for block in layer:
            for name, module in block.named_modules():
                if isinstance(module, nn.Conv2d):
                    own = cast(nn.Parameter, module.weight)
                    module.weight = first.setdefault((name, own.shape), own)


def matching_width(config: ClassifierConfig, parameters: int) -> float:
    """The width at which the network without sharing has as many trainable parameters as a given one.

    Args:
        config: Says which network; its width and sharing play no part.
        parameters: The count to meet.

    Returns:
        A multiple of 1/512 (one channel of layer4), from 1/512 to 16: of all such widths one whose count is nearest.
    """

    def count(channels: int) -> int:
        return sum(parameter.numel() for parameter in _on_meta(config, channels / CHANNELS[-1]).parameters())

    low, high = 1, 16 * CHANNELS[-1]  # bisection: the count never falls as channels grow
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    return min((low, high), key=lambda channels: abs(count(channels) - parameters)) / CHANNELS[-1]


def generated_weights(config: ClassifierConfig) -> int:
    """M: weights of the layers that are generated with sharing rpg."""
    layers = _on_meta(config, config.width).named_modules()
    return sum(m.weight.numel() for name, m in layers if fnmatch(name, GENERATED) and isinstance(m, nn.Conv2d))


def rpg_parameters(config: ClassifierConfig) -> int:
    """Trainable parameters that the network has with sharing rpg: N + fixed."""
    generated = generated_weights(config)
    total = sum(parameter.numel() for parameter in _on_meta(config, config.width).parameters())
    return total - generated + parse_size(config.rpg_size, generated)


def check_batch_size(config: ClassifierConfig, batch_size: int) -> None:
    """Raise UserError where batch norm would see a single value of each channel, in layer4."""
    width, height = (-(-side // STRIDES[config.stem]) for side in config.input_size)
    if batch_size * width * height == 1:
        raise UserError(
            "`batch_size` is 1: one cell is left in layer4, of which batch norm learns nothing: give more, "
            "--stem 3x3 or a larger --input-size"
        )


def build_classifier(config: ClassifierConfig) -> Classifier:
    """The network of a config with independent weights, or tied ones; generation is `rpgmt.models.build`'s."""
    width = matching_width(config, rpg_parameters(config)) if config.sharing == "narrow" else config.width
    model = Classifier(config.network, config.stem, width, config.classes)
    if config.sharing == "tied":
        tie_blocks(model)
    return model


def _on_meta(config: ClassifierConfig, width: float) -> Classifier:
    """The network by shapes alone, in milliseconds."""
    with torch.device("meta"):
        return Classifier(config.network, config.stem, width, config.classes)
