"""A multiscale deep equilibrium classifier, the implicit network that generated networks are compared with.

Its features are the solution z* of z = f(z, image) at several resolutions at once: one shallow transformation f, applied until
nothing changes, stands for a network of any depth (Bai, Koltun and Kolter, arXiv 2006.08656). Where the paper leaves a choice
open, this follows the authors' networks for CIFAR in github.com/locuslab/deq (MDEQ-Vision). torchdeq solves the equation and
differentiates through the solution; it is an extra and is imported where a network is made.
"""

from __future__ import annotations

import itertools
import math
import types
import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from rpgmt.errors import UserError

EXPANSION = 5.0
"""Channels inside a residual block over those outside, in the authors' networks for CIFAR."""


class EquilibriumBlock(nn.Module):
    """Residual block of one resolution (section 3, figure 2): two 3×3 convolutions, the image added after the second.

    Group norms keep the iterates bounded, since nothing else does when the block is applied again and again.

    Args:
        channels: Channels of input and output.
        inner: Channels between the convolutions.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = weight_norm(nn.Conv2d(channels, inner, 3, padding=1, bias=False))
        self.norm1 = _group_norm(inner)
        self.conv2 = weight_norm(nn.Conv2d(inner, channels, 3, padding=1, bias=False))
        self.norm2 = _group_norm(channels)
        self.norm3 = _group_norm(channels)

    def forward(self, x: Tensor, mask: Tensor, injection: Tensor | None) -> Tensor:
        """(B, channels, H, W), shape kept; the dropout mask and the injected features have the same shape."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.conv2(y) * mask
        if injection is not None:
            y = y + injection
        return self.norm3(F.relu(x + self.norm2(y)))


