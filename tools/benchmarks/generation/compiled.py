"""The placement in a compiler: integer arithmetic in place of tables."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from rpgmt.errors import UserError
from rpgmt.rpg.layout import Segment
from rpgmt.rpg.placement import Placement
from tools.benchmarks.generation.problem import Kind, Problem, close, gradient_of

WALKS = 3
"""Times that the compiled generator walks on where it must: one weight in √N walks, one in N twice, …"""


class TraceablePlacement(Placement):
    """A placement that a compiler can trace: it walks a fixed number of times, and its keys are made beforehand.

    It is the same where N = ⌈√N⌉·⌈N/⌈√N⌉⌉, as all square numbers are, which need no walking; elsewhere where no weight walks
    more often than `WALKS` times, which fails for very small N.
    """

    lap_keys: list[Tensor]
    walks: int

    def __init__(self, placement: Placement, laps: int, device: torch.device) -> None:
        super().__init__(placement.size, placement.seed, placement.bank, placement.block)
        lap = torch.arange(laps)[:, None]
        keys = [placement._key(lap, stream).to(device) for stream in range(5)]  # 40 bytes a lap
        object.__setattr__(self, "lap_keys", keys)
        a, b = self.sides
        object.__setattr__(self, "walks", 0 if a * b == self.runs else WALKS)

    def _key(self, lap: Any, stream: int) -> Any:
        return self.lap_keys[stream]

    def _walk(self, lap: Any, run: Any, *, forward: bool) -> Any:
        run = self._feistel(lap, run, forward=forward)
        for _ in range(self.walks):
            run = torch.where(run < self.runs, run, self._feistel(lap, run, forward=forward))
        return run.clamp(max=self.runs - 1)


def compiled(problem: Problem, backend: str = "inductor") -> Kind:
    """PyTorch's integer arithmetic of the placement in `torch.compile`, with no tables; block 1, without the layers' scales.

    The backward gathers, as ours does: autograd's own would scatter.

    Raises:
        UserError: it cannot be compiled here, or the placement walks more often than it can.
    """
    started = time.perf_counter()
    size, generated, bank = problem.size, problem.generated, problem.bank
    laps = -(-generated // size)
    plain = Placement(size)
    placement = TraceablePlacement(plain, laps, problem.device)

    @torch.compile(backend=backend, fullgraph=True, dynamic=False)
    def make(values: Tensor) -> Tensor:
        lap = torch.arange(laps, device=values.device)[:, None]
        position = torch.arange(size, device=values.device)[None]
        sign = 1 - 2 * placement.negative(lap, position)
        return (values[placement.entries(lap, position)] * sign).flatten()[:generated].to(problem.dtype)

    @torch.compile(backend=backend, fullgraph=True, dynamic=False)
    def back(gradient: Tensor) -> Tensor:
        lap = torch.arange(laps, device=gradient.device)[:, None]
        position = placement.positions(lap, torch.arange(size, device=gradient.device)[None])
        t = lap * size + position
        picked = torch.where(t < generated, gradient[t.clamp(max=generated - 1)].float(), 0.0)
        return (picked * (1 - 2 * placement.negative(lap, position))).sum(0)

    class Generate(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: Tensor) -> Tensor:
            return make(values)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            return back(gradients[0])

    def forward() -> Tensor:
        return Generate.apply(bank)

    gradient = problem.gradient[:generated]

    def backward(weights: Tensor) -> None:
        weights.backward(gradient)

    try:
        weights = forward()
        own = gradient_of(bank, lambda: backward(weights))
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise UserError(f"`--compile`: torch.compile fails here: {lines[0] if lines else type(error).__name__}") from error
    seconds = time.perf_counter() - started

    whole = Problem(size, [Segment(generated, 1.0)], problem.dtype, problem.device)
    flat = whole.generate(whole.generator(1))
    expected = gradient_of(whole.bank, lambda: flat[:generated].backward(gradient))
    if not torch.equal(weights, flat[:generated]) or not close(own, expected, problem.dtype):
        raise UserError(
            f"`--compile`: the compiled generator walks {WALKS} times at most, which a bank of {size} entries exceeds: give "
            "a `--size` that is a square number, e.g. 1M"
        )
    return Kind("compiled, block 1", forward, backward, sum(key.nbytes for key in placement.lap_keys), seconds)
