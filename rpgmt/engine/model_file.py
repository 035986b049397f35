"""model.safetensors: a whole model in one file, bank and fixed tensors, read without unpickling and without Lightning.

A run folder has two: model.safetensors with the weights of its end, best.safetensors with those of its best validation.

The header's metadata holds the resolved training config as JSON, which contains the model config that builds the network, and
each bank's placement version and checksum; and a SHA-256 of all of it and of the tensors. A file that was altered is refused;
older ones have no such digest, and are read.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rpgmt.config import ClassifierConfig, ModelConfig, model_config
from rpgmt.config.json_files import parse_json
from rpgmt.engine.model_bounds import check_meaning, check_shapes
from rpgmt.errors import ConfigError, UserError
from rpgmt.models import build
from rpgmt.models.classifier import Classifier
from rpgmt.models.refinement import Refinement
from rpgmt.prediction.meaning import Reading
from rpgmt.rpg.bank import Bank
from rpgmt.rpg.learned_signs import signed_layers, stored_state, unpack_state
from rpgmt.whole_files import write_bytes

FORMAT = "rpgmt-1"
Weights = Literal["last", "best"]
"""Which of a run's weights: those of its end, or of the validation with the highest main metric."""

NAME = "model.safetensors"
NAMES: Mapping[Weights, str] = {"last": NAME, "best": "best.safetensors"}
"""The files of a run folder."""

_OF_HEADS = re.compile(r"heads\.|feedback\.\d+\.predictions\.|fc\.")


def save_model(path: Path, model: nn.Module, config: Mapping[str, Any], reading: Reading | None = None) -> None:
    """Writes a model with the config that builds it.

    Args:
        path: The file.
        model, config, reading: As of `model_bytes`.

    Raises:
        UserError: It cannot be written; the old one stays.
    """
    write_bytes(path, model_bytes(model, config, reading))


def model_bytes(model: nn.Module, config: Mapping[str, Any], reading: Reading | None = None) -> bytes:
    """What a model file holds.

    Args:
        model: A network that `rpgmt.models.build(config["model"])` makes. A parameter that several modules share is written
            once, under its first name.
        config: The resolved config as plain data; must hold "model".
        reading: What the network is given and what its outputs mean, for prediction.
    """
    banks = {name: module.get_extra_state().tolist() for name, module in model.named_modules() if isinstance(module, Bank)}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(config),
        "placement": json.dumps({name: {"version": s[0], "checksum": s[3]} for name, s in banks.items()}),
    }
    if reading is not None:
        metadata["reading"] = reading.to_json()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stored_state(model).items()}
    metadata["digest"] = _digest(metadata, tensors)
    data: bytes = save(tensors, metadata)
    return _in_order(data)


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its header's keys in order: safetensors writes the metadata's in another order each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def load_model(path: Path | str, weights: Weights = "last") -> Refinement | Classifier:
    """The network of a run folder or model file, with its weights, in evaluation mode on the CPU.

    Args:
        path: Run folder or model file.
        weights: Which of a run folder's: `last`, of its end, or `best`, of its best validation.

    Raises:
        UserError: There is no such file, it is not a model file, it was altered, or its tensors do not fit the network of
            its config; that network is then not made.
    """
    file = model_path(path, weights)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`size` is ")  # what `convert` remarks on a bank's size was said when it was trained
        network = _network(file)
        try:
            model = build(network)
        except UserError as error:
            raise UserError(f"{file}, its header: {error}") from None
    load_weights(model, file)
    return model.eval()


def _network(file: Path) -> ModelConfig | ClassifierConfig:
    """The config of a file's network, which the file can hold."""
    section = read_config(file)["model"]
    try:
        config = model_config(section)
    except ConfigError as error:
        raise UserError(f"{file}, its header: {error}") from None
    if isinstance(config, ModelConfig) and config.heads is None:
        raise UserError(f"{file}, its header: `heads` is null: train the model again")
    check_shapes(config, _shapes(file), str(file))
    return config


def load_weights(model: nn.Module, path: Path | str, *, weights: Weights = "last", heads_may_differ: bool = False) -> list[str]:
    """Copies a model file's tensors into a network of the same shape.

    Args:
        model: The network.
        path: Run folder or model file.
        weights: Which of a run folder's.
        heads_may_differ: Tensors of heads, and of the feedback of their predictions, keep the model's own values where the
            file has none of that name and shape; and layers that learn signs take weights of plain ones.

    Returns:
        Names of the model's tensors that keep their values.

    Raises:
        UserError: Any other tensor is missing, left over, or of another shape.
    """
    file = model_path(path, weights)
    _metadata(file)  # says so where this is no model file
    own, saved, kept = stored_state(model), _read(file), []
    signed = signed_layers(model)
    if heads_may_differ:  # a training starts here, and may start with the weights of plain layers
        for prefix in [prefix for prefix in signed if f"{prefix}.weight" in saved]:
            own[f"{prefix}.weight"] = signed.pop(prefix).weight
            del own[f"{prefix}.magnitudes"], own[f"{prefix}.signs"]
    for name in sorted(own.keys() | saved.keys()):
        if name in own and name in saved and own[name].shape == saved[name].shape:
            continue
        if not (heads_may_differ and _OF_HEADS.match(name)):
            shapes = [str(tuple(t[name].shape)) if name in t else "missing" for t in (saved, own)]
            raise UserError(
                f"{path}: `{name}` is {shapes[0]} in the file and {shapes[1]} in the network: give the file's own "
                "stages, channels, depth, sharing, rpg size and scope"
            )
        saved.pop(name, None)
        if name in own:
            kept.append(name)
    try:
        unpack_state(saved, signed)
        model.load_state_dict(saved, strict=False)  # what is shared has one name here and several there
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return kept


