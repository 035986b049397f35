"""Detectors in ONNX files, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rpgmt.detection.detector import DEFAULT_THRESHOLD, Corners, Detector
from rpgmt.detection.onnx_inputs import read_input_form
from rpgmt.detection.onnx_outputs import FORMS, Outputs, read_outputs
from rpgmt.errors import UserError

_KEYS = ("rpgmt.boxes", "rpgmt.classes", "rpgmt.input", "rpgmt.size")


class OnnxDetector(Detector):
    """A detector in an ONNX file, on one image at a time: docs/detectors.md has the forms of inputs and outputs.

    Args:
        path: of the file. It is tried on a grey image at once.
        threshold: the lowest score that counts, from 0 to 1; None for 0.5, and 0.15 for MoveNet.
        classes: labels that count, as the detector numbers them; None for persons: what the file's metadata say, else 1
            where boxes, scores and labels are outputs of their own, as torchvision counts, and 0 in rows of five or six.
        device: auto and cuda use CUDA if this onnxruntime has it, all else the CPU.
        size: height and width in pixels to which images are fitted, for inputs that leave them open.

    Raises:
        UserError: onnxruntime is missing, or the file is, or it is not a detector of a documented form; or the threshold is
            not from 0 to 1.
    """

    def __init__(
        self,
        path: Path,
        *,
        threshold: float | None = None,
        classes: Sequence[int] | None = None,
        device: str = "auto",
        size: int | None = None,
    ) -> None:
        super().__init__(DEFAULT_THRESHOLD if threshold is None else threshold, classes)
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"{path}: needs onnxruntime, which is missing: pip install 'rpgmt[export]'") from error
        if not path.is_file():
            raise UserError(f"`detector` is {path}: no such file: give an ONNX file, or the name of a torchvision detector")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: they are raised too; the rest is the model's maker's to read
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")[0 if device.startswith(("auto", "cuda")) else 1 :]
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise UserError(f"{path}: onnxruntime cannot read it: {_first_line(error)}") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        for key in metadata:
            if key.startswith("rpgmt.") and key not in _KEYS:
                raise UserError(f"{path}: its metadata have a key {key}: those of a detector are {', '.join(_KEYS)}")
        self._form = read_input_form(path, self._session.get_inputs(), metadata, size)
        self._names = [output.name for output in self._session.get_outputs()]
        self._parts = _parts_of(path, metadata)
        tried, _ = self._run(np.full((64, 64, 3), 114, np.uint8))
        if threshold is None:
            self.threshold = tried.threshold
        if self.classes is None and tried.labels is not None:
            self.classes = _classes_of(path, metadata, tried.person)

    def _detect(self, images: Sequence[np.ndarray]) -> list[Corners]:
        found = []
        for image in images:
            outputs, scale = self._run(image)
            parts = outputs.in_parts() if self._parts is None else self._parts
            unit = np.tile((self._form.width, self._form.height), 2) if parts else 1
            found.append(Corners(outputs.corners.astype(np.float64) * unit / scale, outputs.scores, outputs.labels))
        return found

    def _run(self, image: np.ndarray) -> tuple[Outputs, np.ndarray]:
        array, scale = self._form.prepare(image)
        try:
            arrays = self._session.run(None, {self._session.get_inputs()[0].name: array})
        except Exception as error:  # as above
            raise UserError(f"{self._path}: onnxruntime cannot run it on {array.shape}: {_first_line(error)}") from error
        outputs = read_outputs(self._names, arrays)
        if outputs is None:
            shapes = ", ".join(f"{name} {a.dtype} {a.shape}" for name, a in zip(self._names, arrays, strict=True))
            raise UserError(f"{self._path}: its outputs are {shapes}: a detector has {FORMS}")
        return outputs, scale


def _parts_of(path: Path, metadata: Mapping[str, str]) -> bool | None:
    written = metadata.get("rpgmt.boxes")
    if written not in (None, "parts", "pixels"):
        raise UserError(f"{path}: `rpgmt.boxes` is {written}: give pixels, or parts (of the input)")
    return None if written is None else written == "parts"


def _classes_of(path: Path, metadata: Mapping[str, str], person: int) -> tuple[int, ...]:
    written = metadata.get("rpgmt.classes", str(person))
    numbers = written.split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise UserError(f"{path}: `rpgmt.classes` is {written}: give the labels of persons, e.g. 0 or 1,2")
    return tuple(map(int, numbers))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
