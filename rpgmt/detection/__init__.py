"""People found in images, as boxes: torchvision's detectors by name, any ONNX detector by file."""

from rpgmt.detection.detector import Detections, Detector
from rpgmt.detection.make import make_detector

__all__ = ["Detections", "Detector", "make_detector"]
