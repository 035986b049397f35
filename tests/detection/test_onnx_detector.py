"""Detectors in ONNX files: every documented form of inputs and outputs, with exact boxes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.box_detector import FORMS, TensorProto, box_detector, draw, helper, onnx

from rpgmt.detection import make_detector
from rpgmt.errors import UserError

BOXES = [(4, 6, 10, 12), (20, 28, 36, 8), (40, 2, 16, 20)]
IMAGE = draw((48, 64), BOXES)
FOUND = np.array(BOXES)  # the first covers the pixels 4 to 13
IMAGENET = {"mean": (123.675, 116.28, 103.53), "deviation": (58.395, 57.12, 57.375)}


def detect(path: Path, image: np.ndarray = IMAGE, **options: Any) -> Any:
    return make_detector(path, **{"threshold": 0.5, **options})([image])[0]


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_outputs_gives_the_same_boxes(form: str, parts: bool, tmp_path: Path) -> None:
    detections = detect(box_detector(tmp_path / "d.onnx", form, parts=parts))
    assert np.allclose(detections.boxes, FOUND, rtol=0, atol=1e-4)
    assert np.allclose(detections.scores, 1)
    labels = {"torchvision": 1, "named": 1, "batched": 1, "five and labels": 0, "six": 0}
    assert detections.labels is None if form not in labels else (detections.labels == labels[form]).all()


@pytest.mark.parametrize(
    "what",
    [
        {"shape": (1, 3, "h", "w")},
        {"shape": ("n", 3, 64, 64)},
        {"shape": (3, "h", "w")},
        {"shape": (1, "h", "w", 3), "dtype": TensorProto.INT32, "deviation": (1, 1, 1)},
        {"shape": ("h", "w", 3), "dtype": TensorProto.UINT8, "deviation": (1, 1, 1)},
        {"shape": (1, 3, 144, 256), "dtype": TensorProto.UINT8, "deviation": (1, 1, 1)},
        {"shape": (1, 96, 128, 3), "metadata": {"rpgmt.input": "0..255"}, "deviation": (1, 1, 1)},
        {"shape": (1, 3, 192, "w"), "metadata": {"rpgmt.input": "imagenet", "rpgmt.size": "32,640"}, **IMAGENET},
        {"shape": (1, 3, 48, 64), "dtype": TensorProto.FLOAT16},
    ],
    ids=str,
)
def test_every_form_of_input(what: dict[str, Any], tmp_path: Path) -> None:
    """Images are fitted in without a change of shape: larger, smaller, to the right or below."""
    detections = detect(box_detector(tmp_path / "d.onnx", **what))
    assert np.allclose(detections.boxes, FOUND, rtol=0, atol=1e-3)


@pytest.mark.parametrize("height", [16, 24, 48, 96])
@pytest.mark.parametrize("parts", [False, True])
def test_boxes_survive_the_change_of_size(height: int, parts: bool, tmp_path: Path) -> None:
    """At a third, a half, once and twice the size; edges lie where pixels of all sizes meet."""
    edges = [(6, 12, 12, 24), (24, 6, 18, 18), (48, 18, 12, 12)]
    path = box_detector(tmp_path / "d.onnx", shape=(1, 3, height, 200), parts=parts)
    assert np.allclose(detect(path, draw((48, 66), edges)).boxes, np.array(edges), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(37, 111), (111, 37), (1, 90), (500, 40)])
def test_the_whole_of_an_image_of_any_shape_is_the_whole(size: tuple[int, int], tmp_path: Path) -> None:
    """Also where a side becomes a fraction of a pixel, which is rounded."""
    path = box_detector(tmp_path / "d.onnx", shape=(1, 3, 64, 96))
    detections = detect(path, draw(size, [(0, 0, size[1], size[0])]))
    assert np.allclose(detections.boxes, [[0, 0, size[1], size[0]]], rtol=0, atol=1e-4)


def test_open_sizes_are_512_the_files_or_the_callers(tmp_path: Path) -> None:
    """Seen in where edges come to lie: on a grid of the input's pixels."""
    image = draw((1000, 1000), [(333, 333, 334, 334)])

    def grid(size: int | None, metadata: dict[str, str]) -> float:
        path = box_detector(tmp_path / "d.onnx", metadata=metadata)
        place = (detect(path, image, size=size).boxes[0, 0]) / 1000
        return next(side for side in (40, 64, 512) if abs(place * side - round(place * side)) < 1e-3)

    assert grid(None, {}) == 512
    assert grid(None, {"rpgmt.size": "64,64"}) == 64
    assert grid(40, {"rpgmt.size": "64,64"}) == 40


