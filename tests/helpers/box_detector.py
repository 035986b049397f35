"""A small real detector in an ONNX file: finds the box of each of three colours, in any documented form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="no files of ONNX: onnx is not installed (the extra export)")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper

COLOURS = np.eye(3, dtype=np.uint8) * 255
"""Of the boxes that it finds, in the order in which it gives them: red, green, blue."""

FORMS = ("torchvision", "named", "batched", "no labels", "five", "five and labels", "six", "movenet")


def box_detector(
    path: Path,
    form: str = "torchvision",
    *,
    shape: Sequence[int | str] = (1, 3, "h", "w"),
    dtype: int = TensorProto.FLOAT,
    mean: Sequence[float] = (0, 0, 0),
    deviation: Sequence[float] = (255, 255, 255),
    parts: bool = False,
    labels: Sequence[int] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write it. What is brighter than 0.53 in a colour is its box; the score is the brightest pixel's.

    Args:
        path: of the file.
        form: of the outputs, one of `FORMS`.
        shape: of the input.
        dtype: of the input, ONNX's number.
        mean, deviation: that it expects to be subtracted from 0…255, and to divide the rest, of each colour.
        parts: boxes in parts of the input.
        labels: of the three boxes; None for 1 or 0, as those forms number persons.
        metadata: of the file.
    """
    graph = _Graph()
    axes = len(shape)
    channels_first = shape[-3] == 3
    pixels = graph.add("Cast", "image", to=TensorProto.FLOAT)
    if axes == 4:
        pixels = graph.add("Squeeze", pixels, graph.constant([0]))
    if not channels_first:
        pixels = graph.add("Transpose", pixels, perm=[2, 0, 1])
    for kind, values in (("Mul", deviation), ("Add", mean)):
        pixels = graph.add(kind, pixels, graph.constant(np.reshape(values, (3, 1, 1)).astype(np.float32)))
    pixels = graph.add("Div", pixels, graph.constant(np.float32(255)))  # (3, H, W), 0 to 1
    bright = graph.add("Cast", graph.add("Greater", pixels, graph.constant(np.float32(0.53))), to=TensorProto.INT32)
    scores = graph.add("ReduceMax", pixels, graph.constant([1, 2]), keepdims=0)
    edges = []
    for axis in (1, 2):  # over rows, which leaves columns: x; then y
        line = graph.add("ReduceMax", bright, graph.constant([axis]), keepdims=0)
        start = graph.add("ArgMax", line, axis=1, keepdims=1, select_last_index=0)
        last = graph.add("ArgMax", line, axis=1, keepdims=1, select_last_index=1)
        edges += [start, graph.add("Add", last, graph.constant([1]))]
    left, right, top, bottom = (graph.add("Cast", edge, to=TensorProto.FLOAT) for edge in edges)
    if parts or form == "movenet":
        size = graph.add("Cast", graph.add("Shape", pixels, start=1), to=TensorProto.FLOAT)
        height, width = (graph.add("Gather", size, graph.constant(np.int64(index))) for index in (0, 1))
        left, right = (graph.add("Div", edge, width) for edge in (left, right))
        top, bottom = (graph.add("Div", edge, height) for edge in (top, bottom))
    column = graph.add("Unsqueeze", scores, graph.constant([1]))
    boxes = graph.add("Concat", left, top, right, bottom, axis=1)
    numbers = labels or [0 if form in ("five and labels", "six") else 1] * 3
    ints, floats = graph.constant(np.array(numbers)), graph.constant(np.float32(numbers))
    outputs = {
        "torchvision": lambda: {"b": boxes, "l": ints, "s": scores},
        "named": lambda: {"pred_scores": scores, "pred_classes": floats, "pred_boxes": boxes},
        "batched": lambda: {f"{name}s": graph.first(what) for name, what in (("s", scores), ("b", boxes), ("l", ints))},
        "no labels": lambda: {"scores": scores, "boxes": boxes},
        "five": lambda: {"found": graph.add("Concat", boxes, column, axis=1)},
        "five and labels": lambda: {
            "dets": graph.first(graph.add("Concat", boxes, column, axis=1)),
            "labels": graph.first(ints),
        },
        "six": lambda: {
            "found": graph.first(
                graph.add("Concat", boxes, column, graph.constant(np.float32(numbers)[:, None]), axis=1),
            )
        },
        "movenet": lambda: {
            "Identity:0": graph.first(
                graph.add(
                    "Concat",
                    graph.add(
                        "Concat", graph.constant(np.zeros((3, 51), np.float32)), top, left, bottom, right, column, axis=1
                    ),
                    graph.constant(np.zeros((3, 56), np.float32)),
                    axis=0,
                )
            )
        },
    }[form]()
    graph.save(path, outputs, shape, dtype, metadata or {})
    return path


class _Graph:
    """Nodes in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: object) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"node_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def first(self, value: str) -> str:
        """With a batch of one."""
        return self.add("Unsqueeze", value, self.constant([0]))

    def save(
        self, path: Path, outputs: dict[str, str], shape: Sequence[int | str], dtype: int, metadata: dict[str, str]
    ) -> None:
        for name, value in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        infos = [helper.make_value_info(name, onnx.TypeProto()) for name in outputs]
        image = helper.make_tensor_value_info("image", dtype, shape)
        graph = helper.make_graph(self.nodes, "boxes", [image], infos, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        helper.set_model_props(model, metadata)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)


def draw(size: tuple[int, int], boxes: Sequence[tuple[int, int, int, int] | None]) -> np.ndarray:
    """A black image (height, width) with a box of each colour, as x, y, w, h in whole pixels; later ones in front."""
    image = np.zeros((*size, 3), np.uint8)
    for colour, box in zip(COLOURS, boxes, strict=False):
        if box is not None:
            x, y, w, h = box
            image[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = colour
    return image
