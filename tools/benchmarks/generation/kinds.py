"""What generation is compared with: the formula of the method's authors, a compiled one, and floors of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rpgmt.errors import UserError
from rpgmt.rpg.generate import ParameterGenerator
from rpgmt.rpg.layout import Layout, Segment
from rpgmt.rpg.placement import Placement

WALKS = 3
"""Times that the compiled generator walks on where it must: one weight in √N walks, one in N twice, …"""
_CHUNK = 2**16


@dataclass
class Kind:
    """One way to make a network's weights and to bring their gradients back to the bank.

    Attributes:
        name: as the table calls it.
        forward: makes the weights.
        backward: takes what `forward` returned, and adds to the bank's gradient.
        table_bytes: what must lie in memory beside the bank.
        build_seconds: what it takes to make that; None for what is given ready-made.
    """

    name: str
    forward: Callable[[], Any]
    backward: Callable[[Any], None]
    table_bytes: int = 0
    build_seconds: float | None = None


class Problem:
    """A bank, the layers that it makes, and the gradients that come back: the same for all kinds.

    Args:
        size: N, the bank's entries.
        segments: the layers' weights and scales.
        dtype: of the generated weights and their gradients; the bank is float32.
        device: where all of it lies.

    Attributes:
        bank: (N,) leaf with a gradient to add to.
        gradient: (padded M,) gradients of the flat weights, in the layout of `generate`.
        layer_gradients: views of each layer's part of it.
    """

    def __init__(self, size: int, segments: Sequence[Segment], dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.segments, self.dtype = size, tuple(segments), dtype
        random = torch.Generator(device).manual_seed(0)
        self.bank = (0.05 * torch.randn(size, generator=random, device=device)).requires_grad_()
        self.bank.grad = torch.zeros_like(self.bank)
        self.device = self.bank.device
        offsets = self.layout(1).offsets
        self.gradient = torch.randn(offsets[-1], generator=random, device=device, dtype=dtype)
        self.layer_gradients = [self.gradient[start:][: layer.numel] for start, layer in zip(offsets, segments, strict=False)]

    @property
    def generated(self) -> int:
        """M, the number of generated weights."""
        return sum(layer.numel for layer in self.segments)

    def layout(self, block: int) -> Layout:
        """Where the weights come from."""
        return Layout(Placement(self.size, block=block), self.segments)

    def generator(self, block: int) -> ParameterGenerator:
        """A new generator, which has made nothing yet."""
        return ParameterGenerator(self.layout(block))

    def generate(self, generator: ParameterGenerator) -> Tensor:
        """The flat weights from the bank."""
        return generator.generate(self.bank, self.dtype)


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


# ---- the authors' formula (arXiv 2107.07110)


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
    for start in range(0, generated, _CHUNK):
        t = np.arange(start, min(start + _CHUNK, generated))
        lap, position = t // placement.size, t % placement.size
        index[start : start + _CHUNK] = placement.entries(lap, position)
        sign[start : start + _CHUNK] = 1 - 2 * placement.negative(lap, position)
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

    return Kind("authors' formula", forward, backward, index.nbytes + sign.nbytes, seconds)


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
    own = _gradient(problem.bank, lambda: flat.backward(problem.gradient))
    if not _close(own, _gradient(problem.bank, lambda: formula.backward(expected)), problem.dtype):
        raise RuntimeError(f"block {block}: the bank's gradient is not that of the authors' formula")


def _close(gradient: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether two gradients of a bank differ by no more than orders of summation do; both finite."""
    error = (gradient - other).abs().max() / other.abs().max()
    return bool(error < (1e-4 if dtype == torch.float32 else 2**-7))


def _gradient(bank: Tensor, backward: Callable[[], None]) -> Tensor:
    """What `backward` adds to the bank's gradient."""
    assert bank.grad is not None
    kept, bank.grad = bank.grad, torch.zeros_like(bank)
    backward()
    found, bank.grad = bank.grad, kept
    assert found is not None
    return found


# ---- floors


def copy(problem: Problem) -> Kind:
    """As many bytes as the weights have, copied to new memory: forward and backward each once.

    On a CPU the system maps large new memory page by page, which takes longer than the copy; see `copy_in_place`.
    """

    def backward(_: Tensor) -> None:
        problem.gradient.clone()

    return Kind("copy", problem.gradient.clone, backward)


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


# ---- the placement in a compiler


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
        own = _gradient(bank, lambda: backward(weights))
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise UserError(f"`--compile`: torch.compile fails here: {lines[0] if lines else type(error).__name__}") from error
    seconds = time.perf_counter() - started

    whole = Problem(size, [Segment(generated, 1.0)], problem.dtype, problem.device)
    flat = whole.generate(whole.generator(1))
    expected = _gradient(whole.bank, lambda: flat[:generated].backward(gradient))
    if not torch.equal(weights, flat[:generated]) or not _close(own, expected, problem.dtype):
        raise UserError(
            f"`--compile`: the compiled generator walks {WALKS} times at most, which a bank of {size} entries exceeds: give "
            "a `--size` that is a square number, e.g. 1M"
        )
    return Kind("compiled, block 1", forward, backward, sum(key.nbytes for key in placement.lap_keys), seconds)