def test_several_images_of_several_sizes(tmp_path: Path) -> None:
    detector = make_detector(box_detector(tmp_path / "d.onnx"))
    images = [IMAGE, np.zeros((20, 30, 3), np.uint8), draw((100, 50), [(10, 10, 30, 50)])]
    together = detector(images)
    assert [len(detections) for detections in together] == [3, 0, 1]
    for image, detections in zip(images, together, strict=True):
        assert np.array_equal(detector([image])[0].boxes, detections.boxes)


@pytest.mark.parametrize("form", ["torchvision", "six", "five and labels"])
def test_only_persons_are_found_and_the_file_or_the_caller_says_which_label_they_have(form: str, tmp_path: Path) -> None:
    def indices(metadata: dict[str, str], classes: list[int] | None = None) -> list[int]:
        path = box_detector(tmp_path / "d.onnx", form, labels=[0, 1, 2], metadata=metadata)
        return detect(path, classes=classes).labels.tolist()

    assert indices({}) == [1 if form == "torchvision" else 0]
    assert indices({"rpgmt.classes": "2"}) == [2]
    assert indices({"rpgmt.classes": "0, 2"}) == [0, 2]
    assert indices({"rpgmt.classes": "2"}, [1]) == [1]


def test_the_metadata_say_that_small_boxes_are_of_pixels(tmp_path: Path) -> None:
    dot = np.zeros((64, 64, 3), np.uint8)
    dot[:2, :2] = 255
    path = tmp_path / "d.onnx"
    found = [detect(box_detector(path, metadata=m, shape=(1, 3, 64, 64)), dot).boxes for m in ({}, {"rpgmt.boxes": "pixels"})]
    assert [boxes.tolist() for boxes in found] == [[[0, 0, 64, 64]] * 3, [[0, 0, 2, 2]] * 3]


def test_scores_of_movenet_are_low_and_count(tmp_path: Path) -> None:
    thresholds = {form: make_detector(box_detector(tmp_path / f"{form}.onnx", form)).threshold for form in FORMS}
    assert thresholds.pop("movenet") == 0.15
    assert set(thresholds.values()) == {0.5}
    assert make_detector(tmp_path / "movenet.onnx", threshold=0.4).threshold == 0.4


