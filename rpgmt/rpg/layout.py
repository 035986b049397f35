"""Where the weights of a bank's layers come from, and where they lie in memory: pure data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from torch import Tensor

from rpgmt.rpg.placement import Placement
from rpgmt.rpg.size import LIMIT

_ALIGN = 16  # elements: each layer's weight starts on a 64-byte boundary, as in a tensor of its own


@dataclass(frozen=True)
class Segment:
    """One layer's share of the walk: `numel` consecutive weights, multiplied by `scale`."""

    numel: int
    scale: float


@dataclass(frozen=True)
class Layout:
    """The layers of one bank on their walk round the ring, and in the flat tensor that generation makes.

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

    @property
    def generated(self) -> int:
        """M, the number of generated weights."""
        return self.starts[-1]

    @property
    def laps(self) -> int:
        """How many times the walk goes round the ring, the last time perhaps in part."""
        return -(-self.generated // self.placement.size)

    def cut(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The segments of a flat tensor: views."""
        if self.offsets[-1] == self.generated:
            return flat.split_with_sizes(self.lengths)
        gaps = [b - a - length for a, b, length in zip(self.offsets, self.offsets[1:], self.lengths, strict=False)]
        return flat.split_with_sizes([n for pair in zip(self.lengths, gaps, strict=True) for n in pair])[::2]

    def with_segment(self, numel: int, scale: float) -> Layout:
        """The same with one more segment at the end."""
        return Layout(self.placement, (*self.segments, Segment(numel, scale)))

    def scaled(self, scales: Sequence[float]) -> Layout:
        """The same with other scales, one a segment."""
        segments = zip(self.segments, scales, strict=True)
        return Layout(self.placement, tuple(Segment(segment.numel, scale) for segment, scale in segments))
