"""Trains a network that no config describes: projected, pruned, in equilibrium; or measures a quantised one.

Run by the benchmark, as a process that goes on where it was interrupted:
`python tools/benchmarks/classification/derive.py KIND [--source RUN] [--parameters P] --config FILE --out DIR [--resume]`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # what lies beside tools/ is found, installed or not

from rpgmt import cli
from rpgmt.errors import UserError
from tasks import classification
from tasks.classification import Config
from tools.benchmarks.classification.rows import EQUILIBRIUM, FINETUNED, PROJECTED, PRUNED_BAKED, PRUNED_BANK, QUANTIZED

if TYPE_CHECKING:
    from torch import nn

KINDS = (EQUILIBRIUM, *FINETUNED, *QUANTIZED)


def main(argv: list[str]) -> int:
    """Trains, or measures, one network."""
    parser = cli.Parser(prog="derive.py", description=main.__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--source", type=Path, metavar="RUN", help="run of the network to start from")
    parser.add_argument("--parameters", type=int, help="trained parameters to have")
    arguments, config = cli.parse_config(parser, argv, classification.ClassificationTask.name, Config)

    from rpgmt.baselines.masks import count_remaining
    from rpgmt.engine.device import for_this_machine
    from rpgmt.engine.loop import fit
    from rpgmt.models.counting import count

    config = for_this_machine(config)
    task = classification.build(config)
    if arguments.kind in QUANTIZED:
        _quantize(task, config, arguments.source, QUANTIZED[arguments.kind])
        return 0
    model = prepare(arguments.kind, config, arguments.source, arguments.parameters)
    task.model = model
    counts = count(model, config.model.input_size)
    parameters = counts["parameters"] | {"remaining": count_remaining(model)}
    fit(task, task.resolved(), summary={"parameters": parameters, "macs": counts["macs"], "data": task.data_summary()})
    return 0


def prepare(kind: str, config: Config, source: Path | None, parameters: int | None) -> nn.Module:
    """The network that is trained, before training; the same at every call.

    A model file holds its tensors and the config, which builds no network of fewer channels and none in equilibrium:
    `rpgmt.load` refuses these files. Whoever wants the network makes it here and loads the weights into it.

    Args:
        kind: one of `KINDS`, none that is quantised.
        config: its config.
        source: run of the network to start from.
        parameters: trained parameters to have, where the kind does not say it.
    """
    import torch

    import rpgmt
    from rpgmt.baselines.channels import prune_channels
    from rpgmt.baselines.pruning import prune_banks, prune_weights
    from rpgmt.models.classifier import GENERATED

    torch.manual_seed(config.train.seed)
    if kind == EQUILIBRIUM:
        assert parameters is not None
        return _equilibrium(parameters, config.model.classes)
    if source is None:
        raise UserError(f"`{kind}` starts from a trained network: give --source RUN")
    model = rpgmt.load(source)
    own = rpgmt.report(model)
    if kind == PROJECTED:
        names = ("seed", "block", "gradient", "regenerate")
        options = {name: getattr(config.model, f"rpg_{name}") for name in names}
        scope, size = config.model.rpg_scope, config.model.rpg_size
        rpgmt.convert(model, size, scope=scope, include=[GENERATED], init="project", **options)
    elif kind == PRUNED_BAKED:
        rpgmt.bake(model)
        prune_weights(model, rpgmt.report(model).trainable // 2)
    elif kind == PRUNED_BANK:
        prune_banks(model, own.trainable - own.bank // 2)
    elif kind == "pruned-weights":
        assert parameters is not None
        prune_weights(model, parameters)
    else:
        assert parameters is not None
        width, height = config.model.input_size
        example = torch.zeros(1, 3, height, width)
        prune_channels(model, parameters, example, method=kind.removeprefix("pruned-"), keep=["fc"])
    return model


def trained(kind: str, config: Config, run: Path, source: Path | None, parameters: int | None) -> nn.Module:
    """The network of a finished run, of these kinds or of `tools/train.py`, in evaluation mode."""
    import rpgmt
    from rpgmt.baselines.quantize import unpack
    from rpgmt.engine.model_file import NAME, load_weights

    if kind not in KINDS:
        return rpgmt.load(run)
    if kind in QUANTIZED:
        assert source is not None
        model: nn.Module = rpgmt.load(source)
        unpack(run / NAME, model)
    else:
        model = prepare(kind, config, source, parameters)
        load_weights(model, run)
    return model.eval()


def _equilibrium(parameters: int, classes: int) -> nn.Module:
    from torch import Tensor, nn

    from rpgmt.baselines.equilibrium import matching_equilibrium
    from rpgmt.models.classifier import HEAD

    class OneStage(nn.Module):
        """Gives the logits as all networks here do."""

        def __init__(self) -> None:
            super().__init__()
            self.network = matching_equilibrium(parameters, classes)

        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            return [{HEAD: self.network(images)}]

    return OneStage()


def _quantize(task: classification.ClassificationTask, config: Config, source: Path, bits: int) -> None:
    """Packs the network into the run's model file, and measures what is read from there. Nothing is trained."""
    import rpgmt
    from rpgmt.baselines.quantize import pack, unpack
    from rpgmt.engine import run_folder
    from rpgmt.engine.evaluate import evaluate
    from rpgmt.models.counting import count

    assert config.train.out is not None
    folder = run_folder.RunFolder(config.train.out)
    resolved = task.resolved()
    folder.path.mkdir(parents=True, exist_ok=True)
    run_folder.write_config(folder, resolved, task.name)
    model = rpgmt.load(source)
    pack(folder.model, model, bits)
    unpack(folder.model, model)
    counts = count(model, config.model.input_size)
    found = evaluate(task, rpgmt.bake(model), batch_size=config.train.batch_size, device=config.train.device)
    record = {"task": task.name, "val": found.metrics, "parameters": counts["parameters"], "macs": counts["macs"]}
    record |= {"data": task.data_summary(), "seed": config.train.seed, "steps": 0, "seconds": 0.0}
    run_folder.write_metrics(folder, record)


if __name__ == "__main__":
    sys.exit(cli.run(main, sys.argv[1:], "derive.py"))
