"""The moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """An exponential moving average of parameters and floating-point buffers (running statistics of norms).

    Other buffers and extra state are not weights and are not averaged. The decay after the n-th update (n = 0, 1, …)
    is min(decay, (1 + n) / (10 + n)), so that the first weights are soon forgotten.

    Tensors change in place and under ``no_grad``: what a model caches by version of a tensor is made anew.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = _averaged(model)
        self._average = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self.is_applied = False

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Take in the model's weights; ``number``: how many updates were before."""
        decay = min(self.decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(list(self._average.values()), list(self._live.values()), 1 - decay)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Replace the model's weights with their average."""
        torch._foreach_copy_(list(self._live.values()), list(self._average.values()))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights meanwhile; `is_applied` says so, until all of its own are back."""
        backup = [tensor.detach().clone() for tensor in self._live.values()]
        self.is_applied = True
        try:
            self.copy_to_model()
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(list(self._live.values()), backup)
            self.is_applied = False

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, average in self._average.items():
            average.copy_(state[name])


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    kept = model.state_dict(keep_vars=True)  # without buffers that are not part of the model
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in tensors.items() if name in kept and tensor.is_floating_point()}
