"""ONNX files that somebody else made, or changed: one line each."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rpgmt
from rpgmt.errors import UserError
from rpgmt.export import onnx_file
from rpgmt.export.facts import KEY, Facts, outputs_of
from rpgmt.prediction.meaning import ImageLogits, Reading
from rpgmt.prediction.onnx_network import OnnxNetwork

onnx = pytest.importorskip("onnx", reason="no files of ONNX: onnx is not installed (the extra export)")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

CLASSES = ("dark", "bright")
OTHER_NAMES = {"a": [1, "scene", "probabilities"], "b": [2, "scene", "probabilities"]}


def make_facts(**changes: Any) -> Facts:
    reading = Reading(input_size=(16, 8), cut="images", heads={"scene": ImageLogits(classes=CLASSES)})
    facts = Facts(
        input_size=(16, 8),
        stages=2,
        decoded=True,
        precision="float32",
        outputs=dict(outputs_of(2, ["scene"], reading)),
        reading=reading,
        config={},
    )
    return dataclasses.replace(facts, **changes)


def write(path: Path, facts: Facts | str | None, *, width: int = 16, kind: int = TensorProto.UINT8) -> Path:
    """A network by hand: the probability of bright is the mean of the pixels, in stage 2 its complement."""
    crops = helper.make_tensor_value_info("image", kind, ["batch", 8, width, 3])
    outputs = [helper.make_tensor_value_info(f"stage_{k}/scene/probabilities", 1, ["batch", 2]) for k in (1, 2)]
    constants = {"one": np.float32(1), "white": np.float32(255), "axes": np.array([1, 2, 3]), "last": np.array([1])}
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=1),
            helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
            helper.make_node("Div", ["mean", "white"], ["bright"]),
            helper.make_node("Sub", ["one", "bright"], ["dark"]),
            helper.make_node("Unsqueeze", ["bright", "last"], ["b"]),
            helper.make_node("Unsqueeze", ["dark", "last"], ["d"]),
            helper.make_node("Concat", ["d", "b"], [outputs[0].name], axis=1),
            helper.make_node("Concat", ["b", "d"], [outputs[1].name], axis=1),
        ],
        "by hand",
        [crops],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if facts is not None:
        helper.set_model_props(model, {KEY: facts if isinstance(facts, str) else facts.to_json()})
    onnx.save(model, path)
    return path


def test_a_file_that_says_what_it_is(tmp_path: Path) -> None:
    predictor = rpgmt.Predictor.load(write(tmp_path / "m.onnx", make_facts()), device="cpu")
    found = predictor(np.full((10, 20, 3), 51, np.uint8))
    np.testing.assert_allclose(found.stages[0]["scene"].probabilities, [[0.8, 0.2]], atol=1e-6)
    np.testing.assert_allclose(found["scene"].probabilities, [[0.2, 0.8]], atol=1e-6)
    first = rpgmt.Predictor.load(tmp_path / "m.onnx", stop_after=1)(np.full((10, 20, 3), 51, np.uint8))
    assert first["scene"].labels == ["dark"]
    assert Facts.from_json(make_facts().to_json(), "x") == make_facts()


def without(key: str) -> str:
    facts = json.loads(make_facts().to_json())
    del facts[key]
    return json.dumps(facts)


def with_value(key: str, value: Any) -> str:
    return json.dumps(json.loads(make_facts().to_json()) | {key: value})


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (None, "does not say that it is a network of this project"),
        ("", f"what it says of itself cannot be read ({KEY}: Invalid JSON"),
        ("[]", "cannot be read"),
        ("{", "cannot be read"),
        ("null", "cannot be read"),
        ("\x00\x01", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (without("stages"), "(stages: Field required)"),
        (with_value("format", "rpgmt-export-2"), "(format: Input should be 'rpgmt-export-1')"),
        (with_value("stages", 10**9), "(stages: "),
        (with_value("stages", -1), "(stages: "),
        (with_value("stages", 1), "does not fit its stages and heads"),
        (with_value("more", 1), "(more: Unexpected keyword argument)"),
        (with_value("input_size", [8, 16]), "does not fit"),
        (with_value("outputs", {}), "does not fit"),
        (
            with_value("outputs", {"a": [1, "scene", "probabilities"], "b": [2, "scene", "probabilities"]}),
            "are not what it says",
        ),
        (with_value("reading", None), "does not say what its outputs mean"),
        (with_value("reading", {"input_size": [16, 8]}), "(reading.cut: Field required)"),
    ],
)
def test_odd_metadata_is_one_line(facts: str | None, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", facts)
    with pytest.raises(UserError) as error:
        rpgmt.Predictor.load(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 400 + len(str(path))


@pytest.mark.parametrize("change", [{"width": 12}, {"kind": TensorProto.FLOAT}])
def test_another_input_than_it_says(change: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="inputs and outputs are not what it says of itself"):
        rpgmt.Predictor.load(write(tmp_path / "m.onnx", make_facts(), **change))  # type: ignore[arg-type]


def test_no_file_and_no_onnx(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.onnx does not exist"):
        rpgmt.Predictor.load(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"not at all")
    with pytest.raises(UserError, match=r"m\.onnx: onnxruntime cannot read it: "):
        rpgmt.Predictor.load(tmp_path / "m.onnx")


def test_what_a_file_cannot(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", make_facts())
    with pytest.raises(UserError, match="`weights` is best"):
        rpgmt.Predictor.load(path, weights="best")
    with pytest.raises(UserError, match="`device` is mps: this onnxruntime runs"):
        rpgmt.Predictor.load(path, device="mps")
    with pytest.raises(UserError, match="export it without --decode"):
        OnnxNetwork(path, "cpu")(np.zeros((1, 8, 16, 3), np.uint8), None, True)
    with pytest.raises(UserError, match="`stop_after` is 3"):
        rpgmt.Predictor.load(path, stop_after=3)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.onnx", make_facts())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for start in (lambda: rpgmt.Predictor.load(path), onnx_file.import_onnx):
        with pytest.raises(UserError, match=r"onnxruntime.* missing: pip install 'rpgmt\[export\]'"):
            start()
