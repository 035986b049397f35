"""The weights that a bank made last, and how long they hold.

Without gradients they hold until the bank changes, for all threads. With gradients they hold for one forward of one thread:
what the backward needs is autograd's, and the next step's weights are others.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def version_of(tensor: Tensor) -> int:
    """How many times a tensor was changed in place; torch itself refuses to change an inference tensor so."""
    return 0 if tensor.is_inference() else tensor._version


@dataclass(frozen=True)
class Source:
    """What weights were made from.

    Args:
        values: The bank's parameter.
        mode: Of the moment: whether gradients are wanted, version and types.
        copy: What the parameter held; None where it cannot change while the weights are kept.
        flat_version: That of the flat tensor when it was made.
    """

    values: Tensor
    mode: tuple[Any, ...]
    copy: Tensor | None
    flat_version: int


@dataclass(frozen=True)
class Kept:
    """The weights that a bank made last.

    Args:
        flat: All of them.
        weights: Views of it, one a layer.
        source: What they were made from; None while a compiler traces.
    """

    flat: Tensor
    weights: list[Tensor]
    source: Source | None = None

    @property
    def is_untouched(self) -> bool:
        """Whether no weight was changed in place."""
        return self.source is None or version_of(self.flat) == self.source.flat_version


class Now(threading.local):
    """What one thread does with a bank at the moment: each runs forwards of its own.

    Attributes:
        inside: Whether a forward of the root runs.
        kept: The weights that were made last for gradients, or for a transform.
    """

    inside = False
    kept: Kept | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Now, ()


class CurrentWeights:
    """What a bank made last.

    Attributes:
        shared: Without gradients, for all threads.
        traced: For the forward that a compiler traces.
        now: With gradients, for the thread that asks.
    """

    def __init__(self) -> None:
        self.shared: Kept | None = None
        self.traced: Kept | None = None
        self.now = Now()

    def __reduce__(self) -> tuple[Any, ...]:
        return CurrentWeights, ()  # what was made is no leaf: copies make it again when they need it

    def find(self, values: Tensor, mode: tuple[Any, ...], trains: bool) -> Kept | None:
        """What was made last, where the same would be made again.

        Args:
            values: The bank's parameter.
            mode: Of the moment, as in `Source`.
            trains: Whether gradients are wanted.
        """
        kept = self.now.kept if trains else self.shared
        source = kept.source if kept is not None else None
        if source is None or source.values is not values or source.mode != mode:
            return None
        # `.data` and what is built on it change values past their version counter, so the values themselves are
        # compared; not for every layer, but once a forward.
        same = self.now.inside or values.is_meta or (source.copy is not None and torch.equal(values, source.copy))
        return kept if same else None

    def keep(self, made: Kept, values: Tensor, mode: tuple[Any, ...], trains: bool) -> Kept:
        """Keeps what was made in place of what is there, with its source."""
        copied = None if trains and self.now.inside else values.detach().clone()
        kept = Kept(made.flat, made.weights, Source(values, mode, copied, version_of(made.flat)))
        self.now.kept, self.shared = (kept, None) if trains else (None, kept)
        return kept

    def find_touched(self) -> Kept | None:
        """What is kept and has been changed in place."""
        kept = self.now.kept  # not in a loop: every layer asks
        if kept is not None and not kept.is_untouched:
            return kept
        kept = self.shared
        return kept if kept is not None and not kept.is_untouched else None

    def forget(self) -> None:
        """Keeps nothing any more."""
        self.shared = self.traced = self.now.kept = None
        self.now.inside = False
