from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reference
import torch

from rpgmt.rpg.placement import Placement, mix

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "placement_v1.json"

SMALL = (1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 24, 25, 26, 31, 97, 99, 100, 101, 127, 128, 257, 1023, 1024, 1025)
LARGE = (65_536, 65_537, 1_000_003)
BLOCKS = (1, 3, 16, 64, 2_000_000)


def laps_of(placement: Placement, laps: int) -> tuple[np.ndarray, np.ndarray]:
    """(laps, N) entries and signs."""
    lap, position = np.arange(laps)[:, None], np.arange(placement.size)
    return placement.entries(lap, position), 1 - 2 * placement.negative(lap, position)


def z_of_count(observed: float, expected: float) -> float:
    """Standard deviations of a Poisson count from its expectation."""
    return (observed - expected) / expected**0.5


# ---- a bijection with an inverse


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("size", SMALL)
def test_each_lap_is_a_permutation_and_positions_is_its_inverse(size: int, block: int) -> None:
    placement = Placement(size, seed=3, bank=1, block=block)
    lap, position = np.arange(12)[:, None], np.arange(size)
    entries = placement.entries(lap, position)
    assert (np.sort(entries, axis=1) == position).all()
    assert (placement.positions(lap, entries) == position).all()
    assert (placement.entries(lap, placement.positions(lap, np.broadcast_to(position, (12, size)))) == position).all()