class Fusion(nn.Module):
    """Every resolution receives the sum of all of them, then ReLU, 1×1 convolution and norm (section 3).

    Upwards: 1×1 convolution and norm, then nearest neighbours. Downwards: a 3×3 convolution of stride 2 for each halving.

    Args:
        channels: Channels of each resolution, the highest first.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        scales = range(len(channels))
        self.paths = nn.ModuleList(
            nn.ModuleList(self._path(channels, source, target) for source in scales if source != target) for target in scales
        )
        self.mix = nn.ModuleList(weight_norm(nn.Conv2d(c, c, 1, bias=False)) for c in channels)
        # Without scale and offset, as in the authors' configurations for CIFAR.
        self.norms = nn.ModuleList(nn.GroupNorm(math.gcd(4, c), c, affine=False) for c in channels)

    @staticmethod
    def _path(channels: Sequence[int], source: int, target: int) -> nn.Sequential:
        ends = channels[source], channels[target]
        if source > target:
            return nn.Sequential(
                nn.Conv2d(*ends, 1, bias=False), _group_norm(ends[1]), nn.Upsample(scale_factor=2 ** (source - target))
            )
        layers: list[nn.Module] = []
        for step in range(source + 1, target + 1):
            outputs = ends[step == target]
            layers += [nn.Conv2d(ends[0], outputs, 3, stride=2, padding=1, bias=False), _group_norm(outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])  # no ReLU before the sum

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """(B, channels[i], H / 2^i, W / 2^i) for each resolution i, shapes kept."""
        outputs = []
        for target, own in enumerate(features):
            others = [other for source, other in enumerate(features) if source != target]
            paths = cast(nn.ModuleList, self.paths[target])
            total = own + sum(path(other) for path, other in zip(paths, others, strict=True))
            outputs.append(self.norms[target](self.mix[target](F.relu(total))))
        return outputs


class ScaleHead(nn.Module):
    """Bottleneck of the classifier for one resolution, to four times its width (He et al., arXiv 1512.03385, section 4.1)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
        )
        self.skip = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, 4 · width, H, W)."""
        return F.relu(self.body(x) + self.skip(x))


class MultiscaleEquilibrium(nn.Module):
    """image → injection → equilibrium of all resolutions → one classifier over them (arXiv 2006.08656, section 3).

    Defaults are the shape of the authors' small network for CIFAR-10 (159K parameters here), with the solver settings of
    their released configuration: Broyden's method, at most 18 steps forward and 20 backward, relative error. Gradients are
    those of the implicit function theorem. Their warm-up by a shallow unrolled network is left out.

    After a forward pass `function_evaluations` is the number of times that f was evaluated, which all images of a batch
    share, since the solver goes on until the worst of them is solved; `residual` is the relative error |f(z) - z| / |f(z)| of
    that worst image. An image's output so depends on its batch, within the tolerance.

    On the meta device, where multiply-accumulates are counted, f is evaluated as often as an inference does at most.

    The solver runs in the parameters' precision under autocast too: bfloat16 resolves relative differences of 2⁻⁸ ≈ 0.004,
    more than the tolerance.

    Args:
        classes: Number of classes.
        channels: Channels of each resolution, 2 to 4 of them, the highest resolution (the image's) first; even numbers.
        expansion: Channels inside a residual block, in multiples of its channels.
        final: Channels before the last linear layer; those of the authors' small network in proportion by default.
        dropout: Probability in the residual blocks; one mask serves all evaluations of f, or there would be no equilibrium.
        iterations: Steps of the solver in a forward pass, at most.
        backward_iterations: The same for the linear equation of the backward pass.
        tolerance: Relative error at which both stop.

    Raises:
        UserError: torchdeq is missing, or `channels` is not of that kind.
    """

    function_evaluations: int
    residual: float

    def __init__(
        self,
        classes: int,
        channels: Sequence[int] = (24, 24),
        *,
        expansion: float = EXPANSION,
        final: int | None = None,
        dropout: float = 0.25,
        iterations: int = 18,
        backward_iterations: int = 20,
        tolerance: float = 1e-3,
    ) -> None:
        super().__init__()
        _torchdeq()  # its absence is told here, not in the first batch
        if not 2 <= len(channels) <= 4 or any(c < 4 or c % 2 for c in channels):
            raise UserError(f"`channels` is {tuple(channels)}: give 2 to 4 even numbers of at least 4, one for each resolution")
        self.channels = tuple(channels)
        self.dropout = dropout
        self.iterations, self.backward_iterations, self.tolerance = iterations, backward_iterations, tolerance

        first = channels[0]
        self.injection = nn.Sequential(*_convolution(3, first), *_convolution(first, first))
        self.blocks = nn.ModuleList(EquilibriumBlock(c, max(4, 4 * round(expansion * c / 4))) for c in channels)
        self.fusion = Fusion(channels)

        widths = [max(1, first * 2**i // 3) for i in range(len(channels))]  # 8 and 16 in the authors' small network
        self.heads = nn.ModuleList(ScaleHead(c, width) for c, width in zip(channels, widths, strict=True))
        self.downsample = nn.ModuleList(
            nn.Sequential(*_convolution(4 * a, 4 * b, stride=2)) for a, b in itertools.pairwise(widths)
        )
        final = 25 * widths[-1] // 2 if final is None else final
        self.final = nn.Sequential(nn.Conv2d(4 * widths[-1], final, 1), nn.BatchNorm2d(final), nn.ReLU())
        self.classifier = nn.Linear(final, classes)
        self._start_contractive()

    def _start_contractive(self) -> None:
        """Scales of norms with which the image outweighs the state in f, so that an equilibrium is found from the start.

        With all scales at 1, f is no contraction: 18 steps of Broyden's method leave a relative error of 0.2 to 0.4. The
        authors train an unrolled network first; here what lower resolutions keep and send back starts small.
        """
        for i, block in enumerate(self.blocks):
            nn.init.constant_(cast(EquilibriumBlock, block).norm2.weight, 5.0 if i == 0 else 1.0)
            nn.init.constant_(cast(EquilibriumBlock, block).norm3.weight, 1.0 if i == 0 else 0.3)
        for path in self.fusion.modules():
            if isinstance(path, nn.Sequential) and isinstance(path[-1], nn.Upsample):
                nn.init.constant_(cast(nn.GroupNorm, path[1]).weight, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), normalised; H and W divisible by 2^(resolutions - 1) → logits (B, classes).

        Raises:
            UserError: H or W is not divisible.
        """
        y: Tensor | None = None
        for i, features in enumerate(self.equilibrium(images)):
            head = self.heads[i](features)
            y = head if y is None else head + self.downsample[i - 1](y)
        assert y is not None
        return self.classifier(self.final(y).mean(dim=(2, 3)))

    def equilibrium(self, images: Tensor) -> list[Tensor]:
        """The solution z*: (B, channels[i], H / 2^i, W / 2^i) for each resolution i."""
        stride = 2 ** (len(self.channels) - 1)
        height, width = images.shape[-2:]
        if height % stride or width % stride:
            raise UserError(f"the images have {width}×{height} pixels: give sides divisible by {stride}")
        injection = self.injection(images).to(self.classifier.weight.dtype)
        start = [injection.new_zeros(len(images), c, height >> i, width >> i) for i, c in enumerate(self.channels)]
        masks = [F.dropout(torch.ones_like(z), self.dropout, self.training) for z in start]
        if injection.is_meta:  # no values, so no tolerance is met
            for _ in range(1 + self.iterations):
                start = self.transform(start, masks, injection)
            return start
        evaluations = 0

        def f(*states: Tensor) -> list[Tensor]:
            nonlocal evaluations
            evaluations += 1
            with torch.autocast(injection.device.type, enabled=False):  # also where the backward pass evaluates f
                return self.transform(states, masks, injection)

        solver = _torchdeq().get_deq(
            f_solver="broyden",
            f_max_iter=self.iterations,
            f_tol=self.tolerance,
            f_stop_mode="rel",
            b_solver="broyden",
            b_max_iter=self.backward_iterations,
            b_tol=self.tolerance,
            b_stop_mode="rel",
            ift=True,
        )
        # torchdeq gives gradients in its training mode alone; ours are asked for in evaluation as well.
        solver.train(torch.is_grad_enabled())
        with torch.autocast(injection.device.type, enabled=False):
            (solution,), statistics = solver(f, start)
        self.function_evaluations = evaluations
        self.residual = float(statistics["rel_lowest"].max())
        return list(solution)

    def transform(self, states: Sequence[Tensor], masks: Sequence[Tensor], injection: Tensor) -> list[Tensor]:
        """f: the states of all resolutions after one step; the image's features enter at the highest one."""
        features = [
            block(z, mask, injection if i == 0 else None)
            for i, (block, z, mask) in enumerate(zip(self.blocks, states, masks, strict=True))
        ]
        return self.fusion(features)


def matching_equilibrium(parameters: int, classes: int, **settings: Any) -> MultiscaleEquilibrium:
    """A network with a given number of trainable parameters, within 2 %.

    Where they suffice for four resolutions (from about 0.6M), channels are in the proportion 1 : 2 : 4 : 8 of the authors'
    large network for CIFAR; below, two resolutions have the same channels, as in their small one. Channels are those that come
    closest with the authors' expansion; then the expansion and at last the channels before the classifier take up the rest.

    Args:
        parameters: Trainable parameters wanted.
        classes: Number of classes.
        settings: Dropout and solver, as of `MultiscaleEquilibrium`.

    Raises:
        UserError: torchdeq is missing, or `parameters` is out of reach.
    """

    def size(channels: Sequence[int], **width: Any) -> int:
        with torch.device("meta"):  # shapes alone
            return sum(p.numel() for p in MultiscaleEquilibrium(classes, channels, **width).parameters())

    proportions = (1, 2, 4, 8) if parameters >= size((8, 16, 32, 64)) else (1, 1)
    widths = [tuple(8 * p for p in proportions)]
    sizes = [size(widths[0])]
    while sizes[-1] < parameters:
        widths.append(tuple(c + 4 * p for c, p in zip(widths[-1], proportions, strict=True)))
        sizes.append(size(widths[-1]))
    nearest = min(range(len(sizes)), key=lambda i: abs(math.log(sizes[i] / parameters)))
    channels = widths[nearest]

    slope = (size(channels, expansion=2 * EXPANSION) - sizes[nearest]) / EXPANSION  # the size is linear in the expansion
    expansion = max(1.0, EXPANSION + (parameters - sizes[nearest]) / slope)
    base = size(channels, expansion=expansion, final=1)
    final = 1 + round((parameters - base) / (size(channels, expansion=expansion, final=2) - base))
    network = MultiscaleEquilibrium(classes, channels, expansion=expansion, final=max(1, final), **settings)
    found = sum(p.numel() for p in network.parameters())
    if abs(found - parameters) > 0.02 * parameters:
        raise UserError(
            f"`parameters` is {parameters}: an equilibrium network of that size is not found, the nearest has {found}"
        )
    return network


def _group_norm(channels: int) -> nn.GroupNorm:
    """Eight groups, as in the authors' networks for CIFAR, or fewer where they do not divide the channels."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """3×3 convolution, batch norm, ReLU: outside of the equilibrium, where batch statistics do no harm."""
    return [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def _torchdeq() -> types.ModuleType:
    """The library, without the warnings that Python gives of escape sequences in its docstrings (0.1.0)."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*invalid escape sequence")
            import torchdeq
    except ImportError as error:
        raise UserError("the equilibrium network needs torchdeq, which is missing: pip install 'rpgmt[equilibrium]'") from error
    return cast(types.ModuleType, torchdeq)
