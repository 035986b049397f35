"""Networks as files of `torch.export`."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rpgmt.export.agreement import TOLERANCE, Difference, check
from rpgmt.export.facts import EXTRA_FILE
from rpgmt.export.network import INPUT, ExportNetwork, half_of, sample_crops
from rpgmt.whole_files import whole_file


def write_pt2(network: ExportNetwork, path: Path, *, half: bool = False) -> list[Difference]:
    """Write a network for `torch.export.load`, and compare the file with PyTorch before it is kept.

    Args:
        network: float32.
        path: of the file.
        half: weights and computation in float16; inputs and outputs stay as they are.

    Raises:
        UserError: the file does not compute what PyTorch does.
    """
    exported = half_of(network) if half else network
    crops = torch.from_numpy(sample_crops(network.facts.input_size)[:2])
    batch = {INPUT: {0: torch.export.Dim("batch", min=1)}}
    with whole_file(path, folders=True) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own for its developers
        program = torch.export.export(exported, (crops,), dynamic_shapes=batch)
        data = io.BytesIO()  # torch's own writer has another error for a full disk
        torch.export.save(program, data, extra_files={EXTRA_FILE: exported.facts.to_json()})
        part.write_bytes(data.getbuffer())
        module = torch.export.load(part).module()

        @torch.no_grad()
        def run(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
            return {name: output.numpy() for name, output in module(torch.from_numpy(image)).items()}

        tolerance = TOLERANCE[exported.facts.precision]
        return check(network, run, str(path), tolerance, exported if half else None)
