"""tools/export.py from end to end: files of every format, of networks trained here, against PyTorch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.full_disk import no_file_larger_than
from helpers.image_folders import write_folders
from helpers.people_files import write_coco
from helpers.threads import single_thread
from safetensors.torch import load_file

import rpgmt
from rpgmt import cli
from rpgmt.config.presets import ROOT
from rpgmt.data.transforms import crop_affine, warp
from rpgmt.engine.model_file import read_reading
from rpgmt.export.facts import EXTRA_FILE, Facts
from rpgmt.export.network import sample_crops
from rpgmt.prediction.people import People
from tools import evaluate, export, train

onnx = pytest.importorskip("onnx", reason="no files of ONNX: onnx is not installed (the extra export)")

NETWORK = ["--channels", "8", "--depth", "1", "--stages", "2", "--rpg-size", "50%", "--input-size", "48,64"]
SHORT = ["--batch-size", "4", "--warmup-steps", "0", "--workers", "0", "--device", "cpu"]
BOX = [30.0, 20.0, 55.0, 70.0]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a photograph, which is no JPEG: decoders differ in their last bits."""
    folder = tmp_path_factory.mktemp("export")
    image = cv2.resize(sample_crops((96, 96))[0], (160, 120), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / "photo.png"), image[:, :, ::-1])
    return folder


@pytest.fixture(scope="module")
def pose(folder: Path) -> Path:
    write_coco(folder / "coco", 6)
    data = ["--data", "coco", "--data-root", str(folder / "coco")]
    assert train.main(["pose", *NETWORK, *SHORT, *data, "--max-steps", "6", "--lr", "0.01", "--out", str(folder / "pose")]) == 0
    return folder / "pose"


@pytest.fixture(scope="module")
def multi(folder: Path) -> Path:
    """Trained until heat maps have peaks: where a flat map is highest is for rounding to say."""
    flags = ["--train-images", "4", "--val-images", "4", "--data-root", str(folder / "drawn"), "--epochs", "30"]
    flags += ["--val-every", "30", "--lr", "0.01"]
    heads = ["--heads", "keypoints=17,segmentation=2,depth=1,normals=3"]
    assert train.main(["multitask", *NETWORK, *SHORT, *flags, *heads, "--out", str(folder / "multi")]) == 0
    return folder / "multi"


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Path:
    write_folders(folder / "classes", {"train": 8, "val": 8}, size=(40, 32))
    flags = ["classification", "--config", "folder", "--data-root", str(folder / "classes"), "--network", "resnet18", "--width"]
    flags += [
        "0.0625",
        "--stem",
        "3x3",
        "--input-size",
        "32,32",
        "--rpg-size",
        "50%",
        *SHORT,
        "--max-steps",
        "2",
        "--lr",
        "0.01",
    ]
    classes = len(list((folder / "classes/train").iterdir()))
    assert train.main([*flags, "--classes", str(classes), "--out", str(folder / "classifier")]) == 0
    return folder / "classifier"


