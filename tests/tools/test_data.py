from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from rpgmt import cli
from rpgmt.data.coco.data_root import find_files
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.convert.conversion import FORMATS
from rpgmt.synthetic.cache import load
from rpgmt.synthetic.parallel import split_start
from rpgmt.synthetic.render import render

TOOL = Path(__file__).resolve().parents[2] / "tools" / "data.py"
COUNTS = {"train": 5, "val": 3}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_data", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    numbers = ["--train", "5", "--val", "3", "--size", "40", "--seed", "2"]
    files = ["--json", str(folder / "table.json"), "--sheet", str(folder / "sheet.png")]
    assert tool.main(["synthetic", "--out", str(folder / "out"), *numbers, *files]) == 0
    return folder


@pytest.mark.parametrize("split", COUNTS)
def test_files_equal_memory(written: Path, split: str) -> None:
    out, start = written / "out", split_start(split, COUNTS[split])
    for i in range(COUNTS[split]):
        scene = render(2, start + i, 40)
        image = cv2.imread(str(out / f"images/{split}/{i:06d}.png"))[:, :, ::-1]
        np.testing.assert_array_equal(image, scene.image)
        for kind, expected in (("masks", scene.people), ("parts", scene.parts)):
            array = cv2.imread(str(out / f"{kind}/{split}/{i:06d}.png"), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(array, expected)
        for kind, expected in (("depth", scene.depth), ("normals", scene.normals)):
            array = np.load(out / f"{kind}/{split}/{i:06d}.npy")
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, expected)
    for kind in ("images", "masks", "parts", "depth", "normals"):
        assert len(list((out / kind / split).iterdir())) == COUNTS[split]


@pytest.mark.parametrize("split", COUNTS)
def test_people_of_files_equal_people_of_memory(written: Path, tmp_path: Path, split: str) -> None:
    memory = load(tmp_path, count=COUNTS[split], size=40, seed=2, split=split, progress=False)  # type: ignore[arg-type]
    files = CocoPeople.from_files(*find_files(written / "out", split))
    assert files.annotations == memory.document()
    for image in files.annotations["images"]:
        np.testing.assert_array_equal(files.read_image(image), memory.read_image(image))


def test_the_table_as_data(written: Path) -> None:
    table = json.loads((written / "table.json").read_text())
    assert [row["split"] for row in table["splits"]] == ["train", "val"]
    for row in table["splits"]:
        document = json.loads((written / f"out/annotations/person_keypoints_{row['split']}.json").read_text())
        assert row["images"] == len(document["images"]) == COUNTS[row["split"]]
        assert row["people"] == len(document["annotations"])
        assert sum(row["keypoints"].values()) == 17 * row["people"]
        assert row["keypoints"]["not labelled"] == sum(17 - a["num_keypoints"] for a in document["annotations"])


def test_the_sheet_is_a_small_picture(written: Path) -> None:
    path = written / "sheet.png"
    assert path.stat().st_size <= 300_000
    height, width, _ = cv2.imread(str(path)).shape
    assert width > 6 * 40
    assert height > 5 * 40


