"""Balancing of tasks: what reaches the gradients, in one process and in two, and what a resumed run carries on."""

from __future__ import annotations

import csv
import functools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from runs import assert_same_end, at, send, two_processes
from safetensors.torch import load_file
from torch import Tensor, nn
from torchjd import aggregation
from toy import BATCH, PER_EPOCH, SAMPLES, VALIDATION, Noise, Toy, ToyConfig, config

from rpgmt.config import BalanceConfig, ConfigError, config_class, from_dict
from rpgmt.config.schema import GradientMethods, LossWeights
from rpgmt.config.validation import leaves
from rpgmt.data.loader import ResumableLoader
from rpgmt.engine.balance import GradientBalancing, LossWeighting, Sum, make_balancer
from rpgmt.engine.checkpoint import load_checkpoint, save_checkpoint
from rpgmt.engine.joint_losses import joint_losses
from rpgmt.engine.loop import fit
from rpgmt.engine.signals import Interrupted
from rpgmt.engine.task import Batch, Outputs, Task
from rpgmt.errors import UserError
from rpgmt.models.refinement import Refinement
from rpgmt.rpg.convert import convert

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")

METHODS = (*get_args(LossWeights), *get_args(GradientMethods))
GRADIENT_METHODS = METHODS[METHODS.index("pcgrad") :]
HEADS = {"sum": 1, "edge": 2, "level": 1}


def refinement(include: Sequence[str] = ("stages.*",), heads: dict[str, int] = HEADS) -> Refinement:
    torch.manual_seed(5)
    trunk = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    stages = [nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.ReLU()) for _ in range(2)]
    model = Refinement(trunk, stages, 6, heads)
    convert(model, 150, scope="global", include=include)
    return model


class ThreeTasks(Task):
    """A refinement with three heads, one of which has but few valid targets."""

    name = "three"
    monitor = "score"

    def __init__(self, balance: str, task_weights: dict[str, float] | None = None, **model: Any) -> None:
        self.model = refinement(**model)
        self.train_data = Noise(SAMPLES, 1)
        self.val_data = Noise(VALIDATION, 2)
        self.balancing = from_dict(BalanceConfig, {"balance": balance, "task_weights": task_weights})
        self.batches = 0
        self.interrupt_at: int | None = None

    def images(self, batch: Batch) -> Tensor:
        return batch["image"]

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        image, valid = batch["image"], batch["valid"][:, None, None, None]
        targets = {"sum": image.sum(1, keepdim=True), "edge": image[:, :2] - image[:, 1:], "level": 3 - image[:, :1]}
        losses = {}
        for k, output in enumerate(outputs, start=1):
            for name, prediction in output.items():
                error = (prediction - targets[name]) ** 2
                counted = valid if name == "level" else torch.ones_like(valid)
                losses[f"stage_{k}/{name}"] = ((error * counted).sum(), counted.sum() * error[0].numel())
        if self.model.training:
            if self.batches == self.interrupt_at:
                send(signal.SIGINT)
            self.batches += 1
        return losses

    def predictions(self, outputs: Outputs, batch: Batch) -> list[Any]:
        return outputs[-1]["sum"].double().mean((1, 2, 3)).tolist()

    def metrics(self, predictions: list[Any]) -> dict[str, float | None]:
        return {"score": -sum(sorted(predictions))}


def first_batch(task: ThreeTasks, count: int = BATCH) -> Batch:
    batch = torch.utils.data.default_collate([task.train_data[0, index] for index in range(count)])
    return {k: v.to(next(task.model.parameters()).dtype) if v.is_floating_point() else v for k, v in batch.items()}


def losses_of(task: ThreeTasks) -> tuple[list[str], Tensor, Tensor]:
    batch = first_batch(task)
    losses = task.losses(task.model(batch["image"]), batch)
    return [*losses], *joint_losses(losses)


def balanced_gradients(task: ThreeTasks, balancer: GradientBalancing, scale: float = 1.0) -> dict[str, Tensor]:
    task.model.zero_grad()
    loss = balancer(*losses_of(task))
    balancer.backward(loss * scale, (0, 0))
    return {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}


def task_gradient(task: ThreeTasks, name: str) -> dict[str, Tensor]:
    """Of one task's loss, by plain backward."""
    task.model.zero_grad()
    names, losses, _ = losses_of(task)
    sum(loss for of, loss in zip(names, losses, strict=True) if of.endswith(f"/{name}")).backward()
    return {key: p.grad if p.grad is not None else torch.zeros_like(p) for key, p in task.model.named_parameters()}