@pytest.mark.parametrize("block", [1, 3, 64])
@pytest.mark.parametrize("size", LARGE)
def test_large_banks_too(size: int, block: int) -> None:
    placement = Placement(size, seed=2**63 - 1, bank=2**31 - 2, block=block)
    lap, position = np.array([[2**31 // size]]), np.arange(size)
    entries = placement.entries(lap, position)[0]
    assert (np.bincount(entries, minlength=size) == 1).all()
    assert (placement.positions(lap[0], entries) == position).all()


@pytest.mark.parametrize("block", [1, 7])
def test_the_largest_bank_is_in_range_and_inverted(block: int) -> None:
    placement = Placement(2**31 - 1, seed=5, block=block)
    position = np.unique(np.linspace(0, 2**31 - 2, 10_000).astype(np.int64))
    entries = placement.entries(np.array([0]), position)
    assert 0 <= entries.min() <= entries.max() < 2**31 - 1
    assert len(np.unique(entries)) == len(position)
    assert (placement.positions(np.array([0]), entries) == position).all()


@pytest.mark.parametrize(("size", "block"), [(1, 1), (2, 1), (101, 1), (101, 3), (1025, 16), (65_537, 1), (65_537, 64)])
def test_torch_computes_the_same_as_numpy(size: int, block: int) -> None:
    placement = Placement(size, seed=11, bank=2, block=block)
    lap, position = np.arange(4)[:, None], np.arange(size)
    numpy = [f(lap, position) for f in (placement.entries, placement.positions, placement.negative)]
    lap, position = torch.from_numpy(lap), torch.from_numpy(position)
    for ours, theirs in zip(numpy, (placement.entries, placement.positions, placement.negative), strict=True):
        assert (torch.from_numpy(ours) == theirs(lap, position)).all()


@pytest.mark.parametrize(("size", "block"), [(1, 1), (2, 1), (3, 1), (97, 1), (100, 3), (101, 16), (40, 64), (1025, 1)])
@pytest.mark.parametrize(("seed", "bank"), [(0, 0), (7, 3), (2**40 + 5, 1)])
def test_equals_the_twin_in_python_integers(size: int, block: int, seed: int, bank: int) -> None:
    entries, signs = laps_of(Placement(size, seed, bank, block), 5)
    for lap in range(5):
        assert (entries[lap].tolist(), signs[lap].tolist()) == reference.entries_and_signs(size, seed, bank, block, lap)


@pytest.mark.parametrize("block", [3, 16])
def test_runs_of_a_block_move_together(block: int) -> None:
    entries = laps_of(Placement(1000, seed=1, block=block), 6)[0]
    for lap in entries:
        starts = np.flatnonzero(lap % block == 0)
        lengths = np.diff([*starts, 1000])
        assert sorted(lengths.tolist()) == sorted([block] * (1000 // block) + [1000 % block] * (1000 % block > 0))
        for start, length in zip(starts, lengths, strict=True):
            assert (np.diff(lap[start : start + length]) == 1).all()
    assert len({lap.tolist().index(999) for lap in entries}) > 1  # the short run moves as well


# ---- pinned


def _vector(size: int, seed: int, bank: int, block: int, lap: int) -> dict[str, object]:
    placement = Placement(size, seed, bank, block)
    position = np.unique(np.linspace(0, size - 1, 12).astype(np.int64))
    entries = placement.entries(np.array([lap]), position)
    return {
        "arguments": [size, seed, bank, block, lap],
        "positions": position.tolist(),
        "entries": entries.tolist(),
        "signs": (1 - 2 * placement.negative(np.array([lap]), position)).tolist(),
        "checksum": placement.checksum(min(3 * size + 5, 2**31 - 1)),
    }


def write_golden() -> None:
    """Writes the vectors anew, only together with a new `VERSION` and a new file name:
    `PYTHONPATH=tests python tests/rpg/test_placement.py`."""
    cases = [
        *((size, 0, 0, 1, 0) for size in (1, 2, 3, 10, 97, 1024, 36_864, 65_537, 1_000_003, 2**31 - 1)),
        *((1_000_003, seed, 0, 1, 5) for seed in (1, 2**32, 2**63 - 1)),
        *((250_000, 0, bank, 1, 3) for bank in (1, 2, 2**31 - 1)),
        *((10_007, 4, 1, block, 2) for block in (3, 16, 64, 20_000)),
        (1, 9, 0, 1, 2**31 - 2),
        (50_000, 0, 0, 1, 42_949),
    ]
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(_vector(*case)) for case in cases) + "\n]\n", encoding="utf-8")


@pytest.mark.parametrize("vector", json.loads(GOLDEN.read_text(encoding="utf-8")), ids=lambda v: str(v["arguments"]))
def test_golden_vectors(vector: dict[str, object]) -> None:
    assert _vector(*vector["arguments"]) == vector  # type: ignore[misc]


def test_checksum_tells_placements_apart() -> None:
    sums = [
        placement.checksum(generated)
        for placement in (
            Placement(1000),
            Placement(1001),
            Placement(1000, seed=1),
            Placement(1000, seed=2**32),
            Placement(1000, bank=1),
            Placement(1000, block=2),
            Placement(1000, block=2000),
        )
        for generated in (0, 1, 999, 5000, 5001)
    ]
    assert len(set(sums)) == len(sums)
    assert all(0 <= checksum < 2**32 for checksum in sums)


# ---- as good as random. Seeds are fixed; each bound is 5 deviations or more, and a bad construction misses it by far.


def prefix_mix_and_rotate(size: int, seed: int, laps: int) -> np.ndarray:
    """Looks random and is not: rotate the ring, mix its longest prefix of 2^k places, rotate again."""
    bits = size.bit_length() - 1
    keys = np.random.Generator(np.random.Philox(key=seed)).integers(0, size, (2, laps, 1))
    x = (np.arange(size) + keys[0]) % size
    mixed = x
    for constant in (0x2C1B3C6D, 0x297A2D39, 0x21F0AAAD):
        mixed = (mixed ^ (mixed >> (bits // 2))) * constant % 2**bits
    return (np.where(x < 2**bits, mixed, x) + keys[1]) % size


def repeats_of_differences(entries: np.ndarray, distance: int) -> float:
    """Deviations from chance of how often entry(p + distance) - entry(p) mod N is the same on two laps."""
    laps, size = entries.shape
    differences = (entries[:, distance:] - entries[:, :-distance]) % size
    differences.sort(axis=0)
    # Runs of r equal values are r(r-1)/2 pairs: count pairs by shifts until none is left.
    repeats = 0
    for shift in range(1, laps):
        equal = int((differences[shift:] == differences[:-shift]).sum())
        if not equal:
            break
        repeats += equal
    return z_of_count(repeats, (size - distance) * laps * (laps - 1) / 2 / (size - 1))


@pytest.mark.parametrize(("size", "seeds"), [(1009, 4), (10_007, 2), (16_384, 1)])
def test_differences_of_neighbours_do_not_repeat_over_200_laps(size: int, seeds: int) -> None:
    side = -(-size // (int((size - 1) ** 0.5) + 1))  # places so far apart share one half of the Feistel pair
    for seed in range(seeds):
        entries = laps_of(Placement(size, seed), 200)[0].astype(np.int32)
        for distance in (1, 2, 9, side):
            assert abs(repeats_of_differences(entries, distance)) < 6, (seed, distance)


@pytest.mark.parametrize("size", [10_007, 16_384])
def test_control_the_difference_test_finds_the_bad_construction(size: int) -> None:
    entries = prefix_mix_and_rotate(size, 0, 200)
    assert all((np.sort(lap) == np.arange(size)).all() for lap in entries[:5])
    if size == 16_384:  # where the prefix is the whole bank, no lap's entries show a trace of their positions …
        assert abs(np.corrcoef(np.arange(size), entries)[0, 1:]).max() * size**0.5 < 5
    assert repeats_of_differences(entries, 1) > 100  # … and yet they repeat each other


def uniformity(entries: np.ndarray, bins: int) -> float:
    """χ² of (position, entry) in `bins` × `bins` cells, as deviations from its expectation; (laps, N) entries."""
    laps, size = entries.shape
    edges = np.arange(size) * bins // size
    counts = np.bincount((edges[None, :] * bins + edges[entries]).ravel(), minlength=bins**2).reshape(bins, bins)
    width = np.bincount(edges, minlength=bins)
    expected = laps * np.outer(width, width) / size
    # Rows and columns of every lap have fixed sums: permutations scatter by size/(size - 1) more than the usual law.
    chi2 = float(((counts - expected) ** 2 / expected).sum()) * (size - 1) / size
    freedom = (bins - 1) ** 2
    return (chi2 - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize(
    ("size", "laps", "bins"),
    [(2, 3000, 2), (4, 3000, 4), (16, 5000, 16), (37, 3000, 37), (101, 2000, 101), (10_007, 60, 64)],
)
def test_positions_and_entries_are_uniform_over_laps_and_over_seeds(size: int, laps: int, bins: int) -> None:
    assert abs(uniformity(laps_of(Placement(size, seed=1), laps)[0], bins)) < 5
    lap, position = np.zeros((1, 1), np.int64), np.arange(size)
    seeds = min(laps, 600)
    over_seeds = np.concatenate([Placement(size, seed=seed).entries(lap, position) for seed in range(seeds)])
    assert abs(uniformity(over_seeds, bins if seeds == laps or bins < 20 else 8)) < 5


def test_a_million_entries_are_uniform() -> None:
    assert abs(uniformity(laps_of(Placement(1_000_003, seed=2), 3)[0], 200)) < 5


@pytest.mark.parametrize("size", range(2, 16))
def test_tiny_banks_are_nearly_uniform_and_reach_every_pair(size: int) -> None:
    # Four rounds on so few elements cannot be ideal: every entry comes up within 15 %, every pair of entries at all.
    laps = 20_000
    entries = laps_of(Placement(size, seed=4), laps)[0]
    counts = np.stack([np.bincount(column, minlength=size) for column in entries.T])
    assert abs(counts * size / laps - 1).max() < 0.15
    pairs = np.bincount(entries[:, 0] * size + entries[:, 1], minlength=size**2).reshape(size, size)
    assert (pairs[~np.eye(size, dtype=bool)] > 0).all()


def test_signs_are_balanced_overall_by_lap_by_entry_and_by_position() -> None:
    entries, signs = laps_of(Placement(1009, seed=6), 1000)
    laps, size = signs.shape
    by_entry = np.zeros(size)
    np.add.at(by_entry, entries, signs)
    assert abs(signs.sum()) < 5 * signs.size**0.5
    for sums, uses in ((signs.sum(1), size), (by_entry, laps), (signs.sum(0), laps)):
        chi2 = float((sums**2 / uses).sum())
        assert abs(chi2 - len(sums)) < 5 * (2 * len(sums)) ** 0.5
        assert abs(sums).max() < 5.5 * uses**0.5


def test_sign_is_independent_of_the_entry_and_of_the_neighbour() -> None:
    entries, signs = laps_of(Placement(10_007, seed=8), 60)
    bins = entries * 50 // 10_007
    sums = np.zeros(50)
    np.add.at(sums, bins, signs)
    uses = np.bincount(bins.ravel(), minlength=50)
    assert abs((sums**2 / uses).sum() - 50) < 5 * 100**0.5
    for parity in ((entries & 1) * 2 - 1, (entries >> 3 & 1) * 2 - 1, np.where(entries > 5003, 1, -1)):
        assert abs((parity * signs).sum()) < 5 * signs.size**0.5
    for distance in (1, 2, 3, 8, 9, 16, 100, 101):
        assert abs((signs[:, distance:] * signs[:, :-distance]).sum()) < 5 * signs.size**0.5


Family = Callable[[int], Placement]
FAMILIES: dict[str, Family] = {
    "seeds": lambda i: Placement(5003, seed=i),
    "high seeds": lambda i: Placement(5003, seed=i << 32),
    "banks": lambda i: Placement(5003, bank=i),
}


@pytest.mark.parametrize("family", ["laps", *FAMILIES])
def test_laps_seeds_and_banks_are_independent(family: str) -> None:
    count, size = 50, 5003
    if family == "laps":
        entries, signs = laps_of(Placement(size, seed=1), count)
    else:
        placed = [laps_of(FAMILIES[family](i), 1) for i in range(count)]
        entries, signs = (np.concatenate(parts) for parts in zip(*placed, strict=True))
    pairs = list(itertools.combinations(range(count), 2))
    coincidences = np.array([(entries[i] == entries[j]).sum() for i, j in pairs])
    # Equal entries at one position of two random permutations: Poisson with mean 1.
    assert abs(coincidences.mean() - 1) < 5 * len(pairs) ** -0.5
    assert abs(coincidences.var() - 1) < 5 * (3 / len(pairs)) ** 0.5
    assert coincidences.max() <= 9
    products = np.array([signs[i] @ signs[j] for i, j in pairs]) / size**0.5
    assert abs(products).max() < 5.5
    assert abs((products**2).mean() - 1) < 5 * (2 / len(pairs)) ** 0.5
    # An entry's signs on two laps, compared entry by entry.
    by_entry = np.take_along_axis(signs, np.argsort(entries, axis=1), axis=1)
    products = np.array([by_entry[i] @ by_entry[j] for i, j in pairs]) / size**0.5
    assert abs(products).max() < 5.5
    # An entry's positions on two laps are uncorrelated.
    positions = np.argsort(entries, axis=1) - (size - 1) / 2
    correlations = np.corrcoef(positions)[np.triu_indices(count, 1)] * size**0.5
    assert abs(correlations).max() < 5.5


def test_a_bank_and_the_next_laps_of_another_do_not_meet() -> None:
    # Keys step with the lap: no bank may be another bank's ring a few laps later.
    size, laps = 5003, 12
    rings = np.concatenate([laps_of(Placement(size, seed, bank), laps)[0] for seed in range(2) for bank in range(3)])
    assert max((rings[i] == rings[j]).sum() for i, j in itertools.combinations(range(len(rings)), 2)) <= 9


# ---- errors and limits


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 0}, "`size` is 0: "),
        ({"size": -1}, "`size` is -1: "),
        ({"size": 2**31}, "`size` is 2147483648: "),
        ({"size": 5, "seed": -1}, "`seed` is -1: "),
        ({"size": 5, "seed": 2**63}, "`seed` is 9223372036854775808: "),
        ({"size": 5, "bank": -1}, "`bank` is -1: "),
        ({"size": 5, "bank": 2**31}, "`bank` is 2147483648: "),
        ({"size": 5, "block": 0}, "`block` is 0: give an integer from 1 to 2147483647"),
    ],
)
def test_arguments_out_of_range_are_one_clear_line(arguments: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match="`") as error:
        Placement(**arguments)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


def test_mix_is_a_bijection_with_avalanche() -> None:
    x = np.arange(2**17, dtype=np.int64)
    assert len(np.unique(mix(x))) == len(x)
    assert len(np.unique(mix(x << 15))) == len(x)
    words = np.random.Generator(np.random.Philox(key=0)).integers(0, 2**32, 4_000)
    for bit in range(32):
        flips = (mix(words) ^ mix(words ^ (1 << bit))).astype("<u4").view(np.uint8).reshape(-1, 4)
        rates = np.unpackbits(flips, axis=1).mean(axis=0)
        assert 0.45 < rates.min() <= rates.max() < 0.55


if __name__ == "__main__":
    write_golden()