def test_the_printed_table(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["synthetic", "--out", str(tmp_path / "new"), "--train", "2", "--val", "1", "--size", "32"]
    assert tool.main(arguments) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("train", "val", "people", "occluded", "images/s", "--config coco_json --data-root"))
    assert cli.run(tool.main, arguments) == 2
    assert "the folder is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required"),
        (["synthetc"], "invalid choice"),
        (["synthetic"], "--out"),
        (["synthetic", "--out", "x", "--train", "0"], "'0' is not a number of images: give 1 to 1000000"),
        (["synthetic", "--out", "x", "--val", "many"], "'many' is not a number of images"),
        (["synthetic", "--out", "x", "--size", "4"], "`--size` is 4: give at least 16 pixels"),
        (["synthetic", "--out", "x", "--seed", "-3"], "`--seed` is -3: give 0 or more"),
        (["synthetic", "--out", "x", "--sizes", "4"], "--size"),
        (["synthetic", "--out", str(TOOL)], "that is a file"),
        (["synthetic", "--out", "x", "--json", "y/z.json"], "the folder y does not exist"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(
    tool: ModuleType,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(tool.main, arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_does_not_import_torch() -> None:
    assert os.access(TOOL, os.X_OK)
    program = f"import runpy, sys\nsys.argv = ['data.py', 'synthetic', '--help']\ntry: runpy.run_path({str(TOOL)!r}, "
    program += "run_name='__main__')\nfinally: assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--sheet" in result.stdout


def test_ctrl_c_says_what_is_left(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(TOOL), "synthetic", "--out", str(out), "--train", "100000", "--size", "32"]
    process = start(command, stderr=subprocess.PIPE)
    while not (out / "images/train/000002.png").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"interrupted: {out} holds" in err
    assert "of 100000 train images, 0 of 200 val images; complete with annotations: no split" in err
    assert not list((out / "annotations").iterdir())


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A set in COCO's format with six key points."""
    from helpers.labelled_set import random_document, write_set

    random = np.random.default_rng(0)
    documents = {split: random_document(random, 4, least=1) for split in ("train", "val")}
    write_set(tmp_path / "labels", documents)
    return tmp_path / "labels"


def test_what_was_converted_is_sound_and_trains(
    tool: ModuleType, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tools import train

    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    assert tool.main(["convert", str(labels), "--from", "coco", "--to", "yolo-pose", "--out", there]) == 0
    capsys.readouterr()
    assert tool.main(["convert", there, "--from", "yolo-pose", "--to", "coco", "--out", back]) == 0
    said = capsys.readouterr().out.splitlines()
    check, training = (next(line for line in said if line.startswith(start)) for start in ("Check it: ", "Train on it: "))
    words = shlex.split(check.removeprefix("Check it: "))
    assert words[-2:] == ["check", back]
    assert words[-3].endswith("data.py")
    assert tool.main([*words[-2:], "--sheet", str(tmp_path / "sheet.png"), "--json", str(tmp_path / "check.json")]) == 0
    found = json.loads((tmp_path / "check.json").read_text())
    assert (found["task"], found["data"], found["refused"]) == ("pose", "coco", [])
    assert (tmp_path / "sheet.png").is_file()
    out = capsys.readouterr().out
    assert training.removeprefix("Train on it: ") == out.splitlines()[-1]
    assert all(len(line) <= 80 for line in out.splitlines() if str(tmp_path) not in line)
    tiny = ["--stages", "2", "--channels", "8", "--depth", "1", "--rpg-size", "50%", "--input-size", "32,32"]
    tiny += ["--batch-size", "2", "--max-steps", "2", "--warmup-steps", "0", "--workers", "0", "--device", "cpu"]
    words = shlex.split(out.splitlines()[-1])
    words = words[words.index("pose") :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sigmas are inferred
        assert train.main([*words, *tiny, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text())["steps"] == 2


def test_what_is_refused_is_listed_with_status_1(tool: ModuleType, labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = labels / "annotations/person_keypoints_train.json"
    document = json.loads(path.read_text())
    for person in document["annotations"][:2]:
        del person["area"]
    path.write_text(json.dumps(document))
    (
        labels
        / "images/val"
        / json.loads((labels / "annotations/person_keypoints_val.json").read_text())["images"][1]["file_name"]
    ).unlink()
    assert tool.main(["check", str(labels)]) == 1
    out = capsys.readouterr().out
    refused, _, notes = out.partition("Notes:")
    assert "- 2 × labelled people without an area" in refused
    assert "- 1 × images that are missing" in refused
    assert "sigma" in notes
    assert all(len(line) <= 80 for line in out.splitlines()[1:])
    assert out.splitlines()[-1] == "2 kinds of things that training would refuse"
    assert tool.main(["check", str(labels), "--split", "val"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere"], "nowhere: no such file or folder"),
        (["check", ".", "--data", "lsd"], "holds nothing for --data lsd"),
        (["check", ".", "--task", "posse"], "invalid choice: 'posse'"),
        (["convert", "nowhere", "--from", "coco", "--to", "cvat", "--out", "new"], "nowhere: no such file or folder"),
        (["convert", ".", "--from", "coco", "--to", "voc", "--out", "new"], "invalid choice: 'voc'"),
        (["convert", ".", "--from", "coco", "--to", "cvat", "--out", "new", "--val", "2"], "'2' is no part of the images"),
        (["convert", ".", "--from", "coco", "--to", "cvat", "--out", "new", "--images", "none"], "`--images` is none"),
        (["convert", ".", "--from", "coco", "--to", "cvat", "--out", "new", "--seed", "-1"], "`--seed` is -1"),
        (["convert", ".", "--from", "coco", "--to", "cvat"], "--out"),
        *((["convert", ".", "--from", name, "--to", "coco", "--out", "new"], ".") for name in FORMATS),
    ],
)
def test_one_line_for_what_cannot_be_read(
    tool: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(tool.main, words, "data.py") == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_the_formats_of_the_flags_are_those_that_there_are(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool.main(["convert", "--help"])
    assert " ".join(capsys.readouterr().out.split()).count(", ".join(FORMATS)) == 2


def test_the_commands_of_the_documentation_run(
    tool: ModuleType, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (TOOL.parents[1] / "docs/own-data.md").read_text(encoding="utf-8")
    convert, check = (re.search(rf"^uv run tools/data.py ({verb} .*)$", page, re.MULTILINE) for verb in ("convert", "check"))
    assert convert
    assert check
    monkeypatch.chdir(tmp_path)
    assert tool.main(["convert", str(labels), "--from", "coco", "--to", "yolo-pose", "--out", "SOURCE"]) == 0
    assert tool.main(shlex.split(convert[1])) == 0
    assert tool.main(shlex.split(check[1])) == 0
    assert (tmp_path / "sheet.png").is_file()
