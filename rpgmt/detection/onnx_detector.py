"""Detectors in ONNX files, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rpgmt.detection.detector import Corners, Detector


class OnnxDetector(Detector):
    """A detector in an ONNX file, on one image at a time: see docs/detectors.md for the forms of inputs and outputs."""

    def __init__(
        self,
        path: Path,
        *,
        threshold: float = 0.5,
        classes: Sequence[int] | None = None,
        device: str = "auto",
        size: int | None = None,
    ) -> None:
        super().__init__(threshold, classes)
        raise NotImplementedError

    def _detect(self, images: Sequence[np.ndarray]) -> list[Corners]:
        raise NotImplementedError
