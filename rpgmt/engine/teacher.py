"""A trained network whose predictions another one learns beside the labels: knowledge distillation (arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from rpgmt.engine.model_file import fingerprint, load_model, read_reading
from rpgmt.errors import UserError
from rpgmt.prediction.meaning import KeypointMaps, Reading
from rpgmt.rpg.bake import bake

TAUGHT = "taught"
"""What a batch holds besides its labels while a network is taught: the teacher's `Outputs` for its images."""


def load_teacher(path: Path, reading: Reading) -> nn.Module:
    """The network of a run folder or model file, to be run on the images of another one: baked, and with nothing to train.

    Args:
        path: model file, or run folder, of which it is the last weights.
        reading: of the network that is taught.

    Raises:
        UserError: there is no such file, or its key points, their maps or its input are others than those of `reading`.
    """
    with _named(path):
        own, other = _facts(reading), _facts(read_reading(path))
        if not other:
            raise UserError("it predicts no key points; give a network that does")
        for name, value in own.items():
            if other[name] != value:
                raise UserError(f"its {name} is {other[name]}, that of the network to train {value}: give one that fits")
        return bake(load_model(path)).eval().requires_grad_(False)


def fingerprint_of_teacher(path: Path) -> str:
    """By which a teacher is known wherever it lies; errors as of `load_teacher`."""
    with _named(path):
        return fingerprint(path)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"`teacher` is {path}: {error}") from error


def _facts(reading: Reading) -> dict[str, str]:
    """What has to be equal, in words; nothing where no key points are predicted."""
    maps = reading.heads.get("keypoints")
    if not isinstance(maps, KeypointMaps):
        return {}
    return {
        "input size": "{}×{}".format(*reading.input_size),
        "list of key points": ", ".join(maps.names),
        "codec": maps.codec,
        "stride": str(maps.stride),
        "sigma": str(maps.sigma),
        "loss": "cross_entropy" if maps.logits else "mse or ohkm",
    }
