from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from rpgmt import Bank
from rpgmt.rpg.backends import block_tables, scaling
from rpgmt.rpg.backends.block_tables import RunTables
from rpgmt.rpg.backends.index_tables import IndexTables
from rpgmt.rpg.generate import ParameterGenerator
from rpgmt.rpg.layout import Layout, Segment
from rpgmt.rpg.placement import Placement

SEGMENTS = ((7, 1.0), (40, 0.25), (1, 3.0), (33, 1.0), (20, 0.1))  # M = 101, padded and with several scales
M = sum(numel for numel, _ in SEGMENTS)
CPU = torch.device("cpu")


def layout_of(size: int, segments: tuple[tuple[int, float], ...] = SEGMENTS, **placement: int) -> Layout:
    return Layout(Placement(size, **placement), tuple(Segment(*segment) for segment in segments))


def generator_of(
    size: int, segments: tuple[tuple[int, float], ...] = SEGMENTS, **placement: int
) -> tuple[Layout, ParameterGenerator]:
    layout = layout_of(size, segments, **placement)
    return layout, ParameterGenerator(layout)


def weights_of(flat: Tensor, layout: Layout) -> Tensor:
    """The flat tensor without its padding."""
    return torch.cat(layout.cut(flat))


def padded(weights: Tensor, layout: Layout) -> Tensor:
    """The weights with something in the padding that must not matter."""
    flat = torch.full((layout.offsets[-1],), 1e9, dtype=weights.dtype)
    start = 0
    for (numel, _), offset in zip([(s.numel, s.scale) for s in layout.segments], layout.offsets, strict=False):
        flat[offset : offset + numel] = weights[start : start + numel]
        start += numel
    return flat


def random(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=dtype)


CASES = [
    *itertools.product((1, 2, 13, M - 1, M, M + 1, 1000), (1,)),
    *itertools.product((2, 50, M), (3, 16, 200)),
]


