"""What computes the outputs: PyTorch, or onnxruntime on an exported file."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.prediction.meaning import Reading

Decoded = Sequence[Mapping[str, tuple[NDArray[Any], ...]]]
"""For each stage and head what `Meaning.decode` gives, as arrays."""


class Network(abc.ABC):
    """Crops to what each head of each stage says of them.

    Attributes:
        reading: what it is given and what its outputs mean.
        stages: how many it has.
    """

    reading: Reading
    stages: int

    @abc.abstractmethod
    def __call__(self, crops: NDArray[np.uint8], stop_after: int | None, flip_test: bool) -> Decoded:
        """Compute the outputs of a batch.

        Args:
            crops: uint8 (B, H, W, 3), RGB.
            stop_after: compute so many stages only; None: all.
            flip_test: average with the outputs of the mirror images.
        """


class TorchNetwork(Network):
    """A network of a model file, baked: its weights are generated once.

    Args:
        model: images (B, 3, H, W) to a dict of outputs for each stage.
        reading: see `Network`.
        device: where it runs.
    """

    def __init__(self, model: torch.nn.Module, reading: Reading, device: str) -> None:
        from rpgmt.rpg.bake import bake

        self.reading, self.device = reading, torch.device(device)
        self.model = bake(model).to(self.device).eval()
        self.stages = len(getattr(model, "stages", [None]))

    @torch.inference_mode()
    def __call__(self, crops: NDArray[np.uint8], stop_after: int | None, flip_test: bool) -> Decoded:
        from rpgmt.data.images import normalize

        images = normalize(torch.from_numpy(crops).to(self.device)).contiguous()
        options = {} if stop_after is None else {"stop_after": stop_after}
        outputs: Sequence[dict[str, Tensor]] = self.model(images, **options)
        heads = self.reading.heads
        if flip_test:
            mirrored = self.model(images.flip(-1), **options)
            outputs = [
                {name: heads[name].average_with_mirror(one[name], other[name]) for name in heads}
                for one, other in zip(outputs, mirrored, strict=True)
            ]
        return _Stages(outputs, self.reading)


class _Stages(Sequence[Mapping[str, tuple[NDArray[Any], ...]]]):
    """The outputs of a batch, of which a stage is decoded when it is asked for."""

    def __init__(self, outputs: Sequence[dict[str, Tensor]], reading: Reading) -> None:
        self._outputs, self._reading = outputs, reading
        self._decoded: dict[int, Mapping[str, tuple[NDArray[Any], ...]]] = {}

    def __len__(self) -> int:
        return len(self._outputs)

    @overload
    def __getitem__(self, stage: int) -> Mapping[str, tuple[NDArray[Any], ...]]: ...
    @overload
    def __getitem__(self, stage: slice) -> Decoded: ...
    @torch.inference_mode()
    def __getitem__(self, stage: int | slice) -> Any:
        if isinstance(stage, slice):
            return [self[k] for k in range(len(self))[stage]]
        if stage not in self._decoded:
            output = self._outputs[stage]
            self._decoded[stage] = {
                name: tuple(part.cpu().numpy() for part in meaning.decode(output[name], self._reading.input_size))
                for name, meaning in self._reading.heads.items()
            }
        return self._decoded[stage]
