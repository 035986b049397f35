"""Our generator, as networks use it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from rpgmt.rpg.generate import ParameterGenerator
from tools.benchmarks.generation.problem import Kind, Problem


def table_bytes(generator: ParameterGenerator, device: torch.device) -> int:
    """Makes what a generator needs on `device`; its bytes."""
    return generator.on(device).bytes


def ours(problem: Problem, block: int, *, split: bool = False) -> Kind:
    """Our generator; with `split`, layer by layer as a network takes the weights and gives their gradients back."""
    generator = problem.generator(block)
    started = time.perf_counter()
    held = table_bytes(generator, problem.device)
    seconds = time.perf_counter() - started
    name = f"ours, block {block}"
    if not split:
        return Kind(name, lambda: problem.generate(generator), lambda flat: flat.backward(problem.gradient), held, seconds)

    def layers() -> Sequence[Tensor]:
        return generator.layout.cut(problem.generate(generator))  # as `Bank` does

    return Kind(f"{name}, split", layers, lambda w: torch.autograd.backward(w, problem.layer_gradients), held, seconds)
