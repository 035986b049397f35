"""Headers of model files that ask for more than the file has, or that say what is not so: refused before anything is made."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

import torch
from helpers.mutated_models import MODELS
from safetensors.torch import save_file

from rpgmt import cli
from rpgmt.engine.model_file import load_model, read_reading
from rpgmt.errors import UserError
from tools import summary


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("model")
    kind = next(kind for kind in MODELS if kind.name == "model header")
    kind.write(folder)
    return (folder / kind.file).read_bytes()


def changed(sound: bytes, change: Callable[[dict[str, Any]], object], key: str = "config") -> bytes:
    """The file with one part of its header changed."""
    end = 8 + int.from_bytes(sound[:8], "little")
    header = json.loads(sound[8:end])
    part = json.loads(header["__metadata__"][key])
    change(part)
    header["__metadata__"][key] = json.dumps(part)
    header["__metadata__"].pop("digest", None)  # whoever means harm can write a fitting one
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + sound[end:]


def of_model(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["model"].update(values)


HEADERS = {
    "stages": (of_model(stages=10**9), "`stages` is 1000000000: must be at least 1, at most 1000"),
    "stages within bounds": (of_model(stages=1000), "1000 stages of 1 levels, and the file has"),
    "channels": (of_model(channels=4_000_000), "`channels` is 4000000: must be at least 4, at most 65536"),
    "channels within bounds": (of_model(channels=4096), r"is \(.*\) in the file and \(.*\) in the network"),
    "all within bounds": (of_model(stages=1000, channels=65536, depth=16), r"`channels` is 65536: 1000 stages .* weights then"),
    "depth": (of_model(depth=40), "`depth` is 40: must be at least 1, at most 16"),
    "levels": (of_model(depth=16, stages=1), "is missing in the file"),
    "heads": (of_model(heads={"keypoints": 10**12}), "`heads` is "),
    "many heads": (of_model(heads={f"h{i}": 1 for i in range(5000)}), "its header says"),
    "wide heads": (of_model(heads={"keypoints": 100_000}), r"is \(.*\) in the file and \(.*\) in the network"),
    "no heads": (of_model(heads=None), "`heads` is null"),
    "bank": (of_model(rpg_size="2000M"), "a bank of 2,000,000,000, and the file has"),
    "bank in percent": (of_model(rpg_size="9999999999%"), "2\\*\\*31|a bank of"),
    "bank below one number a stage": (of_model(rpg_size="1"), "its header: .* banks need at least 1 parameter each"),
    "input": (of_model(input_size=[10**9, 10**9]), "`input_size` is .* at most 8192"),
    "no mapping": (lambda config: config.update(model=[1]), "has no config of a model in its header"),
    "unknown": (of_model(command="rm -r"), "its header: `command` is not a key"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_cannot_ask_for_more_than_the_file_has(tmp_path: Path, sound: bytes, what: str) -> None:
    change, reason = HEADERS[what]
    path = tmp_path / "model.safetensors"
    path.write_bytes(changed(sound, change))
    with pytest.raises(UserError, match=rf"model\.safetensors.*({reason})") as error:
        load_model(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["placement", "reading"])
def test_the_rest_of_a_header_is_checked_or_does_nothing(tmp_path: Path, sound: bytes, key: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(sound)
    wanted = load_model(path).state_dict()
    path.write_bytes(changed(sound, lambda part: part.update(extra={"a": 1}), key))
    if key == "reading":
        with pytest.raises(UserError, match=r"model\.safetensors: what its outputs mean cannot be read \(extra"):
            read_reading(path)
    with contextlib.suppress(UserError):  # or it is refused
        found = load_model(path).state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_names_of_outputs_that_the_network_has_not_are_refused(tmp_path: Path, sound: bytes) -> None:
    def one_less(reading: dict[str, Any]) -> None:
        points = reading["heads"]["keypoints"]["keypoints"]
        points.update(names=points["names"][:16], sigmas=points["sigmas"][:16], flip_pairs=[], skeleton=[], upper=[])

    path = tmp_path / "model.safetensors"
    path.write_bytes(changed(sound, one_less, "reading"))
    with pytest.raises(
        UserError, match=r"model\.safetensors: its header has 16 names for the head keypoints, which has 17 outputs"
    ):
        read_reading(path)
    path.write_bytes(changed(sound, lambda reading: reading.update(heads={"x": reading["heads"]["keypoints"]}), "reading"))
    with pytest.raises(UserError, match="for the head x, which has None outputs"):
        read_reading(path)


def test_a_file_whose_header_lies_is_one_line_of_a_tool(tmp_path: Path, sound: bytes, capsys: Any) -> None:
    path = tmp_path / "model.safetensors"
    for content in (
        changed(sound, of_model(stages=10**9)),
        b"\xff" * 8 + sound[8:],
        sound[:-5],
        b"",
        re.sub(rb'"data_offsets":\[0,', b'"data_offsets":[9,', sound),
    ):
        path.write_bytes(content)
        assert cli.run(summary.main, [str(path)], "summary.py") == 2
        said = capsys.readouterr().err
        assert said.startswith(f"summary.py: {path}")
        assert said.count("\n") == 1


def test_tensors_that_no_network_has_are_refused(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "model.safetensors"
    end = 8 + int.from_bytes(sound[:8], "little")
    metadata = json.loads(sound[8:end])["__metadata__"]
    save_file({"x": torch.zeros(3)}, path, metadata)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_model(path)
