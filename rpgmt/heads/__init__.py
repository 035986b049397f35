"""What a head predicts: its loss, its metrics, its results and its picture, a class for each kind of label.

A data set says by the kind of its labels which head they need. A new kind of task is one class here, its kind in
`rpgmt.data.dense.label_maps` and a line in `map_head`. Key points have a head of their own, `rpgmt.heads.keypoints`. What is
trained, one head or several, is `rpgmt.heads.staged_task.StagedTask`.
"""

from __future__ import annotations

from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.heads.classification import Classification
from rpgmt.heads.depth import Depth, DepthLoss
from rpgmt.heads.head import Head
from rpgmt.heads.normals import Normals
from rpgmt.heads.parts import PartSegmentation
from rpgmt.heads.segmentation import Segmentation

__all__ = ["Classification", "Depth", "Head", "Normals", "PartSegmentation", "Segmentation", "map_head"]


def map_head(name: str, label: LabelMap, *, depth_loss: DepthLoss = "l1") -> Head:
    """The head that predicts a label map.

    Args:
        name: of the map, and so of the head.
        label: what the map holds.
        depth_loss: of depth.
    """
    if label.kind == "classes":
        return Segmentation(name, label)
    if label.kind == "parts":
        return PartSegmentation(name, label)
    if label.kind == "depth":
        return Depth(name, label, depth_loss)
    if label.kind == "normals":
        return Normals(name)
    raise NotImplementedError(f"no head predicts labels of the kind {label.kind}: name it in map_head")