def read_config(path: Path | str, weights: Weights = "last") -> dict[str, Any]:
    """The training config, as plain data, of a run folder or model file.

    Args:
        path: Run folder or model file.
        weights: Which of a run folder's.

    Raises:
        UserError: There is no such file, or it is not a model file.
    """
    file = model_path(path, weights)
    metadata = _metadata(file)
    try:
        config: dict[str, Any] = parse_json(metadata["config"], f"{file}, its header")
        if not isinstance(config["model"], dict):
            raise TypeError("no mapping")
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{file} has no config of a model in its header: train the model again") from error
    return config


def read_reading(path: Path | str, weights: Weights = "last") -> Reading:
    """What the network of a run folder or model file is given, and what its outputs mean.

    Args:
        path: Run folder or model file.
        weights: Which of a run folder's.

    Raises:
        UserError: There is no such file, it is not a model file, or it does not say.
    """
    file = model_path(path, weights)
    reading = stored_reading(file)
    if reading is None:
        raise UserError(f"{file} does not say what its outputs mean, as files of version 0.1 do not: train it again to predict")
    return reading


def fingerprint(path: Path | str) -> str:
    """SHA-256 of what the model file of a run folder, or a model file, holds; copies have the same.

    Raises:
        UserError: There is no such file, or it is not a model file.
    """
    file = model_path(path)
    metadata = _metadata(file)
    return metadata.get("digest") or _digest(metadata, _read(file))


def check_same_names(file: Path, reading: Reading | None, data: str) -> None:
    """Raise UserError where key points or classes stand in another order in data than in a model.

    Args:
        file: the model file.
        reading: what outputs of the data's labels mean; None, or in the file: not known.
        data: what it is called in the message.
    """
    stored = stored_reading(file)
    if stored is None or reading is None:
        return
    for name in stored.heads.keys() & reading.heads.keys():
        own, other = stored.heads[name].names, reading.heads[name].names
        if own != other:
            at = next((pair for pair in zip(own, other, strict=False) if pair[0] != pair[1]), (f"{len(own)}", f"{len(other)}"))
            raise UserError(
                f"{data}: of {name} {at[1]!r} stands where {file} has {at[0]!r}: give the names in the model's order"
            )


def stored_reading(file: Path) -> Reading | None:
    """What a model file says of inputs and outputs; None: nothing, as files of version 0.1.

    Raises:
        UserError: It is not a model file, or what it says cannot be read.
    """
    text = _metadata(file).get("reading")
    if text is None:
        return None
    reading = Reading.from_json(text, str(file))
    check_meaning(read_config(file)["model"], reading, str(file))
    return reading


def _metadata(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, "pt") as handle:
            metadata: dict[str, str] = handle.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a model file ({_fault(error)}): give a run folder or its {NAME}") from error
    if metadata.get("format") != FORMAT:
        raise UserError(f"{file} has format {metadata.get('format')!r}, not {FORMAT!r}: give the {NAME} of a run of rpgmt")
    return metadata


def model_path(path: Path | str, weights: Weights = "last") -> Path:
    """The model file of a run folder, or the path itself.

    Args:
        path: Run folder or model file.
        weights: Which of a run folder's.

    Raises:
        UserError: There is none.
    """
    if weights not in NAMES:
        raise UserError(f"`weights` is {weights!r}: give one of {', '.join(NAMES)}")
    path, name = Path(path), NAMES[weights]
    if not path.exists():
        raise UserError(f"{path} does not exist: give a run folder or its {name}")
    if path.is_file():
        if weights == "best" and path.name != name:
            raise UserError(f"`weights` is best: {path} is one model file; give its run folder, or its {name}")
        return path
    file = path / name
    if not file.is_file() and weights == "best" and (path / NAME).is_file():
        why = "the run is older, or no validation gave a score"
        raise UserError(f"{path} holds no {name} ({why}): leave out `weights`, the last ones are there")
    if not file.is_file() and (path / NAMES["best"]).is_file():
        raise UserError(f"{path} holds no {name}, as its run has not ended: take `weights` best, or go on with it by --resume")
    if not file.is_file():
        raise UserError(f"{path} holds no {name}: give a run folder or its {name}")
    return file


def _fault(error: Exception) -> str:
    """What is wrong with a file, in words: those of safetensors speak of its header."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it is cut off" if "not fully covered" in str(error) else "it is not of the format safetensors"


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors, which are those that were written, placed as the header says."""
    with safe_open(file, "pt") as handle:
        metadata: dict[str, str] = handle.metadata()
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
    if metadata.get("digest", (digest := _digest(metadata, tensors))) != digest:
        raise UserError(f"{file} was altered or is damaged: its digest is not that of what it holds; take a copy of it")
    states = {name.removesuffix("._extra_state"): t.tolist() for name, t in tensors.items() if name.endswith("._extra_state")}
    placement = {name: {"version": state[0], "checksum": state[3]} for name, state in states.items() if len(state) > 3}
    try:
        same = json.loads(metadata["placement"]) == placement
    except (KeyError, ValueError):
        same = False
    if not same:
        raise UserError(f"{file}: the placement in its header is not that of its banks; take a copy of it")
    return tensors


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a file's metadata, and of its tensors' names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(metadata.keys() - {"digest"}):
        digest.update(repr((name, metadata[name])).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Of the tensors, from the header alone."""
    with safe_open(file, "pt") as handle:
        return {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118 - not a mapping
