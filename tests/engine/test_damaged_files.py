"""Checkpoints and model files that were altered are refused in one line, or hold what was written to the last bit."""

from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_equal
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from toy import Toy, config

from rpgmt.config import ModelConfig, to_dict
from rpgmt.engine.checkpoint import load_checkpoint, save_checkpoint
from rpgmt.engine.loop import fit
from rpgmt.engine.model_file import load_model, save_model
from rpgmt.errors import UserError
from rpgmt.models import build


def damages(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``count`` copies of a file: with flipped bits, cut off, with parts overwritten or left out, or with more at an end."""
    chance = random.Random(seed)
    for number in range(count):
        place, length = chance.randrange(len(data)), chance.randint(1, 4096)
        if chance.random() < 0.3:  # where most that is not tensors lies
            place = chance.randrange(len(data) - min(2000, len(data)), len(data))
        junk = chance.randbytes(length)
        flipped = bytearray(data)
        for spot in [place, *(chance.randrange(len(data)) for _ in range(number % 3))]:
            flipped[spot] ^= 1 << chance.randrange(8)
        yield [
            bytes(flipped),
            bytes(flipped),
            data[:place],
            data[:place] + bytes(min(length, len(data) - place)) + data[place + length :],
            data[:place] + junk[: len(data) - place] + data[place + length :],
            data[:place] + data[place + length :],
            data + junk,
            junk + data,
        ][number % 8]


class Executed:
    """Unpickling this would execute something."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was executed",)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(Toy(generated=True), config(tmp_path_factory.mktemp("damaged") / "run", epochs=1, ema=0.9))


def outcome(read: Callable[[Path], Any], path: Path, whole: Any) -> str:
    line = ""
    try:
        found = read(path)
    except UserError as error:
        line = str(error)
    if line:
        assert str(path) in line
        assert "\n" not in line
        return "refused"
    assert_equal(found, whole)
    return "the same"


def count(tmp_path: Path, source: Path, read: Callable[[Path], Any], cases: int) -> Counter[str]:
    whole, path = read(source), tmp_path / source.name
    found: Counter[str] = Counter()
    for data in damages(source.read_bytes(), cases, seed=18):
        path.write_bytes(data)
        found[outcome(read, path, whole)] += 1
    print(source.name, dict(found))
    return found


def read_model(path: Path) -> dict[str, Any]:
    return load_model(path).state_dict()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model = ModelConfig(stages=2, channels=8, depth=1, rpg_size="25%", heads={"keypoints": 3})
    save_model(path, build(model), {"model": to_dict(model)})
    return path


def test_a_damaged_checkpoint(run: Path, tmp_path: Path) -> None:
    assert count(tmp_path, run / "checkpoints/last.ckpt", load_checkpoint, 160)["refused"] >= 150


def test_a_damaged_model_file(model_file: Path, tmp_path: Path) -> None:
    assert count(tmp_path, model_file, read_model, 80)["refused"] >= 75


@pytest.mark.slow
def test_many_damaged_files(run: Path, model_file: Path, tmp_path: Path) -> None:
    count(tmp_path, run / "checkpoints/last.ckpt", load_checkpoint, 3000)
    count(tmp_path, model_file, read_model, 1000)


def test_every_bit_of_a_small_checkpoint(tmp_path: Path) -> None:
    """Of its last part each, where torch's archive ends and the digest is."""
    path, state = tmp_path / "last.ckpt", {"model": {"w": torch.arange(3.0)}, "seconds": 1.0}
    save_checkpoint(path, state)
    data = path.read_bytes()
    for place in range(len(data) - 110, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        assert outcome(load_checkpoint, path, state) == "refused"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        pickle.dumps({"model": Executed()}),
        pickle.dumps([1, 2]),
        b"PK\x03\x04" + bytes(100),
        save({"x": torch.zeros(3)}),
        b"text",
    ],
)
def test_other_files_are_one_line(run: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is not a whole checkpoint .*: put best\.ckpt in its place, or start again"):
        load_checkpoint(path)


def test_what_torch_reads_is_not_always_a_checkpoint_of_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(Toy(), config(out, max_steps=2))
    last = out / "checkpoints/last.ckpt"
    state = load_checkpoint(last)
    resumed = config(out, max_steps=4, resume=True)
    for other in (torch.zeros(3), [state], Executed()):
        torch.save(other, last)
        with pytest.raises(UserError, match="is not a whole checkpoint"):
            fit(Toy(), resumed)
    network = {"model": Toy(norm=False).model.state_dict()}
    for change in ({"model": {}}, network, {"loader": None}, {"optimizer": {"state": {}, "param_groups": []}}):
        save_checkpoint(last, state | change)
        with pytest.raises(UserError, match=r"is not a checkpoint of this run \(.+\): put the run's own") as caught:
            fit(Toy(), resumed)
        assert "\n" not in str(caught.value)
    torch.save(state, last)  # as versions before wrote it
    fit(Toy(), resumed)


def test_a_digest_that_is_gone_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"x": torch.zeros(3)})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="its digest is gone"):
        load_checkpoint(path)


def test_older_model_files_are_read_and_their_placement_is_compared(model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with safe_open(model_file, "pt") as file:
        metadata = file.metadata()
    del metadata["digest"]
    save_file(load_file(model_file), path, metadata)
    assert_equal(read_model(path), read_model(model_file))
    placement = json.loads(metadata["placement"])
    placement["bank_stage_1"]["checksum"] += 1
    for wrong in (json.dumps(placement), "{}", "{", "[]"):
        save_file(load_file(model_file), path, metadata | {"placement": wrong})
        with pytest.raises(UserError, match="the placement in its header is not that of its banks"):
            load_model(path)


def test_a_header_that_was_altered_is_refused(model_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with safe_open(model_file, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["config"])
    save_file(load_file(model_file), path, metadata | {"config": json.dumps(config | {"note": 1})})
    with pytest.raises(UserError, match="was altered or is damaged: its digest is not that of what it holds"):
        load_model(path)
