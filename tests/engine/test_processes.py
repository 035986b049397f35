"""Several processes (gloo, on CPUs) do what one does with the joint batch."""

from __future__ import annotations

import csv
import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from runs import several_processes, two_processes
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel
from toy import PER_EPOCH, Net, Toy, config

from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.engine.finite import NonFiniteError
from rpgmt.engine.joint_losses import joint_losses
from rpgmt.engine.loop import fit
from rpgmt.engine.signals import Interrupted
from rpgmt.engine.task import Batch

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")


def toy_batch() -> Batch:
    samples = [Toy().train_data[0, index] for index in range(6)]
    batch = torch.utils.data.default_collate(samples)
    batch["valid"] = torch.tensor([1.0, 1, 0, 0, 0, 1])  # two in the first half, one in the other
    return {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}


@pytest.mark.parametrize("valid_in_second", [True, False])
def test_gradients_equal_the_joint_batch(tmp_path: Path, valid_in_second: bool) -> None:
    batch = toy_batch()
    batch["valid"][5] *= valid_in_second
    task = Toy(norm=False)
    model = task.model.double()
    losses, _ = joint_losses(task.losses(model(batch["image"]), batch))
    losses.sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()

    def target(rank: int) -> None:
        dist.init_process_group("gloo", rank=rank, world_size=2)
        half = {name: value[3 * rank : 3 * rank + 3] for name, value in batch.items()}
        wrapped = DistributedDataParallel(model)
        losses, report = joint_losses(task.losses(wrapped(half["image"]), half), stop=rank == 1)
        losses.sum().backward()
        torch.save(([p.grad for p in model.parameters()], report), tmp_path / f"{rank}.pt")
        dist.destroy_process_group()

    assert two_processes(target) == [0, 0]
    for rank in (0, 1):
        gradients, report = torch.load(tmp_path / f"{rank}.pt")
        for mine, his in zip(gradients, expected, strict=True):
            torch.testing.assert_close(mine, his, rtol=0, atol=1e-12)
        assert report[2:].tolist() == [6 * 64, (3 if valid_in_second else 2) * 64, 1]


def test_fit(tmp_path: Path) -> None:
    """Two processes with batches of 2, and four with batches of 1, train like one with batches of 4, and make one run folder.

    Neither divides the 21 samples to train on, nor the 7 to validate. Sums are made in another order, so that last bits differ.
    """
    values = {"lr": 1e-3, "epochs": 2, "ema": 0.5}
    fit(Toy(norm=False), config(tmp_path / "1", **values))
    one = load_file(tmp_path / "1" / "model.safetensors")
    metrics = json.loads((tmp_path / "1" / "metrics.json").read_text())
    assert metrics["steps"] == 2 * PER_EPOCH
    for count in (2, 4):
        out = tmp_path / str(count)
        own = config(out, devices=count, batch_size=4 // count, **values)
        assert several_processes(count, lambda rank, own=own: fit(Toy(norm=False), own)) == [0] * count
        for name, tensor in load_file(out / "model.safetensors").items():
            torch.testing.assert_close(tensor, one[name], rtol=1e-5, atol=1e-6)
        found = json.loads((out / "metrics.json").read_text())
        assert found["val"]["score"] == pytest.approx(metrics["val"]["score"], rel=1e-5)  # all samples, once
        assert found["steps"] == metrics["steps"]
        for mine, his in zip(losses(out), losses(tmp_path / "1"), strict=True):
            assert mine == pytest.approx(his, rel=1e-5)
        assert len(list(out.glob("events*"))) == 1


def losses(out: Path) -> list[float]:
    """Of training and validation, as metrics.csv has them."""
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(row[name]) for row in rows for name in ("train/loss", "val/loss") if row[name]]


def test_signal_to_one_process_stops_both(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def start(rank: int, resume: bool) -> None:
        task = Toy(norm=False)
        if rank == 1 and not resume:
            task.hook = lambda number, losses: os.kill(os.getpid(), signal.SIGINT) if number == PER_EPOCH + 1 else None
        try:
            fit(task, config(out, devices=2, batch_size=2, resume=resume))
        except Interrupted:
            os._exit(3)

    assert two_processes(lambda rank: start(rank, resume=False)) == [3, 0]
    assert load_checkpoint(out / "checkpoints/last.ckpt")["loader"]["epoch"] == 1
    assert two_processes(lambda rank: start(rank, resume=True)) == [0, 0]
    status = two_processes(lambda rank: fit(Toy(norm=False), config(tmp_path / "whole", devices=2, batch_size=2)))
    assert status == [0, 0]
    a, b = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_non_finite_loss_in_one_process_stops_both(tmp_path: Path) -> None:
    def start(rank: int) -> None:
        task = Toy(norm=False)

        def hook(number: int, losses: dict[str, Any]) -> None:
            if rank == 1 and number == 2:
                losses["stage_1/mean"] = (losses["stage_1/mean"][0] * float("nan"), losses["stage_1/mean"][1])

        task.hook = hook
        with pytest.raises(NonFiniteError, match=r"step 3: stage_1/mean = nan .* samples \d+, \d+, \d+, \d+;"):
            fit(task, config(tmp_path / "run", devices=2, batch_size=2))

    assert two_processes(start) == [0, 0]


def test_statistics_of_the_first_process_are_saved(tmp_path: Path) -> None:
    def start(rank: int) -> None:
        task = Toy()
        with pytest.warns(UserWarning, match="not synchronised") if rank == 0 else nullcontext():
            fit(task, config(tmp_path / "run", devices=2, batch_size=2, epochs=1))
        torch.save(task.model.state_dict(), tmp_path / f"{rank}.pt")

    assert two_processes(start) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first.keys() == Net(norm=True).state_dict().keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