def balancing(task: ThreeTasks, aggregator: nn.Module) -> GradientBalancing:
    return GradientBalancing(task.model.tasks, None, task.model, aggregator)


CASES = {
    "bank in the stages": ["stages.*"],
    "bank in trunk, stages and heads": ["trunk.*", "stages.*", "heads.*", "feedback.*"],
    "bank in the heads alone": ["heads.*"],
}


SOLVERS = {"upgrad": "quadprog", "dualproj": "quadprog", "cagrad": "cvxpy", "nash_mtl": "ecos"}


def needs_solver_of(method: str) -> None:
    """Some methods' are of an extra."""
    if method in SOLVERS:
        pytest.importorskip(SOLVERS[method], reason=f"{SOLVERS[method]} is not installed (the extra balance)")


@pytest.fixture(autouse=True)
def solver(request: pytest.FixtureRequest) -> None:
    if hasattr(request.node, "callspec"):
        needs_solver_of(request.node.callspec.params.get("method"))


@pytest.fixture(params=CASES.values(), ids=CASES)
def task(request: pytest.FixtureRequest) -> Iterator[ThreeTasks]:
    task = ThreeTasks("pcgrad", include=request.param)
    task.model.double()
    return task


def test_the_sum_of_the_rows_is_the_plain_gradient(task: ThreeTasks) -> None:
    task.model.zero_grad()
    losses_of(task)[1].sum().backward()
    plain = {name: p.grad for name, p in task.model.named_parameters() if p.grad is not None}
    ours = balanced_gradients(task, balancing(task, aggregation.Sum()))
    assert plain.keys() == ours.keys()
    for name in plain:
        torch.testing.assert_close(ours[name], plain[name], rtol=1e-12, atol=1e-14)


class Seen(aggregation.PCGrad):
    """PCGrad that keeps what it was given."""

    def forward(self, matrix: Tensor) -> Tensor:
        self.matrix = matrix.clone()
        return super().forward(matrix)


def test_every_loss_reaches_the_aggregation_of_all_that_is_shared(task: ThreeTasks) -> None:
    """One row a task, and in its columns that task's gradient of bank, trunk, stages and earlier heads."""
    aggregator = Seen()
    ours = balanced_gradients(task, balancing(task, aggregator))
    ours = {name: gradient.clone() for name, gradient in ours.items()}
    names = {id(p): name for name, p in task.model.named_parameters()}
    shared = [names[id(p)] for p in task.model.shared_parameters()]
    assert "bank.values" in shared
    rows = [task_gradient(task, name) for name in HEADS]
    for row, gradients in zip(aggregator.matrix, rows, strict=True):
        parts = row.split([gradients[name].numel() for name in shared])
        for name, part in zip(shared, parts, strict=True):
            torch.testing.assert_close(part, gradients[name].flatten(), rtol=1e-12, atol=1e-14)
            assert part.any(), name
    # What is a task's own has its plain gradient.
    for name, gradients in zip(HEADS, rows, strict=True):
        for parameter in task.model.task_parameters(name):
            torch.testing.assert_close(ours[names[id(parameter)]], gradients[names[id(parameter)]], rtol=1e-12, atol=1e-14)
    assert not torch.allclose(torch.cat([ours[name].flatten() for name in shared]), aggregator.matrix.sum(0))  # a conflict


class Conflict(nn.Module):
    """Two tasks whose gradients on the one shared parameter are (1, 0) and (-1, 1); each has a parameter of its own."""

    tasks = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.own = nn.ParameterDict({name: torch.ones(1, dtype=torch.float64) for name in self.tasks})

    def shared_parameters(self) -> list[nn.Parameter]:
        return [self.shared]

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        return [self.own[name]]

    def losses(self) -> Tensor:
        x, y = self.shared
        return torch.stack([x * self.own["a"], (y - x) * self.own["b"]]).squeeze(1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # a = (1, 0), b = (-1, 1), a·b = -1. PCGrad: a + b/2 = (½, ½) and b + a = (0, 1).
        ("pcgrad", (0.5, 1.5)),
        # The shortest convex combination: α = (0.6, 0.4).
        ("mgda", (0.2, 0.4)),
        # The mean of the projections of a and b onto the dual cone, which PCGrad's are with two tasks.
        ("upgrad", (0.25, 0.75)),
        # g0 = (0, ½) conflicts with none, so DualProj leaves it.
        ("dualproj", (0.0, 0.5)),
    ],
)
def test_a_conflict_by_hand(method: str, expected: tuple[float, float]) -> None:
    task = ThreeTasks(method)
    task.model = model = Conflict()
    balancer = make_balancer(task)
    balancer.backward(balancer(["a", "b"], model.losses(), torch.zeros(5)), (0, 0))
    torch.testing.assert_close(model.shared.grad, torch.tensor(expected).double(), rtol=0, atol=2e-3)
    assert model.own["a"].grad.item() == model.own["b"].grad.item() == 0  # x, and y - x, at the origin