@pytest.fixture(params=["indices", "runs", "runs, many laps at once"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tables of one kind for everything, whatever is faster."""
    monkeypatch.setattr(block_tables, "_SHORTEST_RUN", 1 if "runs" in request.param else 10**9)
    monkeypatch.setattr(block_tables, "_SHORTEST_LAP", 0)
    monkeypatch.setattr(scaling, "AT_ONCE", 2**17 if "many" in request.param else 40)
    return request.param


@pytest.mark.parametrize(("size", "block"), CASES)
def test_weights_and_gradients_equal_the_dense_matrix(size: int, block: int, kind: str) -> None:
    layout, generator = generator_of(size, seed=3, bank=1, block=block)
    expected = RunTables if "runs" in kind and block <= size else IndexTables
    assert type(generator.on(CPU).plan) is expected
    matrix = torch.from_numpy(reference.generating_matrix(size, SEGMENTS, 3, 1, block))
    bank = random(size).requires_grad_()
    flat = generator.generate(bank)
    torch.testing.assert_close(weights_of(flat, layout), matrix @ bank, rtol=1e-15, atol=0)
    gradients = random(M, 1)
    flat.backward(padded(gradients, layout))
    torch.testing.assert_close(bank.grad, matrix.T @ gradients, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(generator.fold(padded(gradients, layout)), bank.grad, rtol=0, atol=0)
    for segment, weights in enumerate(layout.cut(flat)):
        assert torch.equal(generator.generate_alone(bank, segment), weights)


@pytest.mark.parametrize("block", [1, 16])
def test_weights_and_gradients_equal_the_dense_matrix_without_padding(block: int, kind: str) -> None:
    segments = ((16, 1.0), (160, 0.5), (32, 1.0), (48, 2.0))
    layout, generator = generator_of(50, segments, block=block)
    assert layout.offsets[-1] == layout.generated
    matrix = torch.from_numpy(reference.generating_matrix(50, segments, block=block)).float()
    bank, gradients = random(50, dtype=torch.float32), random(256, 1, dtype=torch.float32)
    assert torch.equal(generator.generate(bank), (matrix.double() @ bank.double()).float())
    torch.testing.assert_close(generator.fold(gradients), matrix.T @ gradients)


def test_fifty_laps() -> None:
    segments = ((1234, 0.5), (1, 2.0), (2115, 1.5))
    layout, generator = generator_of(67, segments, seed=1)
    assert layout.generated == 50 * 67 == 50 * layout.placement.size
    assert layout.laps == 50
    matrix = torch.from_numpy(reference.generating_matrix(67, segments, 1))
    assert ((matrix != 0).sum(0) == 50).all()
    bank, gradients = random(67), random(3350, 1)
    torch.testing.assert_close(weights_of(generator.generate(bank), layout), matrix @ bank, rtol=1e-15, atol=0)
    torch.testing.assert_close(generator.fold(padded(gradients, layout)), matrix.T @ gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("block", [1, 16, 64])
@pytest.mark.parametrize("size", [100_003, 150_016, 40_000, 2**14 + 1, 64])
def test_large_banks(size: int, block: int) -> None:
    segments = ((200_000, 1.0), (300_001, 0.5), (123_456, 2.0))
    layout, generator = generator_of(size, segments, seed=2, block=block)
    bank, gradients = random(size), random(layout.generated, 1)
    t = np.arange(layout.generated)
    entries = torch.from_numpy(layout.placement.entries(t // size, t % size))
    signs = 1 - 2 * layout.placement.negative(t // size, t % size)
    scales = np.repeat([s.scale for s in layout.segments], [s.numel for s in layout.segments])
    factors = torch.from_numpy(signs * scales)
    assert (weights_of(generator.generate(bank), layout) == bank[entries] * factors).all()
    expected = torch.zeros(size, dtype=torch.float64).index_add_(0, entries, factors * gradients)
    torch.testing.assert_close(generator.fold(padded(gradients, layout)), expected, rtol=1e-11, atol=1e-11)
    for segment, weights in enumerate(layout.cut(generator.generate(bank))):
        assert torch.equal(generator.generate_alone(bank, segment), weights)


@pytest.mark.parametrize("size", [1, 5, 30])
def test_gradcheck_and_gradgradcheck(size: int, kind: str) -> None:
    layout, generator = generator_of(size, ((5, 0.5), (16, 1.0), (3, 2.0)), seed=1)
    bank = random(size).requires_grad_()
    flat = random(layout.offsets[-1], 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda bank: generator.generate(bank), (bank,))
    assert torch.autograd.gradgradcheck(lambda bank: generator.generate(bank) ** 2, (bank,))
    assert torch.autograd.gradcheck(lambda flat: generator.fold(flat), (flat,))
    assert torch.autograd.gradgradcheck(lambda flat: generator.fold(flat) ** 2, (flat,))


@pytest.mark.parametrize("block", [1, 16])
def test_the_operators_obey_torchs_rules_for_custom_operators(block: int) -> None:
    layout, generator = generator_of(48, block=block)
    made = generator.on(CPU).plan
    operators = (torch.ops.rpgmt.generate, torch.ops.rpgmt.fold)
    if isinstance(made, RunTables):
        operators = (torch.ops.rpgmt.generate_runs, torch.ops.rpgmt.fold_runs)
    assert isinstance(made, RunTables) == (block == 16)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    for operator, count in zip(operators, (48, layout.offsets[-1]), strict=True):
        torch.library.opcheck(operator, (random(count).requires_grad_(), *made.arguments(), torch.float64), test_utils=tests)


@pytest.mark.parametrize("size", [1, 13, 50, M, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_types_move_values_without_a_change(size: int, dtype: torch.dtype, kind: str) -> None:
    layout, generator = generator_of(size, ((7, 1.0), (94, 1.0)))
    matrix = torch.from_numpy(reference.generating_matrix(size, ((7, 1.0), (94, 1.0))))
    bank = random(size).to(dtype)
    assert (weights_of(generator.generate(bank), layout) == (matrix @ bank.double()).to(dtype)).all()


@pytest.mark.parametrize("block", [1, 16])
def test_weights_of_another_type_are_rounded_once(block: int) -> None:
    layout, generator = generator_of(48, block=block)
    bank = random(48, dtype=torch.float32).requires_grad_()
    exact = generator.generate(bank)
    for dtype in (torch.bfloat16, torch.float16):
        rounded = generator.generate(bank, dtype)
        assert torch.equal(rounded, exact.to(dtype))
        bank.grad = None
        gradient = padded(random(M, 1, torch.float32), layout).to(dtype)
        rounded.backward(gradient)
        assert bank.grad is not None
        assert torch.equal(bank.grad, generator.fold(gradient.float()))  # added in float32


@pytest.mark.parametrize("size", [1, 13, 40, 101, 300])
def test_within_a_lap_of_the_flat_tensor_no_two_weights_have_one_entry(size: int) -> None:
    layout, generator = generator_of(size)
    made = generator.on(CPU).plan
    assert isinstance(made, IndexTables)
    cuts = made.laps()
    assert len(cuts) == layout.laps
    for lap, (start, stop) in enumerate(itertools.pairwise([*cuts, layout.offsets[-1]])):
        used = made.entries[start:stop]
        used = used[used < 2 * size] % size  # without padding and signs
        assert len(used) == min(size, M - lap * size) == len(used.unique())


def test_tables_take_few_bytes() -> None:
    segments = ((2**17, 1.0),) * 3
    for block, most in ((1, 4.0), (8, 4.0), (16, 0.63), (64, 0.26)):
        for size in (2**15, 2**15 + 3):
            layout, generator = generator_of(size, segments, block=block)
            assert generator.on(CPU).bytes / layout.generated <= most


@pytest.mark.parametrize("block", [1, 64])
@pytest.mark.parametrize("size", [1, 7, 5000, 5056, 70_000])
def test_bits_repeat_over_runs_and_threads(size: int, block: int) -> None:
    layout, generator = generator_of(size, ((30_000, 0.5), (90_001, 0.3)), seed=1, block=block)
    bank, gradients = random(size, dtype=torch.float32), random(layout.offsets[-1], 1, dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 1, 2, 2, 4):
            torch.set_num_threads(count)
            results.append((generator.generate(bank), generator.fold(gradients)))
    finally:
        torch.set_num_threads(threads)
    for weights, sums in results:
        assert torch.equal(weights, results[0][0])
        assert torch.equal(sums, results[0][1])


@pytest.mark.parametrize(("size", "block"), [(1, 1), (7, 1), (30, 1), (30, 4), (100, 1), (100, 64), (101, 1), (300, 16)])
def test_entries_are_used_evenly_and_no_layer_meets_one_twice_within_a_lap(size: int, block: int) -> None:
    uses = (reference.generating_matrix(size, SEGMENTS, block=block) != 0).sum(0)
    bank = torch.arange(1.0, size + 1, dtype=torch.float64)
    layout, generator = generator_of(size, tuple((n, 1.0) for n, _ in SEGMENTS), block=block)
    weights = weights_of(generator.generate(bank), layout)
    entries = weights.abs().to(torch.int64).numpy() - 1
    counts = np.bincount(entries, minlength=size)
    assert (counts == uses).all()
    assert set(counts.tolist()) <= {M // size, -(-M // size)}
    ends = np.cumsum([numel for numel, _ in SEGMENTS])
    for start, end in zip([0, *ends], ends, strict=False):
        for lap_start in range(start - start % size, end, size):
            part = entries[max(start, lap_start) : min(end, lap_start + size)]
            assert len(set(part.tolist())) == len(part)


def correlations(parts: list[Tensor]) -> Tensor:
    """Pairwise correlations in standard deviations."""
    stacked = torch.stack(parts)
    return torch.corrcoef(stacked)[tuple(torch.triu_indices(len(parts), len(parts), 1))] * stacked.shape[1] ** 0.5


def test_weights_of_different_layers_and_stages_are_uncorrelated() -> None:
    # One bank for many layers of one shape, whose segments are the ring itself, parts of it and more than it.
    for numel in (1000, 2500, 5003, 9000):
        layout, generator = generator_of(5003, ((numel, 1.0),) * 30, seed=1)
        layers = list(weights_of(generator.generate(random(5003)), layout).split(numel))
        assert correlations(layers).abs().max() < 5.5
        halves = [layer[: numel // 2] for layer in layers] + [layer[numel - numel // 2 :].flip(0) for layer in layers]
        assert correlations(halves).abs().max() < 5.5
    # Banks that hold the same entries, as after a copy, make different stages all the same.
    generators = [generator_of(5003, ((5003, 1.0),), bank=bank)[1] for bank in range(30)]
    stages = [generator.generate(random(5003)) for generator in generators]
    assert correlations([stage[:5003] for stage in stages]).abs().max() < 5.5


def test_a_bank_makes_2_to_the_31_weights_at_most() -> None:
    with pytest.raises(ValueError, match=f"ask for {2**31} weights: at most {2**31 - 1}"):
        layout_of(10, ((2**30, 1.0), (2**30, 1.0)))
    assert layout_of(10, ((2**30, 1.0), (2**30 - 1, 1.0))).laps == 214_748_365


def test_balanced_gradients_are_divided_by_the_mean_squared_scale() -> None:
    for size in (1, 13, 60, 200):
        _, generator = generator_of(size, seed=5)
        matrix = torch.from_numpy(reference.generating_matrix(size, SEGMENTS, 5))
        uses = (matrix != 0).sum(0)
        means = torch.where(uses > 0, (matrix**2).sum(0) / uses.clamp(min=1), 1.0)
        torch.testing.assert_close(generator.mean_squared_scales(CPU), means, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 0}, "`size` is 0"),
        ({"size": 4, "std": 0.0}, "`std` is 0.0: give a positive number"),
        ({"size": 4, "std": float("nan")}, "`std` is nan"),
        ({"size": 4, "gradient": "fair"}, "`gradient` is 'fair': must be one of exact, balanced"),
    ],
)
def test_a_banks_arguments(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match="`") as error:
        Bank(**arguments)  # type: ignore[arg-type]
    assert str(error.value).startswith(words)


def test_a_banks_root_mean_square_is_exact() -> None:
    for size in (1, 2, 1000):
        values = Bank(size, std=0.02, dtype=torch.float64).values.detach()
        assert float(values.square().mean().sqrt()) == pytest.approx(0.02, rel=1e-12)


# ---- the parts


def test_a_layout_stays_as_it_was_made() -> None:
    layout, generator = generator_of(13)
    before = copy.deepcopy(vars(layout))
    generator.fold(generator.generate(random(13)))
    generator.mean_squared_scales(CPU)
    assert vars(layout) == before
    for twin in (copy.deepcopy(layout), pickle.loads(pickle.dumps(layout))):
        assert twin == layout
        assert vars(twin) == before


def test_copies_of_a_generator_share_its_tables_and_pickles_leave_them_out() -> None:
    layout, generator = generator_of(1000, ((50_000, 0.5),))
    tables = generator.on(CPU)
    assert copy.deepcopy(generator).on(CPU) is tables
    assert len(pickle.dumps(generator)) < 1000 < tables.bytes
    other = pickle.loads(pickle.dumps(generator))
    assert other.layout == layout
    assert not other.is_prepared
    bank = random(1000)
    assert torch.equal(other.generate(bank), generator.generate(bank))
    assert generator.rescaled([2.0]).on(CPU).plan.entries is tables.plan.entries


@pytest.mark.parametrize("block", [1, 16])
def test_a_plan_is_packed_and_unpacked(block: int) -> None:
    _, generator = generator_of(48, block=block)
    backend = generator.on(CPU)
    assert len(backend.alone) == len(SEGMENTS)
    for plan in (backend.plan, *backend.alone):
        again = type(plan)(*plan.arguments())
        assert all(a is b for a, b in zip(plan.arguments(), again.arguments(), strict=True))


def test_the_operators_take_what_their_plans_hold() -> None:
    layers = "int size, int[] offsets, int[] lengths, float[] scales"
    for name, plan in {
        "": f"Tensor entries, {layers}",
        "_runs": f"Tensor runs, Tensor signs, int[] shorts, int block, int first, {layers}",
    }.items():
        for verb, taken in (("generate", "bank"), ("fold", "flat")):
            schema = str(getattr(torch.ops.rpgmt, verb + name).default._schema)
            assert schema == f"rpgmt::{verb}{name}(Tensor {taken}, {plan}, ScalarType dtype) -> Tensor"


@pytest.mark.parametrize("block", [1, 16])
def test_a_layer_alone_has_no_gradient_rather_than_a_wrong_one(block: int) -> None:
    _, generator = generator_of(48, block=block)
    assert not generator.generate_alone(random(48).requires_grad_(), 1).requires_grad


@pytest.mark.parametrize("block", [1, 16])
def test_a_wrong_length_is_an_error(block: int) -> None:
    _, generator = generator_of(48, block=block)
    for call, words in (
        (lambda: generator.generate(random(47)), r"`bank` has shape \(47,\): give \(48,\)"),
        (lambda: generator.generate(random(48)[None]), r"`bank` has shape \(1, 48\): give \(48,\)"),
        (lambda: generator.fold(random(M)), rf"`flat` has shape \({M},\): give \(160,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