@pytest.fixture(scope="module")
def decoded(multi: Path) -> Path:
    """Key points, classes, depth and normals."""
    out = multi / "new/decoded.onnx"
    assert export.main([str(multi), "--format", "onnx", "--decode", "--opset", "20", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def maps(pose: Path) -> Path:
    assert export.main([str(pose), "--format", "onnx"]) == 0
    return pose / "model.onnx"


def find(model: Path, photo: Path, **options: object) -> People:
    return rpgmt.Predictor.load(model, device="cpu", **options)(photo, [BOX, [0.0, 0.0, 80.0, 110.0]])  # type: ignore[arg-type]


def assert_same_people(found: People, expected: People) -> None:
    assert len(found.stages) == len(expected.stages) > 0
    for own, other in zip(found.stages, expected.stages, strict=True):
        assert len(own) == len(other) == 2
        np.testing.assert_allclose(own.keypoints, other.keypoints, atol=1e-3, rtol=0)
        np.testing.assert_allclose(own.keypoint_scores, other.keypoint_scores, atol=1e-4, rtol=0)
        np.testing.assert_allclose(own.scores, other.scores, atol=1e-4, rtol=0)


def differences(out: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^  (\S+) +(\d\.\de[+-]\d+)", out, re.MULTILINE)}


def test_a_full_disk_is_one_line_and_leaves_nothing(pose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.safetensors"
    with no_file_larger_than(5000):
        assert cli.run(export.main, [str(pose), "--format", "safetensors", "--out", str(out)], "export.py") == 2
    assert capsys.readouterr().err.startswith(f"export.py: {out} cannot be written: File too large")
    assert list(tmp_path.iterdir()) == []


def test_the_same_people_from_a_decoded_file(decoded: Path, multi: Path, folder: Path) -> None:
    found, expected = (find(model, folder / "photo.png") for model in (decoded, multi))
    assert_same_people(found, expected)
    for head in ("depth", "normals"):
        np.testing.assert_allclose(found[head].values, expected[head].values, atol=1e-3, rtol=0)
    assert (found["segmentation"].image == expected["segmentation"].image).mean() > 0.999
    few = find(decoded, folder / "photo.png", stop_after=1)
    assert len(few.stages) == 1
    np.testing.assert_array_equal(few.keypoints, find(decoded, folder / "photo.png").stages[0].keypoints)


def test_the_same_people_from_maps_and_the_flip_test(maps: Path, pose: Path, folder: Path) -> None:
    assert_same_people(find(maps, folder / "photo.png"), find(pose, folder / "photo.png"))
    flipped = find(maps, folder / "photo.png", flip_test=True)
    assert_same_people(flipped, find(pose, folder / "photo.png", flip_test=True))
    assert not np.allclose(flipped.keypoint_scores, find(pose, folder / "photo.png").keypoint_scores, atol=1e-4)
    assert len(find(maps, folder / "photo.png", stop_after=1).stages) == 1


def test_names_of_outputs_and_no_path_of_this_machine(decoded: Path, maps: Path) -> None:
    names = [output.name for output in onnx.load(maps).graph.output]
    assert names == ["stage_1/keypoints", "stage_2/keypoints"]
    names = [output.name for output in onnx.load(decoded).graph.output]
    of_a_stage = ["keypoints/points", "keypoints/scores", "segmentation/map", "depth/map", "normals/map"]
    assert names == [f"stage_{k}/{name}" for k in (1, 2) for name in of_a_stage]
    assert {entry.version for entry in onnx.load(decoded).opset_import if not entry.domain} == {20}
    for file in (decoded, maps):
        assert str(ROOT).encode() not in file.read_bytes()
        assert b"site-packages" not in file.read_bytes()


def run_the_page(model: Path, photo: Path, box: list[float]) -> dict[str, Any]:
    """What its code finds, where neither this library nor torch can be imported."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/export.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert "x, y, w, h = 40, 10, 120, 300" in code
    code = code.replace("40, 10, 120, 300", ", ".join(map(repr, box))).replace("model.onnx", str(model))
    code = code.replace("photo.png", str(photo))
    blocked = "import sys\nsys.modules.update(dict.fromkeys(['rpgmt', 'torch', 'tasks', 'tools']))\n"
    values = "'points': points.tolist(), 'scores': scores.tolist(), 'names': names, 'scale': scale, 'crop': crop.tolist()"
    report = f"\nprint(json.dumps({{{values}}}))"
    done = subprocess.run([sys.executable, "-c", blocked + code + report], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_page_finds_a_person_of_the_inputs_size(decoded: Path, multi: Path, folder: Path) -> None:
    # Without scaling a crop is the same whoever cuts it; else OpenCV's 1/32 pixels tip a grey level here and there.
    w, h = (side / read_reading(multi).padding for side in (48, 64))
    box = [30 + (48 - w) / 2, 20 + (64 - h) / 2, w, h]
    found = run_the_page(decoded, folder / "photo.png", box)
    same, expected = (rpgmt.Predictor.load(m, device="cpu")(folder / "photo.png", [box]) for m in (decoded, multi))
    np.testing.assert_allclose(found["points"], same.keypoints[0], atol=1e-5, rtol=0)
    off = found["scale"] * np.abs(np.array(found["points"]) - expected.keypoints[0])  # in pixels of the crop
    assert np.quantile(off, 0.8) <= 1e-4
    assert off.max() <= 1e-3  # where a map is nearly flat, the highest place is for float32's rounding to say
    np.testing.assert_allclose(found["scores"], expected.keypoint_scores[0], atol=1e-4, rtol=0)
    assert tuple(found["names"]) == expected.names


@pytest.mark.parametrize("box", [[203.5, 40.25, 620.0, 910.5], [-60.0, -20.0, 1000.0, 1100.0], [20.0, 300.0, 100.0, 150.0]])
def test_the_page_finds_a_person_much_larger_than_the_input(box: list[float], decoded: Path, tmp_path: Path) -> None:
    photo = cv2.resize(sample_crops((96, 96))[0], (1003, 997), interpolation=cv2.INTER_CUBIC)
    photo[::3] = 255 - photo[::3]  # thin lines, which show what is not averaged
    cv2.imwrite(str(tmp_path / "photo.png"), photo[:, :, ::-1])
    found = run_the_page(decoded, tmp_path / "photo.png", box)
    assert found["scale"] < 0.5
    affine = crop_affine(box, (48, 64), padding=read_reading(decoded.parents[1]).padding)
    crop = warp(photo, affine, (48, 64)).astype(int)
    assert np.abs(found["crop"] - crop).max() <= 1
    expected = rpgmt.Predictor.load(decoded, device="cpu")(tmp_path / "photo.png", [box])
    off = found["scale"] * np.abs(np.array(found["points"]) - expected.keypoints[0])  # in pixels of the crop
    assert off.max() <= 0.1


def test_a_classifier_in_8_bits_and_what_they_cost(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(classifier), "--format", "onnx", "--int8"]) == 0
    out = capsys.readouterr().out
    assert differences(out)["logits"] < 1e-4
    before, after, lost = map(float, re.search(r"top1 +([\d.]+) +([\d.]+) +([-+][\d.]+)", out).groups())  # type: ignore[union-attr]
    assert lost == pytest.approx(before - after, abs=2e-3)
    assert evaluate.main([str(classifier), "--json", str(classifier / "e.json")]) == 0
    assert before == pytest.approx(json.loads((classifier / "e.json").read_text())["val"]["top1"], abs=1e-3)
    sizes = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) in (?:float32|int8)", out)]
    file = classifier / "model-int8.onnx"
    assert sizes[1] == file.stat().st_size < sizes[0]
    assert "× that of float32" in out
    assert {node.op_type for node in onnx.load(file).graph.node} >= {"ConvInteger"}
    photo = next((classifier.parent / "classes/val").rglob("*.*"))
    found, expected = (rpgmt.Predictor.load(model, device="cpu")(photo)["class"] for model in (file, classifier))
    assert found.names == expected.names
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=0.2)
    assert abs(found.probabilities - expected.probabilities).max() > 1e-6  # it is another network


def test_half_of_the_bits(pose: Path, maps: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(pose), "--format", "onnx", "--half", "--stop-after", "1"]) == 0
    out = capsys.readouterr().out
    assert list(differences(out)) == ["stage_1/keypoints"]
    assert 1e-6 < differences(out)["stage_1/keypoints"] < 1
    assert all(len(line) <= 80 or str(pose) in line for line in out.splitlines())
    own = (pose / "model.safetensors").stat().st_size
    assert own > (pose / "model-half.onnx").stat().st_size
    assert f"The model file, with the bank,\nis larger: {own:,} bytes." in out
    model = onnx.load(pose / "model-half.onnx")
    halves = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16]
    assert sum(len(tensor.raw_data) for tensor in halves) > 0.5 * sum(len(t.raw_data) for t in model.graph.initializer)
    assert {output.type.tensor_type.elem_type for output in model.graph.output} == {onnx.TensorProto.FLOAT}
    found, expected = (find(file, folder / "photo.png", stop_after=1) for file in (pose / "model-half.onnx", maps))
    np.testing.assert_allclose(found.keypoint_scores, expected.keypoint_scores, atol=0.02)


def test_pt2_is_loaded_by_torch(classifier: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.pt2"
    assert export.main([str(classifier), "--format", "pt2", "--decode", "--half", "--out", str(out)]) == 0
    extra = {EXTRA_FILE: ""}
    module = torch.export.load(out, extra_files=extra).module()
    facts = Facts.from_json(extra[EXTRA_FILE], "m.pt2")
    assert (facts.precision, list(facts.outputs)) == ("float16", ["probabilities"])
    found = module(torch.from_numpy(sample_crops(facts.input_size)))
    assert list(found) == ["probabilities"]
    torch.testing.assert_close(found["probabilities"].sum(1), torch.ones(4))
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]


@pytest.mark.parametrize("flags", [[], ["--half"], ["--stop-after", "1"]])
def test_plain_weights_are_a_model_without_a_bank(
    flags: list[str], pose: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plain.safetensors"
    assert export.main([str(pose), "--format", "safetensors", *flags, "--out", str(out)]) == 0
    sizes = (pose / "model.safetensors").stat().st_size, out.stat().st_size
    assert f"is {'smaller' if sizes[0] < sizes[1] else 'larger'}: {sizes[0]:,} bytes." in capsys.readouterr().out
    assert flags or sizes[0] < sizes[1]
    weights = load_file(out)
    assert not [name for name in weights if "bank" in name]
    assert {t.dtype for t in weights.values() if t.is_floating_point()} == {
        torch.float16 if flags == ["--half"] else torch.float32
    }
    baked = rpgmt.bake(rpgmt.load(pose)).state_dict()
    assert all(torch.equal(weights[name], baked[name].to(weights[name].dtype)) for name in weights)
    assert (weights.keys() == baked.keys()) == (flags != ["--stop-after", "1"])
    if not flags:
        found, expected = find(out, folder / "photo.png"), find(pose, folder / "photo.png")
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert not [module for module in rpgmt.load(out).modules() if isinstance(module, rpgmt.Bank)]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required"),
        (["nowhere", "--format", "onnx"], "nowhere does not exist"),
        (["RUN", "--format", "tflite"], "invalid choice: 'tflite'"),
        (["RUN", "--format", "onnx", "--stop-after", "3", "--out", "RUN/new.onnx"], "`stop_after` is 3: give 1 to 2"),
        (["RUN", "--format", "onnx", "--opset", "7", "--out", "RUN/new.onnx"], "`opset` is 7: give 18 to"),
        (["RUN", "--format", "pt2", "--opset", "18"], "`--opset` is for --format onnx"),
        (["RUN", "--format", "pt2", "--int8"], "`--int8` is for --format onnx"),
        (["RUN", "--format", "safetensors", "--decode"], "`--decode` is for --format onnx or pt2"),
        (["RUN", "--format", "onnx", "--int8", "--half"], "give one"),
        (["RUN", "--format", "onnx", "--data", "coco"], "accuracy is measured with --int8 alone"),
        (["RUN", "--format", "onnx", "--int8", "--data-root", "/nowhere"], "/nowhere"),
        (["RUN", "--format", "onnx", "--int8", "--data", "cuco"], "cuco"),
        (["RUN", "--format", "safetensors", "--out", "RUN/model.safetensors"], "it is the model itself"),
        (["RUN", "--format", "onnx"], "model.onnx exists: give another name with `--out`"),
        (["RUN", "--format", "onnx", "--out", "RUN/model.onnx"], "model.onnx exists: give another name with `--out`"),
        (["RUN", "--format", "onnx", "--out", "RUN/model.pt"], "give a name that ends with .onnx"),
        (["RUN", "--format", "onnx", "--weights", "first"], "invalid choice: 'first'"),
    ],
)
def test_mistakes_are_one_line(
    pose: Path, maps: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert maps == pose / "model.onnx"
    before = {path: path.stat().st_mtime_ns for path in pose.iterdir()}
    assert cli.run(export.main, [word.replace("RUN", str(pose)) for word in arguments]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert line in said
    assert {path: path.stat().st_mtime_ns for path in pose.iterdir()} == before


def test_the_program_starts_and_helps(pose: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "tools/export.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--decode" in done.stdout
    assert not re.search(r"\| +(torch|onnx|cv2)$", done.stderr, re.MULTILINE)