def test_cagrad_by_hand() -> None:
    """The direction within c · |g0| of the mean gradient g0 whose worst task gains most (CAGrad, section 3.1), on a grid."""
    needs_solver_of("cagrad")
    task = ThreeTasks("cagrad")
    task.model = model = Conflict()
    balancer = make_balancer(task)
    balancer.backward(balancer(["a", "b"], model.losses(), torch.zeros(5)), (0, 0))
    rows, g0 = torch.tensor([[1.0, 0], [-1, 1]]).double(), torch.tensor([0, 0.5]).double()
    angle = torch.linspace(0, 2 * torch.pi, 100_001, dtype=torch.float64)
    candidates = g0 + 0.4 * 0.5 * torch.stack([angle.cos(), angle.sin()], 1)
    best = candidates[(candidates @ rows.T).amin(1).argmax()]
    torch.testing.assert_close(model.shared.grad, best, rtol=0, atol=1e-3)


def test_a_task_without_targets_has_no_say() -> None:
    """MGDA would stand still: the shortest combination with a gradient of 0 is 0."""
    task = ThreeTasks("mgda")
    task.model = model = Conflict()
    balancer = make_balancer(task)
    losses = model.losses() * torch.tensor([1.0, 0.0])
    balancer.backward(balancer(["a", "b"], losses, torch.zeros(5)), (0, 0))
    assert model.shared.grad.tolist() == [1, 0]


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_the_scale_of_float16_does_not_change_the_method(method: str) -> None:
    gradients = []
    for scale in (1.0, 2.0**16):
        task = ThreeTasks(method)
        gradients.append(balanced_gradients(task, make_balancer(task), scale))
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[1][name] / 2**16, gradient), name


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_overflow_is_handed_on_for_the_scaler_to_see(method: str) -> None:
    task = ThreeTasks(method)
    balancer = make_balancer(task)
    before = balancer.state()
    gradients = balanced_gradients(task, balancer, float("inf"))
    assert not torch.stack([g.isfinite().all() for g in gradients.values()]).all()
    assert str(balancer.state()) == str(before)


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(tmp_path: Path, method: str) -> None:
    task_weights = {"sum": 1.0, "edge": 0.5, "level": 2.0} if method != "equal" else None
    task = ThreeTasks(method, task_weights)
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    fit(task, config(tmp_path / "run", max_steps=2))
    for name, p in task.model.named_parameters():
        assert bool(p.isfinite().all())
        assert not torch.equal(p, before[name]), name


def test_weights_of_tasks_are_factors_on_losses(tmp_path: Path) -> None:
    task_weights = {"sum": 1.0, "edge": 0.5, "level": 2.0}
    task = ThreeTasks("fixed", task_weights)
    fit(task, config(tmp_path / "fixed", optimizer="sgd", max_steps=3, schedule="constant"))

    twin = ThreeTasks("equal")
    stepper = torch.optim.SGD(twin.model.parameters(), 1e-2, momentum=0.9)
    loader = ResumableLoader(twin.train_data, BATCH, seed=0)
    loader.stop = 3
    for batch in loader:
        stepper.zero_grad()
        losses = twin.losses(twin.model(batch["image"]), batch)
        sum(task_weights[name.rpartition("/")[2]] * s / n for name, (s, n) in losses.items()).backward()
        stepper.step()
    for mine, his in zip(task.model.parameters(), twin.model.parameters(), strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-6)


