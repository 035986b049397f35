"""Balancing of tasks: how their losses become one loss, or their gradients one gradient.

equal         the sum of the losses
fixed         their sum with weights that the user gives
uncertainty   weights that are learned with the model (Kendall et al., CVPR 2018): Σ exp(-s)/2 · loss + s/2
dwa           weights by how fast each loss fell in the last two epochs (Liu et al., CVPR 2019, temperature 2)

All others are methods on gradients, of torchjd: what the losses share gets, instead of the sum of the tasks' gradients, what
the method makes of them, with the settings of its paper. What belongs to one task alone gets its plain gradient.

A task's loss is the sum of its stages', times its task weight.
"""

from __future__ import annotations

import abc
import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from rpgmt.engine.task import Task
from rpgmt.errors import UserError


@runtime_checkable
class MultiTaskModel(Protocol):
    """A model that can say which of its parameters which tasks reach."""

    @property
    def tasks(self) -> Sequence[str]: ...

    def shared_parameters(self) -> list[nn.Parameter]: ...

    def task_parameters(self, name: str, /) -> list[nn.Parameter]: ...


class Balancer(nn.Module, abc.ABC):
    """Makes the loss of a step, and then its gradients. `make_balancer` chooses the class.

    Args:
        tasks: names of the tasks, with which the names of their losses end.
        weights: factor on each task's loss; None for 1 each.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | None) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.task_weights = [1.0 if weights is None else weights[task] for task in self.tasks]

    @abc.abstractmethod
    def forward(self, names: Sequence[str], losses: Tensor, report: Tensor) -> Tensor:
        """Return the loss to call `backward` with.

        Args:
            names: of the losses, e.g. ``stage_1/depth``.
            losses: (L,) of this process; their means over all processes are the losses of the joint batch.
            report: (2 L + 1,), the same in all processes: sums over valid targets, numbers of these, and one more bit.
        """

    def backward(self, loss: Tensor, key: tuple[int, int]) -> None:
        """Add the gradients of the loss, times what was done to it since, to those of the parameters.

        Args:
            loss: what `forward` returned, perhaps scaled.
            key: seeds what is drawn at random; the same in all processes.
        """
        loss.backward()

    def end_epoch(self) -> None:
        """Tell that the batches of an epoch are over."""

    def weights(self) -> dict[str, float]:
        """Return the factor on each task's loss in the last step, where the method has such and changes it."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return what the method carries from step to step, for a checkpoint."""
        return {}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state` returned; the method's tensors are to be on ``device``."""

    def _of_tasks(self, names: Sequence[str], losses: Tensor) -> Tensor:
        """(L,) losses → (T,), the weighted one of each task."""
        places: dict[str, list[int]] = {task: [] for task in self.tasks}
        for i, name in enumerate(names):
            task = name.rpartition("/")[2]
            if task not in places:
                raise ValueError(f"the loss {name!r} belongs to no task of {', '.join(self.tasks)}")
            places[task].append(i)
        return torch.stack([w * losses[places[task]].sum() for task, w in zip(self.tasks, self.task_weights, strict=True)])


class Sum(Balancer):
    """The sum of all losses (equal)."""

    def forward(self, names: Sequence[str], losses: Tensor, report: Tensor) -> Tensor:
        return losses.sum()


class WeightedSum(Balancer):
    """The sum of all losses with the task weights (fixed)."""

    def forward(self, names: Sequence[str], losses: Tensor, report: Tensor) -> Tensor:
        return self._of_tasks(names, losses).sum()


class LossWeighting(Balancer):
    """The sum of all losses with weights that a scalarizer of torchjd chooses (uncertainty, dwa)."""

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | None, scalarizer: nn.Module) -> None:
        super().__init__(tasks, weights)
        self.scalarizer = scalarizer
        self._last = torch.zeros(0)  # the weights of the last step

    def forward(self, names: Sequence[str], losses: Tensor, report: Tensor) -> Tensor:
        # Weights come from the losses of all processes, and so are the same in all; this process's losses only carry the
        # gradient to the model.
        sums, counts, _ = report.split((len(names), len(names), 1))
        joint = sums / counts.clamp(min=torch.finfo(counts.dtype).tiny)  # 0 / 0 is 0: no target, no loss
        own = self._of_tasks(names, losses)
        # A task without a target in two epochs would have DWA divide 0 by 0.
        common = self._of_tasks(names, joint).to(own.dtype).clamp(min=torch.finfo(own.dtype).eps).requires_grad_()
        total: Tensor = self.scalarizer(common)
        (self._last,) = torch.autograd.grad(total, common, retain_graph=True)
        return total + (self._last * (own - own.detach())).sum()

    def end_epoch(self) -> None:
        step = getattr(self.scalarizer, "step", None)
        if step is not None:
            step()

    def weights(self) -> dict[str, float]:
        return {t: w * f for t, w, f in zip(self.tasks, self.task_weights, self._last.tolist(), strict=False)}

    def state(self) -> dict[str, Any]:
        return {"parameters": self.state_dict(), **_kept(self.scalarizer)}

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.load_state_dict(state["parameters"])
        _keep(self.scalarizer, state, device)


class GradientBalancing(Balancer):
    """One gradient from those of the tasks, by an aggregator of torchjd.

    The gradients of all losses are taken with respect to the parameters, not to features: a bank may generate weights of trunk
    and heads alike, and torchjd's `mtl_backward`, which divides the network at the features, would miss that.

    Args:
        tasks: names of the tasks.
        weights: factor on each task's loss; None for 1 each.
        model: tells which parameters are shared.
        aggregator: maps the tasks' gradients (T, N) to one (N,).
    """

    def __init__(
        self, tasks: Sequence[str], weights: Mapping[str, float] | None, model: MultiTaskModel, aggregator: nn.Module
    ) -> None:
        super().__init__(tasks, weights)
        self.aggregator = aggregator
        self._shared = model.shared_parameters()
        self._own = [model.task_parameters(task) for task in self.tasks]
        self._losses: Tensor | None = None

    def forward(self, names: Sequence[str], losses: Tensor, report: Tensor) -> Tensor:
        self._losses = self._of_tasks(names, losses)
        return self._losses.sum()

    def backward(self, loss: Tensor, key: tuple[int, int]) -> None:
        assert self._losses is not None
        losses, self._losses = self._losses, None
        # What Lightning did to the loss: divided it by the batches of a step, multiplied it by the scale of float16.
        (factors,) = torch.autograd.grad(loss, losses, retain_graph=True)

        count, sizes = len(self.tasks), [p.numel() for p in self._shared]
        own = [p for parameters in self._own for p in parameters]
        buffer = losses.new_zeros(count * sum(sizes) + sum(p.numel() for p in own), dtype=self._shared[0].dtype)
        matrix = buffer[: count * sum(sizes)].view(count, -1)
        rest = list(buffer[count * sum(sizes) :].split([p.numel() for p in own]))
        reached: set[nn.Parameter] = set()
        places = iter(rest)
        for k, parameters in enumerate(self._own):
            one_hot = torch.zeros_like(losses)
            one_hot[k] = factors[k]
            inputs = [*self._shared, *parameters]
            # One task after the other: the operator that generates weights has no rule for vmap.
            gradients = torch.autograd.grad(losses, inputs, one_hot, retain_graph=k + 1 < count, allow_unused=True)
            parts = [*matrix[k].split(sizes), *(next(places) for _ in parameters)]
            for parameter, gradient, part in zip(inputs, gradients, parts, strict=True):
                if gradient is not None:
                    reached.add(parameter)
                    part.copy_(gradient.reshape(-1))
        if dist.is_initialized():  # the hooks of DistributedDataParallel do not see these gradients
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()

        vector = self._aggregate(matrix, factors[0], key)
        for parameter, part in zip([*self._shared, *own], [*vector.split(sizes), *rest], strict=True):
            if parameter in reached:
                # In the memory format of the parameter, as fused optimizers want it.
                gradient = torch.empty_like(parameter).copy_(part.view(parameter.shape))
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def _aggregate(self, matrix: Tensor, factor: Tensor, key: tuple[int, int]) -> Tensor:
        """(T, N) gradients times a factor → (N,), times the same factor, which the method does not see."""
        largest = torch.linalg.vector_norm(matrix, ord=torch.inf, dim=1).cpu()
        if not bool(largest.isfinite().all()):  # float16 overflowed: the scaler will see it, and skip the step
            return matrix.sum(0)
        if not bool(largest.any()):
            return matrix[0]
        matrix = matrix / factor
        present = largest > 0
        if not bool(present.all()) and type(self.aggregator).__name__ not in _CARRIED:
            # A task without a valid target in the batch has no say. (What carries state knows the tasks by their rows.)
            matrix = matrix[present.to(matrix.device)]
        # Spawned, or it would be the seed of the first process's dropout.
        torch.manual_seed(int(np.random.SeedSequence(key, spawn_key=(1,)).generate_state(1, np.uint64)[0]))
        with warnings.catch_warnings():  # of how torchjd states NashMTL's problem to cvxpy
            warnings.filterwarnings("ignore", "You are solving a parameterized problem that is not DPP", UserWarning)
            aggregated: Tensor = self.aggregator(matrix)
        return aggregated * factor

    def state(self) -> dict[str, Any]:
        return _kept(self.aggregator)

    def load_state(self, state: Mapping[str, Any], device: torch.device) -> None:
        _keep(self.aggregator, state, torch.device("cpu"))  # where aggregators hold it


def make_balancer(task: Task) -> Balancer:
    """Return what ``task.balancing`` asks for.

    Raises:
        UserError: the model does not say what is needed, task weights do not fit its tasks, or a solver is missing.
    """
    config, model = task.balancing, task.model
    name, weights = config.balance, config.task_weights
    if name == "equal":
        return Sum((), None)
    tasks: tuple[str, ...] = tuple(getattr(model, "tasks", ()))
    if not tasks:
        raise UserError(f"`balance` is {name}: the model of {task.name} does not name its tasks, give equal")
    if weights is not None:
        if unknown := [word for word in weights if word not in tasks]:
            raise UserError(f"`task_weights` has {', '.join(unknown)}: the tasks are {', '.join(tasks)}")
        if missing := [word for word in tasks if word not in weights]:
            raise UserError(f"`task_weights` has no {', '.join(missing)}: give a weight for each of {', '.join(tasks)}")
    if name == "fixed":
        return WeightedSum(tasks, weights)
    try:
        method = _method(name, len(tasks))
    except ImportError as error:
        raise UserError(f"`balance` is {name}: {error.msg.partition(' Install')[0]}; pip install 'rpgmt[balance]'") from error
    if name in ("uncertainty", "dwa"):
        return LossWeighting(tasks, weights, method)
    if not isinstance(model, MultiTaskModel):
        raise UserError(f"`balance` is {name}: the model of {task.name} does not say what its tasks share, give e.g. dwa")
    return GradientBalancing(tasks, weights, model, method)


def _method(name: str, tasks: int) -> nn.Module:
    """The scalarizer or aggregator, with the settings of its paper."""
    from torchjd import aggregation, scalarization

    methods: dict[str, Callable[[], nn.Module]] = {
        "uncertainty": lambda: scalarization.UW(tasks),
        "dwa": lambda: scalarization.DWA(temperature=2.0),
        "pcgrad": aggregation.PCGrad,
        "gradvac": lambda: aggregation.GradVac(beta=0.01),
        "mgda": aggregation.MGDA,
        "cagrad": lambda: aggregation.CAGrad(c=0.4),
        "imtl_g": aggregation.IMTLG,
        "graddrop": aggregation.GradDrop,
        "nash_mtl": lambda: aggregation.NashMTL(tasks, max_norm=1.0, update_weights_every=1, optim_niter=20),
        "aligned_mtl": aggregation.AlignedMTL,
        "upgrad": aggregation.UPGrad,
        "dualproj": aggregation.DualProj,
        "config": aggregation.ConFIG,
        "fairgrad": lambda: aggregation.FairGrad(alpha=2.0),
        "random": aggregation.Random,
    }
    return methods[name]()


_CARRIED = {
    "DWA": ("", ("_loss_sum", "_n_batches", "_previous_averages")),
    "GradVac": ("gramian_weighting", ("_phi_t", "_state_key")),
    "NashMTL": ("weighting", ("prvs_alpha",)),  # all else is made again from it
}
"""What methods of torchjd carry from step to step besides parameters: class -> (sub-module, its attributes)."""


def _kept(method: nn.Module) -> dict[str, Any]:
    owner, names = _CARRIED.get(type(method).__name__, ("", ()))
    values = {name: copy.deepcopy(getattr(method.get_submodule(owner), name)) for name in names}
    return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in values.items()}


def _keep(method: nn.Module, state: Mapping[str, Any], device: torch.device) -> None:
    owner, names = _CARRIED.get(type(method).__name__, ("", ()))
    module = method.get_submodule(owner)
    for name in names:
        array = isinstance(getattr(module, name), np.ndarray)
        setattr(module, name, state[name].numpy() if array else _on(state[name], device))


def _on(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [_on(item, device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value
