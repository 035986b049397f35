"""Numbers that are not finite, or absurdly large, end a training before they are kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rpgmt.errors import UserError

LARGEST_WEIGHT = 1e9
"""A parameter beyond it says that a training has diverged: products of a few such numbers are infinite in float32."""
ADVICE = "a new run with a lower --lr, or with --clip-norm, may help"


class NonFiniteError(UserError):
    """A loss, a gradient or a weight is not finite; files have what they had before.

    ``folder`` is the run's, where the training has one.
    """

    folder: Path | None = None


@torch.no_grad()
def largest(tensors: Sequence[Tensor]) -> float:
    """The largest absolute value in tensors of any shapes, anywhere; NaN where there is one, 0 where there is nothing."""
    places: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if tensor.numel():
            places.setdefault(tensor.device, []).append(tensor)
    norms = [torch.stack([norm.float() for norm in torch._foreach_norm(group, math.inf)]) for group in places.values()]
    return float(torch.cat([norm.cpu() for norm in norms]).max()) if norms else 0.0


def check_parameters(model: nn.Module, when: str) -> None:
    """Look at the parameters of a model.

    Args:
        model: its parameters are to be finite and not absurdly large.
        when: the place in the run, e.g. "after step 7".

    Raises:
        NonFiniteError: the line names a parameter.
    """
    parameters = dict(model.named_parameters())
    if not largest(list(parameters.values())) <= LARGEST_WEIGHT:  # NaN is no less
        sizes = {name: largest([tensor]) for name, tensor in parameters.items()}
        name, size = next((name, size) for name, size in sizes.items() if not size <= LARGEST_WEIGHT)
        what = f"as large as {size:.1e}" if math.isfinite(size) else f"not finite ({size})"
        raise NonFiniteError(f"the weights are {what} {when}, in `{name}`: the training has diverged; {ADVICE}")


def check_state(state: Mapping[str, Any], when: str) -> None:
    """Look at all that goes into a checkpoint.

    Args:
        state: floating-point tensors anywhere in nested mappings and lists are to be finite.
        when: as of `check_model`.

    Raises:
        NonFiniteError: the line names what the state calls it.
    """
    tensors = dict(_tensors(state, ""))
    if not math.isfinite(largest(list(tensors.values()))):
        name = next(name for name, tensor in tensors.items() if not math.isfinite(largest([tensor])))
        raise NonFiniteError(f"the {name} is not finite {when}: the training has diverged; {ADVICE}")


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor) and value.is_floating_point():
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name} {key}".strip())
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _tensors(item, f"{name} {place}")
