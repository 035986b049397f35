"""ONNX files with 8-bit weights, and what they cost in accuracy and time."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rpgmt.data.images import normalize
from rpgmt.engine.evaluate import evaluate
from rpgmt.engine.task import Outputs, Task
from rpgmt.errors import UserError
from rpgmt.export.agreement import TOLERANCE, Difference, Run, check
from rpgmt.export.facts import Facts, Output
from rpgmt.export.network import ExportNetwork, sample_crops
from rpgmt.export.onnx_file import import_onnx, quiet, runner, save, to_onnx
from rpgmt.whole_files import whole_file

_BATCH, _ROUNDS = 16, 7


@dataclass(frozen=True)
class Cost:
    """What 8 bits cost.

    Args:
        differences: of the float file from PyTorch.
        float_metrics: of the float file over the set; `int8_metrics` of the other.
        float_bytes: of the float file; `int8_bytes` of the other.
        time_ratio: time of the 8-bit file for a batch of 16 crops, over the float file's: the median of turns.
    """

    differences: list[Difference]
    float_metrics: dict[str, float | None]
    int8_metrics: dict[str, float | None]
    float_bytes: int
    int8_bytes: int
    time_ratio: float


def write_int8(network: ExportNetwork, path: Path, task: Task, *, opset: int | None = None, workers: int = 0) -> Cost:
    """Write a network whose convolutions multiply 8-bit integers, quantised dynamically by onnxruntime.

    Weights have one scale a layer; that of its input is found for every batch. The float file is compared with PyTorch first;
    the 8-bit file has no bound but is measured on a task's validation set, by the evaluation that PyTorch's networks pass.

    Args:
        network: float32.
        path: of the file.
        task: gives data and metrics.
        opset: see `to_onnx`.
        workers: processes that load data.

    Raises:
        UserError: a package is missing, the float file does not compute what PyTorch does, or the other's outputs are no
            numbers.
    """
    onnx = import_onnx()
    wanted = network.facts
    maps = network.raw_outputs()
    both = network.with_outputs({**maps, **wanted.outputs})  # metrics are of the maps
    with tempfile.TemporaryDirectory() as folder, whole_file(path, folders=True) as part:
        plain, whole, quantised = (Path(folder, name) for name in ("float.onnx", "whole.onnx", "int8.onnx"))
        model = to_onnx(both, opset)
        save(_only(model, list(wanted.outputs)), wanted, plain)
        differences = check(network, runner(plain), str(path), TOLERANCE["float32"])
        save(model, both.facts, whole)
        _quantise(whole, quantised)
        model = onnx.load(quantised)
        facts = dataclasses.replace(wanted, precision="int8")
        save(_only(model, list(wanted.outputs)), facts, part)
        _check_numbers(part, path, facts)
        metrics = []
        for file in (whole, quantised):
            onnx.save(_only(onnx.load(file), list(maps)), Path(folder, "maps.onnx"))
            measured = OnnxModel(Path(folder, "maps.onnx"), maps)
            metrics.append(evaluate(task, measured, batch_size=_BATCH, workers=workers, device="cpu").metrics)
        sizes = plain.stat().st_size, part.stat().st_size
        return Cost(differences, metrics[0], metrics[1], sizes[0], sizes[1], _time_ratio(plain, part, facts))


class OnnxModel(nn.Module):
    """A file in the place of a model, for evaluation.

    Args:
        path: of an ONNX file with the maps of every stage.
        outputs: what they are, by name.
    """

    def __init__(self, path: Path, outputs: Mapping[str, Output]) -> None:
        super().__init__()
        self.run, self.outputs = runner(path), outputs

    def forward(self, images: Tensor, stop_after: int | None = None) -> Outputs:
        """Images (B, 3, H, W) that `normalize` made of whole pixels to the maps of each stage."""
        stages: Outputs = []
        for name, output in self.run(pixels_of(images)).items():
            stage, head, _ = self.outputs[name]
            stages += [{}] * (stage - len(stages))
            stages[stage - 1] = {**stages[stage - 1], head: torch.from_numpy(output)}
        return stages[:stop_after]


def pixels_of(images: Tensor) -> NDArray[np.uint8]:
    """The pixels (B, H, W, 3) of which `normalize` made images (B, 3, H, W)."""
    ends = normalize(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1).expand(-1, -1, -1, 3)).to(images)
    black, white = ends[..., :1], ends[..., 1:]
    whole = ((images - black) / (white - black) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(whole.permute(0, 2, 3, 1).cpu().numpy())


def _quantise(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():  # unsigned weights: signed ones take onnxruntime's convolution twice the time
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)


def _only(model: Any, outputs: list[str]) -> Any:
    """The graph with these outputs alone, in this order."""
    known = {output.name: output for output in model.graph.output}
    result = type(model)()
    result.CopyFrom(model)
    del result.graph.output[:]
    result.graph.output.extend(known[name] for name in outputs)
    return result


def _check_numbers(part: Path, path: Path, facts: Facts) -> None:
    for name, output in runner(part)(sample_crops(facts.input_size)).items():
        if not np.isfinite(output).all():
            raise UserError(f"{path} is not kept: {name} is not finite in 8 bits")


def _time_ratio(plain: Path, quantised: Path, facts: Facts) -> float:
    crops = np.concatenate([sample_crops(facts.input_size)] * (_BATCH // 4))
    runs = [runner(plain), runner(quantised)]
    times = np.array([[_seconds(run, crops) for run in runs] for _ in range(_ROUNDS + 1)])[1:]
    return float(np.median(times[:, 1] / times[:, 0]))


def _seconds(run: Run, crops: NDArray[np.uint8]) -> float:
    start = time.perf_counter()
    run(crops)
    return time.perf_counter() - start
