"""Files made to run code, to take all memory or time, or to upset a terminal: refused with the reason, nothing executed."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rpgmt import cli
from rpgmt.config import load_yaml, yaml_files
from rpgmt.config.json_files import DEEPEST, parse_json, read_json
from rpgmt.config.text_files import MOST_BYTES, read_text
from rpgmt.data.convert import cvat
from rpgmt.data.dense.label_map_files import open_array
from rpgmt.data.sets.image_classes import read_cifar10_jpeg
from rpgmt.data.sets.matlab import read_mat
from rpgmt.engine.checkpoint import load_checkpoint
from rpgmt.errors import UserError, one_line


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    """Nothing here takes long: what grows is refused before it does."""
    start = time.process_time()
    yield
    assert time.process_time() - start < 15


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


# ------------------------------------------------------------------------------------------------------ YAML, JSON, text

_BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)
YAML = {
    "alias bomb": (_BOMB, r"line 5: .* more than 50,000 values, all aliases written out"),
    "alias bomb in a known key": ("data: {" + _BOMB.replace("\n", ", ") + "}", "all aliases written out"),
    "recursive alias": ("model: &m {heads: *m}", r"the alias \*m stands in what it stands for"),
    "aliases in depth": ("a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20, "more than 32 deep"),
    "brackets": ("stages: " + "[" * 2000, "more than 32 deep"),
    "block lists": ("- " * 3000 + "1", "more than 32 deep"),
    "digits": ("stages: " + "9" * 5000, "a number of 5000 digits"),
    "tag of a number": ("stages: !!int abc", "tags, as tag:yaml.org,2002:int, are not read"),
    "tag of Python": (
        "a: !!python/object/apply:os.mkdir [{trap}]",
        r"tags, as tag:yaml\.org,2002:python/object/apply:os\.mkdir",
    ),
    "half of a character": ('a: "\\ud800"', "half of a character"),
    "no character": ('a: "\\U00110000"', "not YAML"),
    "large": ("a: " + "x" * 2**20, "at most 1,048,576 are read"),
}


@pytest.mark.parametrize("what", YAML)
def test_yaml_that_grows_or_runs_is_refused(tmp_path: Path, what: str) -> None:
    text, reason = YAML[what]
    path, trap = tmp_path / "hostile.yaml", tmp_path / "trap"
    path.write_text(text.replace("{trap}", str(trap)))
    with pytest.raises(UserError, match=rf"hostile\.yaml.*{reason}") as error:
        load_yaml(path)
    assert "\n" not in str(error.value)
    assert not trap.exists()


def test_values_are_counted_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_files, "MOST_NODES", 1000)
    (tmp_path / "a.yaml").write_text("\n".join(f"k{i}: {i}" for i in range(30_000)))
    with pytest.raises(UserError, match=r"a\.yaml, line 500: not YAML: it holds more than 1,000 values"):
        load_yaml(tmp_path / "a.yaml")


def test_aliases_that_do_not_grow_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("\ufeffa: &a {b: 1}\nc: [*a, *a]\nd: 010\n")
    assert load_yaml(tmp_path / "a.yaml") == {"a": {"b": 1}, "c": [{"b": 1}] * 2, "d": 10}


JSON = {
    "deep lists": ("[" * 100_000 + "]" * 100_000, f"more than {DEEPEST} deep"),
    "deep objects": ('{"a": ' * 65 + "1" + "}" * 65, f"more than {DEEPEST} deep"),
    "deep where many are flat": ("[1, " * 65 + "]" * 65, "not JSON|deep"),
    "digits": (f'{{"id": {"9" * 5000}}}', r"not JSON: Exceeds the limit \(4300 digits\)"),
    "a key twice": ('{"images": [{"id": 1, "id": 2}]}', "the key 'id' stands twice"),
    "cut off": ('{"images": [{"id": 1}, ', "not JSON: "),
    "half of a character": ('{"file_name": "\\ud800.png"}', "is half of a character"),
    "no text": (b'{"a": "\xff"}', "not a text file in UTF-8"),
    "nothing": (" \n", "the annotation file is empty"),
}


@pytest.mark.parametrize("what", JSON)
def test_json_beyond_its_bounds_is_refused(tmp_path: Path, what: str) -> None:
    content, reason = JSON[what]
    path = tmp_path / "hostile.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"hostile\.json: .*({reason})") as error:
        read_json(path)
    assert len(str(error.value)) < 500


def test_json_within_its_bounds_is_read(tmp_path: Path) -> None:
    document = {"a": [1.5, "\U0001f600 \u00e9", None, True, 2**64], "b": {}}
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(document).encode())
    assert read_json(tmp_path / "a.json") == document
    assert parse_json("[" * DEEPEST + "]" * DEEPEST, "x")


def test_pipes_devices_and_endless_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").touch()
    os.truncate(tmp_path / "endless", MOST_BYTES + 1)  # takes no room on the disk
    for path, reason in (
        (tmp_path / "pipe", "Is a pipe, not a file"),
        (Path("/dev/zero"), "Is a device or socket, not a file"),
        (tmp_path, "Is a directory, not a file"),
        (tmp_path / "endless", "at most 4,294,967,296 are read"),
    ):
        with pytest.raises(UserError, match=reason):
            read_text(path)
    with pytest.raises(UserError, match="Is a pipe"):
        read_json(tmp_path / "pipe")
    with pytest.raises(UserError, match="Is a pipe"):
        load_yaml(tmp_path / "pipe")


def test_xml_that_declares_entities_is_refused(tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 20))
    (tmp_path / "annotations.xml").write_text(f'<!DOCTYPE a [<!ENTITY l0 "lol">{laughs}]><annotations>&l19;</annotations>')
    with pytest.raises(UserError, match=r"annotations\.xml: XML with a document type"):
        cvat.read(tmp_path, None, [])


def test_what_a_terminal_obeys_is_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> None:
        raise UserError("a\x1b[2Jb\nc\u202ed\x07 " + "x" * 5000 + " the end")

    assert cli.run(main, [], "tool") == 2
    line = capsys.readouterr().err
    assert line.startswith("tool: a\\x1b[2Jb c\\u202ed\\x07 xxx")
    assert line.endswith(" the end\n")
    assert line.count("\n") == 1
    assert len(line) < 1100
    assert one_line("Größe 3×4 “ok” 日本") == "Größe 3×4 “ok” 日本"


# ------------------------------------------------------------------------------------------------------------ arrays


def npy(path: Path, header: str) -> Path:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 8)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (8,)}",
        "{'descr': [('a', '<f4', (9999999, 9999999))], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': " + "[" * 500 + "}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), 'x': 1}",
        "__import__('os').mkdir('trap')",
        "9" * 6000,
    ],
)
def test_headers_of_arrays_that_are_not_true_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(UserError, match=r"a\.npy: (not a \.npy file of numbers|the array is of)"):
        open_array(npy(tmp_path / "a.npy", header))


def test_pickles_in_arrays_and_checkpoints_are_not_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    np.save(tmp_path / "a.npy", np.array([Trap(trap)], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"a\.npy"):
        open_array(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(UserError, match=r"b\.npy"):
        open_array(tmp_path / "b.npy")
    for name, write in {
        "zip.ckpt": lambda path: torch.save({"step": 1, "model": Trap(trap)}, path),
        "old.ckpt": lambda path: torch.save(Trap(trap), path, _use_new_zipfile_serialization=False),
        "bare.ckpt": lambda path: path.write_bytes(pickle.dumps(Trap(trap))),
    }.items():
        write(tmp_path / name)
        with pytest.raises(UserError, match=rf"{name}.*checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not trap.exists()
    trap_of = pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # the trap works
    assert trap_of is None
    assert (tmp_path / "sprung").is_dir()


def test_a_cache_beside_the_data_that_others_filled_is_made_anew(tmp_path: Path) -> None:
    from helpers.image_folders import write_folders

    write_folders(tmp_path, {"train": 4}, size=(32, 32), suffix=".png")
    first = read_cifar10_jpeg(tmp_path, "train")
    (cache,) = tmp_path.glob("decoded_train_*.npy")
    trap = tmp_path / "trap"
    for content in (np.array([Trap(trap)] * 4, dtype=object), np.zeros((4, 32, 32, 3)), np.zeros((3, 32, 32, 3), np.uint8)):
        np.save(cache, content, allow_pickle=True)
        again = read_cifar10_jpeg(tmp_path, "train")
        np.testing.assert_array_equal(np.asarray(again.images), np.asarray(first.images))
    assert not trap.exists()


def test_a_matlab_file_cannot_end_the_program(tmp_path: Path) -> None:
    """One byte makes SciPy's reader take a type that there is not, and read where nothing is."""
    from scipy.io import savemat

    path = tmp_path / "joints.mat"
    savemat(path, {"joints": np.zeros((3, 14, 4))})
    sound = path.read_bytes()
    np.testing.assert_array_equal(read_mat(path, ("joints",))["joints"], np.zeros((3, 14, 4)))
    path.write_bytes(sound[:180] + b"\xf4" + sound[181:])
    with pytest.raises(UserError, match=r"joints\.mat: (a damaged MATLAB file, which ends SciPy's reader \(SIG|not a MATLAB)"):
        read_mat(path, ("joints",))
