"""Floors: copies of as many bytes, and gathers with ready-made indices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tools.benchmarks.generation.problem import Kind, Problem

COPY, GATHER = "copy", "gather, 32-bit indices"


def copy(problem: Problem) -> Kind:
    """As many bytes as the weights have, copied to new memory: forward and backward each once.

    On a CPU the system maps large new memory page by page, which takes longer than the copy; see `copy_in_place`.
    """

    def backward(_: Tensor) -> None:
        problem.gradient.clone()

    return Kind(COPY, problem.gradient.clone, backward)


def copy_in_place(problem: Problem) -> Kind:
    """The same copies to memory that is there already: what moving the bytes takes alone."""
    weights, gradient = torch.zeros_like(problem.gradient), torch.zeros_like(problem.gradient)

    def backward(_: Tensor) -> None:
        gradient.copy_(problem.gradient)

    return Kind("copy, same memory", lambda: weights.copy_(problem.gradient), backward)


def gather(problem: Problem, integer: torch.dtype) -> Kind:
    """The least that indices that are given can cost: forward M values from N, backward M from M and the sum of the laps."""
    size, generated, bank = problem.size, problem.generated, problem.bank
    random = torch.Generator().manual_seed(0)
    index, inverse = torch.empty(generated, dtype=integer), torch.empty(generated, dtype=integer)
    for start in range(0, generated, size):
        entries = torch.randperm(size, generator=random)
        length = min(size, generated - start)
        index[start : start + length] = entries[:length]
        positions = torch.empty_like(entries)
        positions[entries] = torch.arange(size)
        inverse[start : start + length] = start + positions[positions < length]
    index, inverse = index.to(problem.device), inverse.to(problem.device)
    laps, rest = divmod(generated, size)

    def forward() -> Tensor:
        return bank.detach().to(problem.dtype).index_select(0, index)

    def backward(_: Any) -> None:
        picked = problem.gradient.index_select(0, inverse)
        sums = picked[: laps * size].view(laps, size).sum(0, dtype=bank.dtype)
        sums[:rest] += picked[laps * size :]
        assert bank.grad is not None
        bank.grad += sums

    name = f"gather, {8 * integer.itemsize}-bit indices"
    return Kind(name, forward, backward, index.nbytes + inverse.nbytes)
