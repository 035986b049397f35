"""The formula of the method's authors (arXiv 2107.07110), and whether ours computes the same."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rpgmt.rpg.placement import Placement
from tools.benchmarks.generation.problem import Kind, Problem, close, gradient_of

NAME = "authors' formula"
CHUNK = 2**16
"""Weights whose place is looked up at once."""


def draw(size: int, generated: int) -> tuple[Tensor, Tensor]:
    """Index and sign of each weight as the authors draw them: whole copies of 0 … N-1 and a random rest, all shuffled.

    Returns:
        (M,) int64 and (M,) float32 of ±1.
    """
    random = np.random.default_rng(0)
    index = np.concatenate([np.tile(np.arange(size), generated // size), random.permutation(size)[: generated % size]])
    random.shuffle(index)
    return torch.from_numpy(index), torch.from_numpy((2 * random.binomial(1, 0.5, generated) - 1).astype(np.float32))


def place(placement: Placement, generated: int) -> tuple[Tensor, Tensor]:
    """Index and sign of each weight as our placement has them, in the form of the authors'."""
    index, sign = np.empty(generated, np.int64), np.empty(generated, np.float32)
    for start in range(0, generated, CHUNK):
        t = np.arange(start, min(start + CHUNK, generated))
        lap, position = t // placement.size, t % placement.size
        index[start : start + CHUNK] = placement.entries(lap, position)
        sign[start : start + CHUNK] = 1 - 2 * placement.negative(lap, position)
    return torch.from_numpy(index), torch.from_numpy(sign)


def authors(problem: Problem, placement: Placement | None = None) -> Kind:
    """The authors' formula: for each layer `bank[index] * sign` times its scale, and autograd's own gradient of that.

    Args:
        problem: what is generated.
        placement: take indices and signs from it; without it they are the authors' own.
    """
    started = time.perf_counter()
    generated = problem.generated
    index, sign = place(placement, generated) if placement else draw(problem.size, generated)
    index, sign = index.to(problem.device), sign.to(problem.device)
    numels = [layer.numel for layer in problem.segments]
    tables = list(zip(index.split(numels), sign.split(numels), [layer.scale for layer in problem.segments], strict=True))
    seconds = time.perf_counter() - started

    def forward() -> list[Tensor]:
        weights = []
        for entries, signs, scale in tables:
            weight = problem.bank[entries] * signs
            if scale != 1.0:
                weight = weight * scale
            weights.append(weight.to(problem.dtype))  # nothing to do for float32
        return weights

    def backward(weights: list[Tensor]) -> None:
        torch.autograd.backward(weights, problem.layer_gradients)

    return Kind(NAME, forward, backward, index.nbytes + sign.nbytes, seconds)


def check(problem: Problem, block: int) -> None:
    """Compares weights and gradient of ours with those of the authors' formula with our indices and signs.

    Raises:
        RuntimeError: they differ, so that one of the two does not compute what it should.
    """
    generator = problem.generator(block)
    layout = generator.layout
    formula = authors(problem, layout.placement)
    expected = formula.forward()
    flat = problem.generate(generator)
    near: dict[str, Any] = {"rtol": 1e-6 if problem.dtype == torch.float32 else 2**-7, "atol": 0.0}
    for layer, (start, weight) in enumerate(zip(layout.offsets, expected, strict=False)):
        if not torch.allclose(flat[start:][: len(weight)], weight, **near):
            raise RuntimeError(f"block {block}: the weights of layer {layer} are not those of the authors' formula")
    own = gradient_of(problem.bank, lambda: flat.backward(problem.gradient))
    if not close(own, gradient_of(problem.bank, lambda: formula.backward(expected)), problem.dtype):
        raise RuntimeError(f"block {block}: the bank's gradient is not that of the authors' formula")
