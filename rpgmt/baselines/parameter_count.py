"""What all pruning is given and gives: a number of parameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pruning:
    """What pruning left.

    Args:
        before: Trained parameters of the model before, without those that were pruned already.
        after: The same afterwards.
        layers: Layer or bank → how many parameters of its weight, or entries, remain, and how many there were at first.
    """

    before: int
    after: int
    layers: dict[str, tuple[int, int]]


def check_count(parameters: int) -> None:
    """Refuses what is no number of parameters.

    Raises:
        ValueError: it is negative, or no whole number.
    """
    if type(parameters) is not int or parameters < 0:
        raise ValueError(f"`parameters` is {parameters!r}: give the number of parameters that shall remain, e.g. 100_000")
