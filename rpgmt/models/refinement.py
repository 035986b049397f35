"""Refinement: stages of one shape that each predict every task and hand features and predictions to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from rpgmt.errors import UserError


class Feedback(nn.Module):
    """What one stage hands to the next: its features and predictions by 1×1 convolutions, added to the stage's input."""

    def __init__(self, channels: int, heads: Mapping[str, int]) -> None:
        super().__init__()
        self.features = nn.Conv2d(channels, channels, 1)
        self.predictions = nn.ModuleDict({name: nn.Conv2d(outputs, channels, 1) for name, outputs in heads.items()})

    def forward(self, x: Tensor, features: Tensor, predictions: Mapping[str, Tensor]) -> Tensor:
        """(B, channels, H, W) input and features, and (B, outputs, H, W) of each head → (B, channels, H, W)."""
        x = x + self.features(features)
        for name, convolution in self.predictions.items():
            x = x + convolution(predictions[name])
        return x


class Refinement(nn.Module):
    """image → trunk → stage 1 → … → stage T, one prediction for each head after every stage.

    Stages are independent until `tie_stages(model)` or `rpgmt.convert(model, …, include=["stages.*"])` makes them share.
    Norms, biases, heads and feedback belong to each stage alone, whatever is shared.

    Args:
        trunk: Image to features at 1/stride of its resolution.
        stages: The stages, features to features; all of one shape.
        channels: Channels of the features.
        heads: Name and channels of each prediction.
    """

    def __init__(self, trunk: nn.Module, stages: Sequence[nn.Module], channels: int, heads: Mapping[str, int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ModuleList(
            nn.ModuleDict({name: nn.Conv2d(channels, outputs, 1) for name, outputs in heads.items()}) for _ in stages
        )
        self.feedback = nn.ModuleList(Feedback(channels, heads) for _ in stages[1:])  # the last stage feeds none

    def forward(self, images: Tensor, stop_after: int | None = None) -> list[dict[str, Tensor]]:
        """Predictions of every stage.

        Args:
            images: (B, 3, H, W), H and W divisible by the trunk's stride.
            stop_after: Compute this many stages only, from 1 to all.

        Returns:
            For each stage a dict head → (B, outputs, H / stride, W / stride).

        Raises:
            UserError: `stop_after` is no number of stages that the model has.
        """
        if stop_after is not None and not 1 <= stop_after <= len(self.stages):
            raise UserError(f"`stop_after` is {stop_after}: give 1 to {len(self.stages)}, the stages of the model")
        outputs: list[dict[str, Tensor]] = []
        x = self.trunk(images)
        stages = self.stages[:stop_after]
        for i, stage in enumerate(stages):
            features = stage(x)
            heads = cast(nn.ModuleDict, self.heads[i])
            outputs.append({name: head(features) for name, head in heads.items()})
            if i + 1 < len(stages):
                x = self.feedback[i](x, features, outputs[i])
        return outputs

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the heads."""
        return tuple(cast(nn.ModuleDict, self.heads[-1]))

    def shared_parameters(self) -> list[nn.Parameter]:
        """Trainable parameters that the losses of all tasks reach: all but the heads of the last stage.

        Heads of earlier stages are among them, since what they predict is fed back to every later head; so are banks,
        whatever they generate.
        """
        own = {id(parameter) for name in self.tasks for parameter in self.task_parameters(name)}
        return [parameter for parameter in self.parameters() if parameter.requires_grad and id(parameter) not in own]

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """Trainable parameters that the losses of this task alone reach: those of its head in the last stage.

        Raises:
            UserError: the model has no such head.
        """
        if name not in self.tasks:
            raise UserError(f"the task is {name!r}: the model has {', '.join(self.tasks)}")
        prefix = f"heads.{len(self.heads) - 1}.{name}."
        owners = list(self.named_parameters(remove_duplicate=False))
        elsewhere = {id(parameter) for owner, parameter in owners if not owner.startswith(prefix)}
        own = cast(nn.ModuleDict, self.heads[-1])[name].parameters()
        return [parameter for parameter in own if parameter.requires_grad and id(parameter) not in elsewhere]

    def bank_scope(self, scope: str, layer: str) -> str:
        """Name of the bank for a layer of the stages, for `rpgmt.convert`.

        Args:
            scope: "stage": one bank per stage. "block": one per block of convolutions, the same for every stage. "layer": one
                per layer of every stage.
            layer: The layer's name, `stages.<i>.<block>.<layer>`.
        """
        _, stage, inside = layer.split(".", 2)
        if scope == "stage":
            return f"stage_{int(stage) + 1}"
        if scope == "block":
            return inside.rpartition(".")[0]
        if scope == "layer":
            return f"stage_{int(stage) + 1}.{inside}"
        raise ValueError(f"`scope` is {scope!r}: must be one of global, stage, block, layer")


def tie_stages(model: Refinement, sets: int = 1) -> None:
    """Makes stages share convolution weights, as the same parameters. Biases and norms stay the stage's own.

    Args:
        model: With independent stages.
        sets: So many first stages keep weights of their own; stage i has those of stage i mod `sets`.
    """
    for number, stage in enumerate(model.stages):
        for name, module in model.stages[number % sets].named_modules():
            if isinstance(module, nn.Conv2d):
                stage.get_submodule(name).weight = module.weight