def test_accumulation_and_clipping_act_on_what_the_method_makes(tmp_path: Path) -> None:
    """Two batches make a step: the mean of their aggregated gradients, clipped."""
    needs_solver_of("upgrad")
    task = ThreeTasks("upgrad")
    fit(task, config(tmp_path / "run", optimizer="sgd", accumulate=2, clip_norm=0.1, max_steps=2, schedule="constant"))

    twin = ThreeTasks("upgrad")
    balancer = make_balancer(twin)
    parameters = list(twin.model.parameters())
    stepper = torch.optim.SGD(parameters, 1e-2, momentum=0.9)
    loader = ResumableLoader(twin.train_data, BATCH, seed=0)
    loader.stop = 4
    total = [torch.zeros_like(p) for p in parameters]
    for number, batch in enumerate(loader, start=1):
        twin.model.zero_grad()
        losses = twin.losses(twin.model(batch["image"]), batch)
        balancer.backward(balancer([*losses], *joint_losses(losses)), (0, number - 1))
        total = [t + p.grad / 2 for t, p in zip(total, parameters, strict=True)]
        if number % 2 == 0:
            for p, gradient in zip(parameters, total, strict=True):
                p.grad = gradient
            assert nn.utils.clip_grad_norm_(parameters, 0.1) > 0.1
            stepper.step()
            total = [torch.zeros_like(p) for p in parameters]
    for mine, his in zip(task.model.parameters(), parameters, strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", [{"precision": "bf16"}, {"channels_last": True}])
def test_precision_and_memory_format_change_little(tmp_path: Path, values: dict[str, Any]) -> None:
    needs_solver_of("upgrad")
    for name, extra in (("a", {}), ("b", values)):
        fit(ThreeTasks("upgrad"), config(tmp_path / name, optimizer="sgd", max_steps=3, **extra))
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.allclose(a[name].float(), b[name].float(), atol=2e-2) for name in a)
    assert not all(torch.equal(a[name], b[name]) for name in a) or values == {"channels_last": True}


# ------------------------------------------------------------------------------------------------- weights of losses


