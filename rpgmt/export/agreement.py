"""Whether an exported file computes what PyTorch computes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rpgmt.data.images import normalize
from rpgmt.errors import UserError
from rpgmt.export.network import ExportNetwork, sample_crops

Run = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]
"""Crops (B, H, W, 3) to outputs by name."""

TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
"""By precision: the largest difference; of maps a part of the map's largest magnitude, where that is above 1."""

_DRAWS, _REACH = 16, 4.0


@dataclass(frozen=True)
class Difference:
    """How far an output of a file is from PyTorch's.

    Args:
        name: of the output.
        largest: absolute difference; of points in pixels of the crop.
        unequal: how many values differ by more than the tolerance alone, as classes at ties do.
        values: how many there are.
        whole: the output holds classes.
    """

    name: str
    largest: float
    unequal: int
    values: int
    whole: bool

    def __str__(self) -> str:
        if self.whole:
            return f"{self.unequal:,} of {self.values:,} classes" + (", at ties" if self.unequal else "")
        rest = f", {self.unequal:,} of {self.values:,} above the tolerance by rounding" if self.unequal else ""
        return f"{self.largest:.1e}{rest}"


def check(
    network: ExportNetwork, run: Run, source: str, tolerance: float, half: ExportNetwork | None = None
) -> list[Difference]:
    """Compare a file with PyTorch on batches of 1 and 3 crops.

    Two right computations round differently. Maps may differ by the tolerance. What is decoded from them may differ by
    the tolerance, and further by as much as PyTorch's own value moves when its maps change by their rounding: the highest of
    two cells that are nearly equal may be the other one. That rounding is measured: float32 against float64, or half against
    float32.

    Args:
        network: PyTorch's, float32.
        run: the file's.
        source: what the file is called in errors.
        tolerance: see `TOLERANCE`.
        half: PyTorch's in half precision, if the file is.

    Raises:
        UserError: an output is missing, has another shape, or is too far off; the line says which, where and by how much.
    """
    crops = sample_crops(network.facts.input_size)
    batches = (crops[:1], crops[1:])
    found: dict[str, list[Difference]] = {}
    for batch in batches:
        for difference in _compare(network, half, run, batch, source, tolerance):
            found.setdefault(difference.name, []).append(difference)
    return [
        Difference(name, max(d.largest for d in of), sum(d.unequal for d in of), sum(d.values for d in of), of[0].whole)
        for name, of in found.items()
    ]


def _compare(
    network: ExportNetwork, half: ExportNetwork | None, run: Run, crops: NDArray[np.uint8], source: str, tolerance: float
) -> Iterator[Difference]:
    expected, slack = _expected(network, half, crops)
    got = run(crops)
    if list(got) != list(expected):
        raise UserError(f"{source} is not kept: its outputs are {', '.join(got)}, not {', '.join(expected)}")
    for name, wanted in expected.items():
        value = got[name]
        if value.shape != wanted.shape or value.dtype != wanted.dtype:
            raise UserError(
                f"{source} is not kept: of {len(crops)} crops {name} is {value.dtype} {value.shape} and in PyTorch "
                f"{wanted.dtype} {wanted.shape}"
            )
        whole = wanted.dtype.kind == "i"
        off = np.abs(value.astype(np.float64) - wanted.astype(np.float64))
        scale = 1.0 if network.facts.decoded else max(1.0, float(np.abs(wanted).max(initial=0)))
        near = 0.0 if whole else tolerance * scale
        bad = ~(off <= near + slack[name])  # what is not a number is bad
        if bad.any():
            place = np.unravel_index(np.where(bad, np.nan_to_num(off, nan=np.inf), -1).argmax(), off.shape)
            where = ", ".join(map(str, place))
            raise UserError(
                f"{source} is not kept: {name} at ({where}) is {value[place]:.6g} and in PyTorch {wanted[place]:.6g}; "
                f"{int(bad.sum()):,} of {bad.size:,} values differ by more than {near:.1e} and rounding"
            )
        yield Difference(name, float(off.max(initial=0)), int((off > near).sum()), off.size, whole)


@torch.no_grad()
def _expected(
    network: ExportNetwork, half: ExportNetwork | None, crops: NDArray[np.uint8]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.float64]]]:
    """PyTorch's outputs, and how far each value moves with the rounding of the maps; 0 for maps themselves."""
    image = torch.from_numpy(crops)
    maps = network.maps(image)
    expected = {name: output.numpy() for name, output in network.named(maps).items()}
    slack = {name: np.zeros(output.shape) for name, output in expected.items()}
    if not network.facts.decoded:
        return expected, slack
    rounding = _rounding(network, half, image, maps)
    draw = torch.Generator().manual_seed(0)
    for _ in range(_DRAWS):
        moved = [
            {
                head: output + _REACH * rounding[stage][head] * (2 * torch.rand(output.shape, generator=draw) - 1)
                for head, output in of_stage.items()
            }
            for stage, of_stage in enumerate(maps)
        ]
        for name, output in network.named(moved).items():
            distance = np.abs(output.numpy().astype(np.float64) - expected[name])
            slack[name] = np.fmax(slack[name], distance)
    return expected, slack


def _rounding(
    network: ExportNetwork, half: ExportNetwork | None, image: Tensor, maps: list[dict[str, Tensor]]
) -> list[dict[str, float]]:
    """The largest rounding error of each map."""
    if half is not None:
        other = half.maps(image)
    else:
        double = copy.deepcopy(network.model).double()
        other = double(normalize(image).contiguous().double(), **network.options)
    return [
        {head: float((output.double() - twin[head].double()).abs().max()) for head, output in of_stage.items()}
        for of_stage, twin in zip(maps, other, strict=True)
    ]
