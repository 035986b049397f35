"""People of a video: lasting ids, and key points that do not tremble."""

from rpgmt.tracking.smoothing import KeypointSmoother
from rpgmt.tracking.tracker import Tracker

__all__ = ["KeypointSmoother", "Tracker"]