def table(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_uncertainty_learns_its_weights_as_the_paper_says(tmp_path: Path) -> None:
    """Σ exp(-s)/2 · loss + s/2, with s in the optimizer."""
    task = ThreeTasks("uncertainty")
    out = fit(task, config(tmp_path / "run", optimizer="adam", weight_decay=0.0, max_steps=4, schedule="constant"))

    twin = ThreeTasks("equal")
    s = nn.Parameter(torch.zeros(3))
    stepper = torch.optim.Adam(
        [
            {"params": [p for n, p in twin.model.named_parameters() if n != "bank.values"]},
            {"params": [twin.model.bank.values], "lr": 1e-2 * twin.model.bank.uses**0.5},
            {"params": [s]},
        ],
        lr=1e-2,
    )
    loader = ResumableLoader(twin.train_data, BATCH, seed=0)
    loader.stop = 4
    for batch in loader:
        stepper.zero_grad()
        losses = twin.losses(twin.model(batch["image"]), batch)
        factors = (-s).exp() / 2
        used = factors.detach().clone()
        total = s.sum() / 2
        for name, (value, count) in losses.items():
            total = total + factors[[*HEADS].index(name.rpartition("/")[2])] * value / count
        total.backward()
        stepper.step()
    for mine, his in zip(task.model.parameters(), twin.model.parameters(), strict=True):
        torch.testing.assert_close(mine, his, rtol=1e-4, atol=1e-5)
    row = table(out)[-1]
    assert [float(row[f"weight/{name}"]) for name in HEADS] == pytest.approx(used.tolist(), rel=1e-4)
    assert used.min() != used.max()
    group = load_checkpoint(out / "checkpoints/last.ckpt")["optimizer"]["param_groups"][-1]
    assert (group["name"], group["weight_decay"], group["lr"]) == ("balance", 0.0, 1e-2)


def test_dwa_follows_the_losses_of_two_epochs(tmp_path: Path) -> None:
    out = fit(ThreeTasks("dwa", {"sum": 1.0, "edge": 2.0, "level": 1.0}), config(tmp_path / "run", epochs=4))
    rows = table(out)
    assert len(rows) == 4

    def losses(row: dict[str, str]) -> Tensor:
        """Factors on the tasks do not matter for how fast a loss falls."""
        return torch.tensor([float(row[f"train/loss/stage_1/{n}"]) + float(row[f"train/loss/stage_2/{n}"]) for n in HEADS])

    for number, row in enumerate(rows):
        expected = torch.ones(3)
        if number >= 2:
            expected = 3 * torch.softmax(losses(rows[number - 1]) / losses(rows[number - 2]) / 2, 0)
        found = [float(row[f"weight/{name}"]) for name in HEADS]
        assert found == pytest.approx((expected * torch.tensor([1, 2, 1])).tolist(), rel=1e-3), number
    assert rows[-1]["weight/sum"] != rows[0]["weight/sum"]


def test_dwa_bears_a_task_without_targets() -> None:
    balancer = make_balancer(ThreeTasks("dwa"))
    names = [f"stage_1/{name}" for name in HEADS]
    for _ in range(4):
        losses = torch.tensor([2.0, 1.0, 0.0], requires_grad=True)
        report = torch.tensor([2.0, 1, 0, 1, 1, 0, 0], dtype=torch.float64)
        (gradient,) = torch.autograd.grad(balancer(names, losses, report), losses)
        assert gradient[:2].isfinite().all()
        assert (gradient[:2] > 0).all()
        balancer.end_epoch()


# --------------------------------------------------------------------------------------------- processes, resuming


@pytest.mark.parametrize("method", ["pcgrad", "graddrop", "uncertainty", "dwa"])
def test_two_processes_do_what_one_does(tmp_path: Path, method: str) -> None:
    values = {"lr": 1e-3, "epochs": 4, "optimizer": "sgd"}
    fit(ThreeTasks(method), config(tmp_path / "one", **values))
    out = tmp_path / "two"

    def start(rank: int) -> None:
        task = ThreeTasks(method)
        fit(task, config(out, devices=2, batch_size=BATCH // 2, **values))
        torch.save(task.model.state_dict(), tmp_path / f"{rank}.pt")

    assert two_processes(start) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    one = weights(tmp_path / "one")
    start_weights = ThreeTasks(method).model.state_dict()
    for name, tensor in one.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=2e-5)
    moved = max((one[name].double() - start_weights[name].double()).abs().max().item() for name in one)
    assert moved > 1e-2
    if method in ("uncertainty", "dwa"):
        for a, b in zip(table(tmp_path / "one"), table(out), strict=True):
            assert [float(a[f"weight/{n}"]) for n in HEADS] == pytest.approx([float(b[f"weight/{n}"]) for n in HEADS], rel=1e-4)


@pytest.mark.parametrize("method", ["uncertainty", "dwa", "nash_mtl", "gradvac", "pcgrad"])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, method: str) -> None:
    out, whole = tmp_path / "run", tmp_path / "whole"
    fit(ThreeTasks(method), config(whole, epochs=4))
    for interrupt_at in (1, 2 * PER_EPOCH - 3):  # in the first epoch; then, two batches on, at the end of the second
        task = ThreeTasks(method)
        task.interrupt_at = interrupt_at
        with pytest.raises(Interrupted):
            fit(task, config(out, epochs=4, resume=interrupt_at > 1))
    fit(ThreeTasks(method), config(out, epochs=4, resume=True))
    assert_same_end(out, whole)


@pytest.mark.parametrize("method", ["dwa", "nash_mtl", "gradvac", "uncertainty"])
def test_the_state_makes_a_difference(method: str) -> None:
    """What is carried on is what changes the next step: a new method of no past does another."""
    task = ThreeTasks(method)
    old, new, copy = (make_balancer(task) for _ in range(3))

    def step(balancer: Any) -> Tensor:
        task.model.zero_grad()
        loss = balancer(*losses_of(task))
        balancer.backward(loss, (0, 0))
        for p in balancer.parameters():
            with torch.no_grad():
                p -= 0.5 * p.grad
        balancer.end_epoch()
        with torch.no_grad():
            for p in task.model.parameters():
                p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
        return torch.cat([p.grad.flatten() for p in task.model.parameters()])

    for _ in range(3):
        step(old)
    saved = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    copy.load_state(old.state(), torch.device("cpu"))
    results = []
    for balancer in (old, copy, new):
        task.model.load_state_dict(saved, strict=False)
        results.append(step(balancer))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_checkpoint_of_before_still_loads(tmp_path: Path) -> None:
    out = tmp_path / "run"
    task = Toy()
    task.hook = at(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        fit(task, config(out))
    last = out / "checkpoints/last.ckpt"
    state = load_checkpoint(last)
    del state["balance"]
    save_checkpoint(last, state)
    fit(Toy(), config(out, resume=True))
    fit(Toy(), config(tmp_path / "whole"))
    assert_same_end(out, tmp_path / "whole")


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_solver_of("upgrad")
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=backend))
    for name, compiled in (("a", False), ("b", True)):
        fit(ThreeTasks("upgrad"), config(tmp_path / name, optimizer="sgd", max_steps=3, compile=compiled))
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.allclose(a[name].float(), b[name].float(), atol=1e-5) for name in a)


