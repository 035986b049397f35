"""From what a user writes to a detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rpgmt.detection.detector import Detector
from rpgmt.errors import UserError


def make_detector(
    name_or_file: str | Path,
    *,
    threshold: float | None = None,
    classes: Sequence[int] | None = None,
    device: str = "auto",
    batch_size: int = 4,
    size: int | None = None,
) -> Detector:
    """Return a detector: torchvision's by its name, any other by its ONNX file.

    Args:
        name_or_file: a short name or the name of a function of `torchvision.models.detection`; or a file, recognised by its
            suffix .onnx: see docs/detectors.md.
        threshold: the lowest score that counts, from 0 to 1; None for 0.5, and for MoveNet, whose scores are low, 0.15.
        classes: labels to find, as the detector numbers them; None for persons.
        device: auto, cpu, cuda, cuda:1, mps …
        batch_size: images that a torchvision detector takes at once; ONNX files take one.
        size: side in pixels of the square that an image is fitted into, for ONNX files that leave it open; None for what
            the file says, or else 512.

    Raises:
        UserError: there is no such name or file, the weights cannot be downloaded, onnxruntime is missing, or the file's
            inputs or outputs fit no documented form; or a number is out of its range.
    """
    if Path(name_or_file).suffix.lower() == ".onnx":
        from rpgmt.detection.onnx_detector import OnnxDetector

        return OnnxDetector(Path(name_or_file), threshold=threshold, classes=classes, device=device, size=size)
    if size is not None:
        raise UserError(f"`size` is {size}: torchvision's detectors fit images themselves: leave it out for {name_or_file}")
    from rpgmt.detection.torchvision_detector import TorchvisionDetector

    return TorchvisionDetector(str(name_or_file), threshold=threshold, classes=classes, device=device, batch_size=batch_size)
