"""Where the weights of a bank's layers come from, and where they lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import torch

from rpgmt.rpg import tables
from rpgmt.rpg.placement import Placement
from rpgmt.rpg.size import LIMIT

_ALIGN = 16  # elements: each layer's weight starts on a 64-byte boundary, as in a tensor of its own


class Generator(Protocol):
    """Generates on one device; `rpgmt.rpg.generate` says what its methods do."""

    @property
    def bytes(self) -> int:
        """Memory that it takes for itself."""

    def generate(self, bank: torch.Tensor, dtype: torch.dtype, segment: int | None) -> torch.Tensor: ...

    def fold(self, flat: torch.Tensor, dtype: torch.dtype) -> torch.Tensor: ...

    def rescaled(self, layout: Layout) -> Generator:
        """The same for a layout that differs in scales."""

    def to(self, device: torch.device) -> Generator:
        """The same on another device."""


@dataclass(frozen=True)
class Segment:
    """One layer's share of the walk: `numel` consecutive weights, multiplied by `scale`."""

    numel: int
    scale: float


@dataclass(frozen=True)
class Layout:
    """The layers of one bank on their walk round the ring, and in the flat tensor that `generate` returns.

    Args:
        placement: The bank's placement.
        segments: The layers' shares in their order on the ring.

    Attributes:
        lengths: Weights of each segment.
        scales: Scale of each segment.
        starts: The first weight of each segment on the walk, and at the end M.
        offsets: The first element of each segment in the flat tensor, and at the end the flat tensor's length.

    Raises:
        ValueError: The layers ask for 2³¹ weights or more.
    """

    placement: Placement
    segments: tuple[Segment, ...]
    # Counted once: plain attributes, which compilers can read.
    lengths: list[int] = field(init=False, compare=False, repr=False)
    scales: list[float] = field(init=False, compare=False, repr=False)
    starts: list[int] = field(init=False, compare=False, repr=False)
    offsets: list[int] = field(init=False, compare=False, repr=False)
    _made: dict[torch.device, Generator] = field(init=False, compare=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        lengths = [segment.numel for segment in self.segments]
        padded = [-(-length // _ALIGN) * _ALIGN for length in lengths]
        self.__dict__.update(
            lengths=lengths,
            scales=[segment.scale for segment in self.segments],
            starts=list(accumulate(lengths, initial=0)),
            offsets=list(accumulate(padded, initial=0)),
        )
        if self.generated >= LIMIT:
            raise ValueError(f"a bank's layers ask for {self.generated} weights: at most {LIMIT - 1} come from one bank")

    def __deepcopy__(self, memo: dict[int, Any]) -> Layout:
        return self  # immutable, and the tables are worth sharing

    def __reduce__(self) -> tuple[Any, ...]:
        return Layout, (self.placement, self.segments)  # tables are made again where they are needed

    @property
    def generated(self) -> int:
        """M, the number of generated weights."""
        return self.starts[-1]

    @property
    def laps(self) -> int:
        """How many times the walk goes round the ring, the last time perhaps in part."""
        return -(-self.generated // self.placement.size)

    def cut(self, flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The segments of a flat tensor: views."""
        if self.offsets[-1] == self.generated:
            return flat.split_with_sizes(self.lengths)
        gaps = [b - a - length for a, b, length in zip(self.offsets, self.offsets[1:], self.lengths, strict=False)]
        return flat.split_with_sizes([n for pair in zip(self.lengths, gaps, strict=True) for n in pair])[::2]

    def on(self, device: torch.device) -> Generator:
        """What generates on `device`, made on first use: fused kernels on a GPU with Triton, index tables elsewhere.

        Raises:
            RuntimeError: It is still to be made while a compiler traces, which would take that for a part of the network.
        """
        if device not in self._made:
            if torch.compiler.is_compiling():
                raise RuntimeError("a bank has no index tables yet: call the model once before you compile or export it")
            self._made[device] = self._make(device)
        return self._made[device]

    def _make(self, device: torch.device) -> Generator:
        if device.type == "cuda":
            from rpgmt.rpg import kernels  # Triton takes a while to import

            if kernels.usable(device):
                return kernels.Fused.of(self, device)
        made = self._made.get(torch.device("cpu")) or tables.build(self)
        return made.to(device)

    @property
    def has_tables(self) -> bool:
        """Whether tables, or what is in place of them, were made for any device."""
        return bool(self._made)

    def scaled(self, scales: Sequence[float]) -> Layout:
        """The same layout with other scales, one a segment; it takes over the tables."""
        segments = tuple(Segment(segment.numel, scale) for segment, scale in zip(self.segments, scales, strict=True))
        layout = Layout(self.placement, segments)
        layout._made.update({device: made.rescaled(layout) for device, made in self._made.items()})
        return layout