def other_model(path: Path, shape: list[int], *outputs: tuple[str, int, list[int]], inputs: int = 1) -> Path:
    """Gives zeros of any shapes."""
    images = [helper.make_tensor_value_info(f"image{i}", TensorProto.FLOAT, shape) for i in range(inputs)]
    nodes, infos = [], []
    for name, dtype, size in outputs:
        value = helper.make_tensor(name, dtype, size, np.zeros(size).ravel())
        nodes.append(helper.make_node("Constant", [], [name], value=value))
        infos.append(helper.make_tensor_value_info(name, dtype, size))
    graph = helper.make_graph(nodes, "other", images, infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


F, I = TensorProto.FLOAT, TensorProto.INT64  # noqa: E741


@pytest.mark.parametrize(
    "outputs",
    [
        [("out", F, [1, 84, 8400])],
        [("dets", F, [1, 300, 4]), ("labels", F, [1, 300, 91])],
        [("boxes", F, [1, 7, 4]), ("scores", F, [1, 7, 80])],
        [("a", F, [7, 4]), ("b", F, [7]), ("c", F, [7])],
        [("a", F, [7, 4]), ("b", F, [7]), ("c", I, [7]), ("d", I, [7])],
        [("a", F, [7, 6]), ("c", I, [7])],
        [("heat", F, [1, 17, 64, 48])],
    ],
    ids=str,
)
def test_other_outputs_are_listed_in_one_line_with_the_forms(outputs: list[Any], tmp_path: Path) -> None:
    path = other_model(tmp_path / "other.onnx", [1, 3, 64, 64], *outputs)
    with pytest.raises(UserError) as error:
        make_detector(path)
    message = str(error.value)
    assert all(f"{name} {'float32' if kind == F else 'int64'} {tuple(size)}" in message for name, kind, size in outputs)
    assert message.endswith(
        "a detector has boxes (N, 4), scores (N,), labels (N,); or (N, 5 or 6): x1, y1, x2, y2, score, label; "
        "or MoveNet's (1, 6, 56)"
    )
    assert "\n" not in message


@pytest.mark.parametrize(
    "outputs",
    [
        [("boxes", F, [7, 4]), ("labels", I, [7]), ("scores", F, [7]), ("masks", F, [7, 1, 28, 28])],
        [("b", F, [1, 0, 4]), ("s", F, [1, 0]), ("l", I, [1, 0])],
        [("b", F, [1, 4, 4]), ("s", F, [1, 4]), ("l", I, [1, 4])],
        [("out", F, [0, 6])],
    ],
    ids=str,
)
def test_masks_beside_the_boxes_and_nothing_found_do_not_matter(outputs: list[Any], tmp_path: Path) -> None:
    path = other_model(tmp_path / "other.onnx", [1, 3, 64, 64], *outputs)
    assert len(make_detector(path)([IMAGE])[0]) == 0


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"metadata": {"rpgmt.input": "0-1"}}, "`rpgmt.input` is 0-1: give 0..1, 0..255, imagenet"),
        ({"metadata": {"rpgmt.size": "640"}}, "`rpgmt.size` is 640: give height and width in pixels, e.g. 480,640"),
        ({"metadata": {"rpgmt.size": "0,640"}}, "`rpgmt.size` is 0,640"),
        ({"metadata": {"rpgmt.boxes": "xywh"}}, "`rpgmt.boxes` is xywh: give pixels, or parts"),
        ({"metadata": {"rpgmt.classes": "person"}}, "`rpgmt.classes` is person: give the labels of persons, e.g. 0 or 1,2"),
        ({"metadata": {"rpgmt.inputs": "0..1"}}, "a key rpgmt.inputs: those of a detector are rpgmt.boxes"),
    ],
)
def test_what_the_file_says_wrongly_is_one_line(what: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        make_detector(box_detector(tmp_path / "d.onnx", **what))
    assert str(error.value).startswith(str(tmp_path / "d.onnx"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_inputs_that_are_no_image_are_listed(tmp_path: Path) -> None:
    output = ("out", F, [1, 6])
    for shape, inputs in (([2, 3, 64, 64], 1), ([1, 4, 64, 64], 1), ([1, 3], 1), ([1, 3, 64, 64], 2), ([1, 64, 3, 64], 1)):
        with pytest.raises(UserError, match=r"its inputs are image0 \(float\) \[.*\]: give a model with one, \(1, 3, H, W\)"):
            make_detector(other_model(tmp_path / "other.onnx", shape, output, inputs=inputs))


def test_a_size_for_a_fixed_input_is_refused(tmp_path: Path) -> None:
    path = box_detector(tmp_path / "d.onnx", shape=(1, 3, 64, 64))
    with pytest.raises(UserError, match=r"`size` is 320: the input of .* is fixed at \[1, 3, 64, 64\]: leave the size out"):
        make_detector(path, size=320)
    with pytest.raises(UserError, match=r"`size` is 0: give "):
        make_detector(box_detector(path), size=0)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "d.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"d\.onnx: onnxruntime cannot read it: .*") as error:
        make_detector(tmp_path / "d.onnx")
    assert "\n" not in str(error.value)


def test_without_onnxruntime_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = box_detector(tmp_path / "d.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime, which is missing: pip install 'rpgmt\[export\]'"):
        make_detector(path)
