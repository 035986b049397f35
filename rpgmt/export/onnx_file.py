"""Networks as ONNX files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rpgmt.errors import UserError
from rpgmt.export.agreement import TOLERANCE, Difference, check
from rpgmt.export.facts import KEY, Facts
from rpgmt.export.network import INPUT, ExportNetwork, half_of, sample_crops
from rpgmt.prediction.onnx_network import make_session
from rpgmt.whole_files import whole_file

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 18


def write_onnx(network: ExportNetwork, path: Path, *, half: bool = False, opset: int | None = None) -> list[Difference]:
    """Write a network, and compare the file with PyTorch before it is kept.

    Args:
        network: float32.
        path: of the file.
        half: weights and computation in float16; inputs and outputs stay as they are.
        opset: version of ONNX's operators; None: what PyTorch's exporter takes.

    Raises:
        UserError: a package is missing, there is no such opset, or the file does not compute what PyTorch does.
    """
    import_onnx()
    exported = half_of(network) if half else network
    model = to_onnx(exported, opset)
    with whole_file(path, folders=True) as part:
        save(model, exported.facts, part)
        tolerance = TOLERANCE[exported.facts.precision]
        return check(network, runner(part), str(path), tolerance, exported if half else None)


def to_onnx(network: ExportNetwork, opset: int | None = None) -> onnx.ModelProto:
    """The graph of a network, for any number of crops.

    Raises:
        UserError: the exporter has no such opset.
    """
    newest = import_onnx().defs.onnx_opset_version()
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise UserError(f"`opset` is {opset}: give {OLDEST_OPSET} to {newest}, or leave it out")
    crops = torch.from_numpy(sample_crops(network.facts.input_size)[:2])
    with quiet():
        program: Any = torch.onnx.export(
            network,
            (crops,),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=list(network.facts.outputs),
            dynamic_shapes={INPUT: {0: "batch"}},
        )
        model: onnx.ModelProto = program.model_proto
    made = next(entry.version for entry in model.opset_import if not entry.domain)
    if opset is not None and made != opset:
        raise UserError(f"`opset` is {opset}: the exporter cannot make it of this network, it makes {made}: leave it out")
    for node in model.graph.node:  # where in whose files PyTorch met it is nobody's business, and half of a small file
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer, model.graph):
        del value.metadata_props[:]
    del model.metadata_props[:]
    return model


def save(model: onnx.ModelProto, facts: Facts, path: Path) -> None:
    """Write a graph with what it says of itself."""
    onnx = import_onnx()
    onnx.helper.set_model_props(model, {KEY: facts.to_json()})
    model.producer_name = "rpgmt"
    onnx.save(model, path)


def runner(path: Path) -> Any:
    """A function from crops to the outputs of a file, by name, on the CPU."""
    session = make_session(path, "cpu")
    names = [output.name for output in session.get_outputs()]

    def run(crops: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(None, {INPUT: crops}), strict=True))

    return run


def import_onnx() -> Any:
    """The package onnx, with what the export needs beside it.

    Raises:
        UserError: one of them is missing.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"the package {error.name} is missing: pip install 'rpgmt[export]'") from error
    return onnx


@contextmanager
def quiet() -> Iterator[None]:
    """Without the notes that exporters write for their developers."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
