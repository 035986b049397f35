"""The network of a run folder, a model file or an exported file."""

from __future__ import annotations

from pathlib import Path

from rpgmt.engine.device import pick_device
from rpgmt.engine.model_file import Weights, load_model, read_reading
from rpgmt.errors import UserError
from rpgmt.prediction.network import Network, TorchNetwork


def load_network(path: str | Path, weights: Weights, device: str) -> Network:
    """What computes the outputs of a trained model.

    Args:
        path: run folder, model file, or an exported ONNX file.
        weights: of a run folder, see `rpgmt.engine.model_file.model_path`.
        device: `auto`, `cpu`, `cuda`, …

    Raises:
        UserError: there is no such file, or it cannot be used.
    """
    if Path(path).suffix.lower() == ".onnx":
        from rpgmt.prediction.onnx_network import OnnxNetwork

        if weights != "last":
            raise UserError(f"`weights` is {weights}: {path} is one exported file: leave it out")
        return OnnxNetwork(Path(path), device)
    return TorchNetwork(load_model(path, weights), read_reading(path, weights), pick_device(device))