# ----------------------------------------------------------------------------------------------------------- errors


def test_equal_is_the_default_and_needs_no_names() -> None:
    assert isinstance(make_balancer(Toy()), Sum)
    assert isinstance(make_balancer(ThreeTasks("dwa")), LossWeighting)


@pytest.mark.parametrize(
    ("mapping", "line"),
    [
        ({"balance": "fixed"}, "`task_weights` is null: balance fixed needs one for each task, e.g. depth=2,keypoints=1"),
        ({"task_weights": {"a": 2}}, "`task_weights` is {'a': 2.0}: balance equal has none, give balance fixed"),
        ({"balance": "sum"}, "`balance` is 'sum': must be one of equal, fixed, uncertainty, dwa, pcgrad, "),
        ({"balance": "dwa", "task_weights": {"a": 0}}, "`task_weights` is {'a': 0}: must be a mapping of names to numbers"),
    ],
)
def test_configs_that_do_not_fit(mapping: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(BalanceConfig, mapping)
    assert str(error.value).startswith(line)


def test_the_flags() -> None:
    balance, task_weights = leaves(BalanceConfig)
    assert (balance.flag, task_weights.flag, task_weights.metavar) == ("--balance", "--task-weights", "NAME=X,...")
    for text, value in (("depth=2,keypoints=.5", {"depth": 2.0, "keypoints": 0.5}), ("null", None)):
        given = {"balance": "dwa", "task_weights": task_weights.from_text(text)}
        assert from_dict(BalanceConfig, given, flags=True).task_weights == value
    with pytest.raises(ConfigError, match=r"`--task-weights` is {'depth': -1}: must be a mapping of names to numbers"):
        from_dict(BalanceConfig, {"task_weights": task_weights.from_text("depth=-1")}, flags=True)


@pytest.mark.parametrize(
    ("task_weights", "line"),
    [
        ({"sum": 1, "egde": 1, "level": 1}, "`task_weights` has egde: the tasks are sum, edge, level"),
        ({"sum": 1, "level": 1}, "`task_weights` has no edge: give a weight for each of sum, edge, level"),
    ],
)
def test_weights_of_other_tasks(tmp_path: Path, task_weights: dict[str, float], line: str) -> None:
    for method in ("fixed", "dwa", "pcgrad"):
        with pytest.raises(UserError) as error:
            fit(ThreeTasks(method, task_weights), config(tmp_path / "run"))
        assert str(error.value) == line
        assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_say_enough(tmp_path: Path) -> None:
    task = Toy()
    task.balancing = BalanceConfig(balance="dwa")
    with pytest.raises(UserError, match="`balance` is dwa: the model of toy does not name its tasks, give equal"):
        fit(task, config(tmp_path / "run"))
    task.model.tasks = ("mean", "half")
    fit(task, config(tmp_path / "run", max_steps=1))
    task.balancing = BalanceConfig(balance="pcgrad")
    with pytest.raises(UserError, match="`balance` is pcgrad: the model of toy does not say what its tasks share"):
        fit(task, config(tmp_path / "other"))


@pytest.mark.parametrize(("method", "package"), [("upgrad", "quadprog"), ("cagrad", "cvxpy"), ("nash_mtl", "ecos")])
def test_a_solver_that_is_not_installed(method: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"`balance` is {method}: .*{package}.*; pip install 'rpgmt\[balance\]'$"):
        make_balancer(ThreeTasks(method))


@config_class
class BalancedConfig(ToyConfig):
    balancing: BalanceConfig = field(default_factory=BalanceConfig)


def test_another_balance_is_another_run(tmp_path: Path) -> None:
    train = config(tmp_path / "run", max_steps=1).train
    fit(ThreeTasks("dwa"), BalancedConfig(train=train, balancing=BalanceConfig(balance="dwa")))
    again = config(tmp_path / "run", max_steps=1, resume=True).train
    with pytest.raises(UserError, match=r"`balance` is pcgrad: the run in .* has dwa, which resuming cannot change"):
        fit(ThreeTasks("pcgrad"), BalancedConfig(train=again, balancing=BalanceConfig(balance="pcgrad")))
