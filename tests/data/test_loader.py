"""The resumable stream of training batches, and the validation pass."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from rpgmt.data.loader import ResumableLoader, validation_loader

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


class Numbers:
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return {"epoch": key[0], "index": key[1]}


def keys(batches: Any) -> list[list[tuple[int, int]]]:
    return [list(zip(b["epoch"].tolist(), b["index"].tolist(), strict=True)) for b in batches]


def stream(count: int, batch_size: int, epochs: int, **arguments: Any) -> ResumableLoader:
    loader = ResumableLoader(Numbers(count), batch_size, **arguments)
    loader.stop = epochs * loader.batches_per_epoch
    return loader


def test_every_epoch_is_another_permutation() -> None:
    batches = keys(stream(12, 4, epochs=3, seed=5))
    assert len(batches) == 9
    epochs = [[key for batch in batches[start : start + 3] for key in batch] for start in (0, 3, 6)]
    for number, epoch in enumerate(epochs):
        assert [e for e, _ in epoch] == [number] * 12
        assert sorted(i for _, i in epoch) == list(range(12))
    orders = [tuple(i for _, i in epoch) for epoch in epochs]
    assert len({*orders, tuple(range(12))}) == 4
    assert keys(stream(12, 4, epochs=3, seed=5)) == batches
    assert keys(stream(12, 4, epochs=3, seed=6)) != batches


@pytest.mark.parametrize(("workers", "stops"), [(0, range(10)), (2, (4,))])
def test_goes_on_where_it_was_left(workers: int, stops: Any) -> None:
    whole = keys(stream(13, 4, epochs=3))
    for stop in stops:
        first = stream(13, 4, epochs=3, workers=workers)
        batches = iter(first)
        head = keys(islice(batches, stop))
        state = first.state_dict()
        assert state == {"epoch": stop // 3, "position": stop % 3}  # what is loaded ahead does not count
        second = stream(13, 4, epochs=3, workers=workers)
        second.load_state_dict(state)
        assert len(second) == 9 - stop
        assert head + keys(second) == whole


def test_processes_share_the_batches_of_one() -> None:
    one = keys(stream(26, 8, epochs=2))
    parts = [keys(stream(26, 4, epochs=2, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == one


def test_data_smaller_than_a_batch() -> None:
    (batch,) = keys(stream(3, 8, epochs=1))
    assert sorted(i for _, i in batch) == [0, 1, 2]
    parts = [keys(stream(3, 8, epochs=1, rank=rank, world_size=2))[0] for rank in (0, 1)]
    assert sorted(i for part in parts for _, i in part) == [0, 1, 2]
    with pytest.raises(ValueError, match="has 1 samples"):
        ResumableLoader(Numbers(1), 8, world_size=2)


def test_the_global_generator_stays() -> None:
    state = torch.get_rng_state()
    keys(stream(6, 2, epochs=1))
    keys(validation_loader(Numbers(3), 2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("world_size", [1, 3, 5])
def test_validation_visits_every_sample_once(world_size: int) -> None:
    parts = [keys(validation_loader(Numbers(10), 2, rank=r, world_size=world_size)) for r in range(world_size)]
    assert sorted(key for part in parts for batch in part for key in batch) == [(0, i) for i in range(10)]


def test_validation_with_workers_can_be_repeated() -> None:
    loader = validation_loader(Numbers(5), 2, workers=1)
    expected = [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]
    assert keys(loader) == keys(loader) == expected
