"""The fused kernels, in Triton's interpreter on the CPU, or on a GPU with RPGMT_TEST_DEVICE=cuda."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from rpgmt.rpg import layout as layouts  # noqa: E402
from rpgmt.rpg.backends import fused, kernels  # noqa: E402
from rpgmt.rpg.backends.fused import Fused  # noqa: E402
from rpgmt.rpg.backends.index_tables import IndexTables  # noqa: E402
from rpgmt.rpg.backends.plan import Plan  # noqa: E402
from rpgmt.rpg.generate import Backend, fused_operators  # noqa: E402
from rpgmt.rpg.layout import Layout, Segment  # noqa: E402
from rpgmt.rpg.placement import Placement  # noqa: E402

# The interpreter of Triton 3.6 makes scalars of NumPy arrays in a way that NumPy gives up.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0 to a scalar:DeprecationWarning")

DEVICE = torch.device(os.environ.get("RPGMT_TEST_DEVICE", "cpu"))
OPERATORS = fused_operators()
INTERPRETED = not isinstance(kernels.generate_kernel, triton.JITFunction)

Layers = Sequence[tuple[int, float]]
LAYERS: Layers = ((7, 1.0), (40, 0.25), (1, 3.0), (33, 1.0), (20, 0.1))  # M = 101, padded and with several scales
FEW: Layers = ((5, 0.3), (16, 1.0), (3, 2.0))  # M = 24, for banks that need a program a weight
M = sum(numel for numel, _ in LAYERS)


def slow(*cases: tuple[int, ...]) -> list[Any]:
    """More of a test's cases, for what the interpreter takes long for."""
    return [pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def offsets_of(layers: Layers) -> list[int]:
    return list(itertools.accumulate((-(-numel // 16) * 16 for numel, _ in layers), initial=0))


def layout_of(layers: Layers, placement: Placement) -> Layout:
    return Layout(placement, tuple(Segment(*layer) for layer in layers))


def plan_of(layers: Layers, placement: Placement) -> Fused:
    return Fused.of(layout_of(layers, placement), DEVICE)


def generate(bank: Tensor, plan: Plan, dtype: torch.dtype) -> Tensor:
    return OPERATORS.generate(bank, plan, dtype)


def fold(flat: Tensor, plan: Plan, dtype: torch.dtype) -> Tensor:
    return OPERATORS.fold(flat, plan, dtype)


def without_padding(flat: Tensor, layers: Layers) -> Tensor:
    return torch.cat([flat[start : start + numel] for (numel, _), start in zip(layers, offsets_of(layers), strict=False)])


def is_padding(layers: Layers) -> Tensor:
    padding = torch.ones(offsets_of(layers)[-1], dtype=torch.bool, device=DEVICE)
    for (numel, _), start in zip(layers, offsets_of(layers), strict=False):
        padding[start : start + numel] = False
    return padding


def with_padding(weights: Tensor, layers: Layers) -> Tensor:
    """The weights with something in the padding that must not be read."""
    flat = weights.new_full((offsets_of(layers)[-1],), float("nan"))
    flat[~is_padding(layers)] = weights
    return flat


def random(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE, dtype)


def factors_of(placement: Placement, layers: Layers) -> tuple[Tensor, Tensor]:
    """For each weight of the walk its entry and its float64 sign · scale, from the placement's own arithmetic."""
    numels, scales = zip(*layers, strict=True)
    t = np.arange(sum(numels))
    lap, position = t // placement.size, t % placement.size
    factors = (1 - 2 * placement.negative(lap, position)) * np.repeat(scales, numels)
    return torch.from_numpy(placement.entries(lap, position)).to(DEVICE), torch.from_numpy(factors).to(DEVICE)


def by_tables(bank: Tensor, placement: Placement, layers: Layers) -> Tensor:
    """The weights as PyTorch's operations make them."""
    tables = IndexTables.of(layout_of(layers, placement)).to(DEVICE)
    return without_padding(tables.generate(bank, bank.dtype), layers)


def test_usable_where_triton_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fused.usable(DEVICE)
    assert fused.usable(torch.device("cpu")) is INTERPRETED
    assert not fused.usable(torch.device("meta"))
    monkeypatch.setattr(fused, "triton", None)
    assert not fused.usable(DEVICE)


@pytest.mark.parametrize(
    ("size", "block"), [(2, 1), (37, 1), (1000, 1), (50, 3), (410, 200), *slow((13, 1), (20, 16), (64, 16))]
)
def test_a_layer_alone_has_the_weights_that_it_has_among_all(size: int, block: int) -> None:
    layers = FEW if size < 10 else LAYERS
    layout = layout_of(layers, Placement(size, 3, 1, block))
    fused_plan, bank = Fused.of(layout, DEVICE), random(size, dtype=torch.float32)
    backend = Backend(OPERATORS, fused_plan, fused_plan.alone(layout))
    flat = generate(bank, fused_plan, torch.float32)
    for plan, weights in zip(backend.alone, layout.cut(flat), strict=True):
        assert torch.equal(generate(bank, plan, torch.float32), weights)
    doubled = fused_plan.rescaled(layout.scaled([2 * scale for scale in layout.scales]))
    assert torch.equal(generate(bank, doubled, torch.float32), 2 * flat)
    unit = fused_plan.rescaled(layout.scaled([1.0] * len(layers)))
    uses = fold(generate(torch.ones_like(bank), unit, torch.float32), unit, torch.float32)
    assert torch.equal(fold(generate(bank, unit, torch.float32), unit, torch.float32).sign(), bank.sign() * (uses > 0))
    assert backend.bytes < 60 * len(layers) + 40


# ---- against the definition. Runs: one, two, a square and a product of neighbours (no walk), primes, more than weights.

CASES = [
    (1, 1, FEW[:1]),
    *((size, 1, FEW) for size in (2, 3)),
    *((size, 1, LAYERS) for size in (13, 16, 20, 37, M - 1, M, M + 1, 300, 1000)),
    *((size, 2, LAYERS) for size in (13, 50)),
    *((size, 3, LAYERS) for size in (48, 50, M)),
    *((size, 16, LAYERS) for size in (20, 64, 97, 1000)),
    *((size, 64, LAYERS) for size in (64, 250)),
    *((size, 200, LAYERS) for size in (20, 410)),
]


@pytest.mark.parametrize(("size", "block", "layers"), CASES, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_weights_and_gradients_equal_the_dense_matrix(size: int, block: int, layers: Layers) -> None:
    placement = Placement(size, 3, 1, block)
    plan = plan_of(layers, placement)
    matrix = torch.from_numpy(reference.generating_matrix(size, layers, 3, 1, block)).to(DEVICE)
    bank, gradients = random(size), random(len(matrix), 1)
    flat = generate(bank, plan, torch.float64)
    torch.testing.assert_close(without_padding(flat, layers), matrix @ bank, rtol=1e-15, atol=0)
    assert (flat[is_padding(layers)] == 0).all()
    sums = fold(with_padding(gradients, layers), plan, torch.float64)
    torch.testing.assert_close(sums, matrix.T @ gradients, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("size", "block"), [(13, 1), (64, 1), (50, 3), (90, 16), (200, 1)])
def test_float32_weights_are_the_tables_weights_bit_for_bit(size: int, block: int) -> None:
    placement, bank = Placement(size, 2**40 + 5, 7, block), random(size, dtype=torch.float32)
    bank[0] = 0.0  # whose sign shows in the bits alone
    weights = without_padding(generate(bank, plan_of(LAYERS, placement), torch.float32), LAYERS)
    assert torch.equal(weights.view(torch.int32), by_tables(bank, placement, LAYERS).view(torch.int32))


@pytest.fixture
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fewer programs: the interpreter takes as long for any tile."""
    if INTERPRETED:
        monkeypatch.setattr(fused, "_TILE", 4096)
    fused._launch.cache_clear()
    yield
    fused._launch.cache_clear()


def check_against_tables(placement: Placement, layers: Layers) -> None:
    plan = plan_of(layers, placement)
    entries, factors = factors_of(placement, layers)
    bank, gradients = random(placement.size, dtype=torch.float32), random(len(entries), 1)
    weights = without_padding(generate(bank, plan, torch.float32), layers)
    assert torch.equal(weights, by_tables(bank, placement, layers))
    expected = torch.zeros_like(bank, dtype=torch.float64).index_add_(0, entries, factors * gradients)
    sums = fold(with_padding(gradients, layers), plan, torch.float64)
    torch.testing.assert_close(sums, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("size", "block"), [(1500, 1), (2003, 16), (1999, 80)])
def test_many_tiles_and_laps(size: int, block: int) -> None:
    check_against_tables(Placement(size, seed=2, block=block), ((2000, 0.5), (17, 3.0), (1000, 0.25), (2000, 1.0)))


def test_a_lap_in_part_that_a_short_run_pulls_forward() -> None:
    # The short run, of 1 instead of 80, lies in front of slot 32, the first one of the second program: that one has work, too.
    placement = Placement(40 * 80 + 1, seed=1, block=80)
    assert placement.positions(np.zeros(1, np.int64), np.array([40 * 80])) < 32 * 80
    check_against_tables(placement, ((32 * 80 - 1, 0.5),))


@pytest.mark.slow
@pytest.mark.usefixtures("large_tiles")
def test_a_hundred_thousand_weights() -> None:
    check_against_tables(Placement(20_011, seed=2), ((30_000, 0.5), (17, 3.0), (50_001, 0.25), (20_000, 1.0)))


def test_layers_without_weights_and_banks_without_layers() -> None:
    layers = ((0, 9.0), (7, 2.0), (0, 9.0), (0, 9.0), (40, 0.5), (0, 9.0))
    placement, bank = Placement(30), random(30)
    plan = plan_of(layers, placement)
    entries, factors = factors_of(placement, layers)
    assert torch.equal(without_padding(generate(bank, plan, torch.float64), layers), bank[entries] * factors)
    gradients = random(47, 1)
    sums = fold(with_padding(gradients, layers), plan, torch.float64)
    expected = torch.zeros_like(bank).index_add_(0, entries, factors * gradients)
    torch.testing.assert_close(sums, expected, rtol=1e-13, atol=1e-13)
    assert generate(bank, plan_of((), placement), torch.float32).shape == (0,)
    assert torch.equal(fold(random(0), plan_of((), placement), torch.float64), torch.zeros_like(bank))


# ---- order of sums, types, bits


@pytest.mark.parametrize(("size", "block", "programs"), [(6, 1, 7), (6, 1, 2048), (7, 3, 1), (7, 3, 7)])
def test_laps_are_added_in_order_in_float32(monkeypatch: pytest.MonkeyPatch, programs: int, size: int, block: int) -> None:
    # As many programs as a small bank is split into: the laps' groups, which are then added in order, too.
    monkeypatch.setattr(fused, "_PROGRAMS", programs)
    layers = ((100, 0.3), (size * 44 - 3 - 100, 1.7))
    placement = Placement(size, seed=5, block=block)
    entries, factors = factors_of(placement, layers)
    gradients = random(len(entries), 1, torch.float32)
    products = gradients * factors.float()
    laps_per_group = -(-44 // min(programs, 44))
    expected = torch.zeros(size, dtype=torch.float32, device=DEVICE)
    for group in torch.arange(44).split(laps_per_group):
        total = torch.zeros_like(expected)
        for lap in group.tolist():
            total[entries[lap * size : (lap + 1) * size]] += products[lap * size : (lap + 1) * size]
        expected += total
    sums = fold(with_padding(gradients, layers), plan_of(layers, placement), torch.float32)
    assert torch.equal(sums, expected)


def test_bits_repeat() -> None:
    placement = Placement(50, block=3)
    plan = plan_of(LAYERS, placement)
    bank, flat = random(50, dtype=torch.float32), random(plan.length, 1, torch.float32)
    weights, sums = ([function(x, plan, torch.float32) for _ in range(3)] for function, x in ((generate, bank), (fold, flat)))
    assert all(torch.equal(again, first) for first, *rest in (weights, sums) for again in rest)


@pytest.mark.parametrize("size", [13, 150])
@pytest.mark.parametrize("bank_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_are_rounded_once(size: int, bank_dtype: torch.dtype, dtype: torch.dtype) -> None:
    if INTERPRETED and {dtype, bank_dtype} == {torch.bfloat16, torch.float64}:
        pytest.skip("the interpreter does not convert between the two")
    # The interpreter cuts bfloat16 off instead of rounding it.
    precision = 2**-7 if INTERPRETED and dtype == torch.bfloat16 else 0.0
    placement = Placement(size)
    plan = plan_of(LAYERS, placement)
    entries, factors = factors_of(placement, LAYERS)
    arithmetic = torch.float64 if bank_dtype == torch.float64 else torch.float32
    bank = random(size).to(bank_dtype)
    weights = without_padding(generate(bank, plan, dtype), LAYERS)
    assert weights.dtype == dtype
    products = bank.to(arithmetic)[entries] * factors.to(arithmetic)
    torch.testing.assert_close(weights, products.to(dtype), rtol=precision, atol=0)
    # Small whole numbers: gradients are exact in every type.
    gradients = torch.randint(-2, 3, (M,), generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)
    unscaled = tuple((numel, 1.0) for numel, _ in LAYERS)
    sums = fold(with_padding(gradients, LAYERS), plan_of(unscaled, placement), bank_dtype)
    assert sums.dtype == bank_dtype
    expected = torch.zeros_like(bank, dtype=torch.float64).index_add_(0, entries, factors.sign() * gradients.double())
    assert torch.equal(sums.double(), expected)


# ---- the operators


@pytest.mark.parametrize(("size", "block"), [(12, 1), *slow((5, 2))])
def test_gradcheck_and_gradgradcheck(size: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_ALIGN", 4)
    plan = plan_of(((3, 0.5), (1, 1.0), (3, 2.0)), Placement(size, 1, block=block))
    bank = random(size).requires_grad_()
    flat = random(plan.length, 1).requires_grad_()
    for function, value in ((generate, bank), (fold, flat)):
        # In the fast mode, which compares in one random direction: the interpreter is slow, and every matrix is compared above.
        plain = lambda x, function=function: function(x, plan, torch.float64)  # noqa: E731
        assert torch.autograd.gradcheck(plain, (value,), fast_mode=True)
        assert torch.autograd.gradgradcheck(lambda x, plain=plain: plain(x) ** 2, (value,), fast_mode=True)


def test_gradients_have_the_banks_type_and_any_stride() -> None:
    placement = Placement(50)
    plan = plan_of(LAYERS, placement)
    entries, factors = factors_of(placement, LAYERS)
    bank = random(100, dtype=torch.float32).requires_grad_()
    flat = generate(bank[::2], plan, torch.float16)
    assert torch.equal(without_padding(flat, LAYERS), (bank[::2][entries] * factors.float()).half())
    flat.sum().backward()
    assert bank.grad is not None
    assert bank.grad.dtype == torch.float32
    expected = torch.zeros(50, dtype=torch.float64, device=DEVICE).index_add_(0, entries, factors)
    torch.testing.assert_close(bank.grad[::2], expected.float())
    assert (bank.grad[1::2] == 0).all()


def test_the_operators_obey_torchs_rules_for_custom_operators() -> None:
    plan = plan_of(FEW, Placement(13))
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for operator, count in ((torch.ops.rpgmt.generate_fused, 13), (torch.ops.rpgmt.fold_fused, plan.length)):
        torch.library.opcheck(operator, (random(count).requires_grad_(), *plan.arguments(), torch.float32), test_utils=tests)


def test_torch_compile_sees_one_node() -> None:
    placement = Placement(13, seed=2**33)
    plan = plan_of(FEW, placement)

    def loss(bank: Tensor) -> Tensor:
        return generate(bank * 2, plan, torch.float32).square().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    eager_bank, bank = (random(13, dtype=torch.float32).requires_grad_() for _ in range(2))
    eager, value = loss(eager_bank), compiled(bank)
    eager.backward()
    value.backward()
    assert torch.equal(value, eager)
    assert torch.equal(bank.grad, eager_bank.grad)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: generate(random(12), p, torch.float32), r"`bank` has shape \(12,\): give \(13,\)"),
        (lambda p: generate(random(13)[None], p, torch.float32), r"`bank` has shape \(1, 13\): give \(13,\)"),
        (lambda p: fold(random(24), p, torch.float32), r"`flat` has shape \(24,\): give \(48,\)"),
    ],
)
def test_a_wrong_length_is_an_error(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(plan_of(FEW, Placement(13)))  # type: ignore[operator]


# ---- limits


@kernels.jit
def _entry_kernel(entries, positions, runs, a, b, reciprocal, shift, key0, key1, key2, key3, first_lap, COUNT: tl.constexpr):
    i = tl.arange(0, COUNT)
    runs, lap = runs.to(tl.uint32), first_lap.to(tl.uint32)
    sides = (runs, a.to(tl.uint32), b.to(tl.uint32), reciprocal.to(tl.uint32), shift.to(tl.uint32))
    keys = (
        kernels._key(key0, lap),
        kernels._key(key1, lap),
        kernels._key(key2, lap),
        kernels._key(key3, lap),
    )
    entry = kernels._permute(tl.load(positions + i).to(tl.uint32), sides, keys, True, True)
    tl.store(entries + i, entry)
    tl.store(positions + i, kernels._permute(entry, sides, keys, False, True))


@pytest.mark.parametrize("size", [2**31 - 1, 2**31 - 46_340, 46_340**2, 1_000_003])
def test_the_largest_banks_are_placed_alike(size: int) -> None:
    placement, lap = Placement(size, seed=2**63 - 1, bank=2**31 - 1), (2**31 - 1) // size
    position = np.linspace(0, size - 1, 4096).astype(np.int64)
    # Those that walk: what lands outside when it is placed once.
    a, b = placement.sides
    outside = np.arange(size, a * b)
    walkers = placement._feistel(np.array(lap), outside, forward=False) if len(outside) else outside
    walkers = walkers[walkers < size][:2000]
    position[100 : 100 + len(walkers)] = walkers
    positions = torch.from_numpy(position).to(DEVICE)
    entries = torch.empty_like(positions)
    numbers = fused._launch(size, placement.seed, placement.bank, 1).numbers[3:-1]
    _entry_kernel[(1,)](entries, positions, *numbers, lap, COUNT=4096, enable_fp_fusion=False)
    assert torch.equal(entries.cpu(), torch.from_numpy(placement.entries(np.array(lap), position)))
    assert torch.equal(positions.cpu(), torch.from_numpy(position))


def test_division_by_a_product_is_exact() -> None:
    for b in (*range(1, 200), *range(255, 46_000, 97), 2**15 - 1, 2**15, 2**15 + 1, 46_339, 46_340, 46_341):
        reciprocal, shift = fused._reciprocal(b)
        assert reciprocal < 2**32
        for x in {0, b - 1, b, b * b - 1, b * b, b * (b + 1) - 1} - {-1}:
            assert (x + 1) * reciprocal >> 32 + shift == x // b, (b, x)


# ---- compiled without a GPU

_COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from rpgmt.rpg.backends import fused, kernels, signs_kernel

def compile(kernel, pointers, constants):
    options = {name: constants.pop(name) for name in fused.OPTIONS}
    names = [name for name in kernel.arg_names]
    constants = {name: value for name, value in constants.items() if name in names}
    types = {name: pointers.get(name, "constexpr" if name in constants else "i32") for name in names}
    source = ASTSource(kernel, types, constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]

for size, block, bank, flat in ((1_000_000, 1, "fp32", "bf16"), (1_000_003, 3, "fp64", "bf16")):
    launch = fused._launch(size, 1, 0, block)
    scales = "*fp64" if bank == "fp64" else "*fp32"
    pointers = {"bank": "*" + bank, "sums": "*" + bank, "flat": "*" + flat, "starts": "*i32", "scales": scales}
    compile(kernels.generate_kernel, pointers, {**launch.constants, "STEPS": 4, "PADDING": 16})
    compile(kernels.fold_kernel, pointers, dict(launch.constants))
compile(kernels.add_groups_kernel, {"partial": "*fp32", "sums": "*bf16"}, {"TILE": 32, "UNROLLED": 16, **fused.OPTIONS})
for flat in ("fp32", "bf16"):
    constants = {"STEPS": 8, "NUMBERS": 8, "TILE": signs_kernel._TILE, **fused.OPTIONS}
    compile(signs_kernel.used_weights_kernel, {"table": "*i64", "flat": "*" + flat}, constants)
"""


def test_the_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    if "nvidia" not in triton.backends.backends:
        pytest.skip("this Triton does not compile for NVIDIA")
    script = tmp_path / "compile_kernels.py"
    script.write_text(_COMPILE, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    result = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
