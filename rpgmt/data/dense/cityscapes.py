"""Cityscapes in the bundle of the multi-task literature."""

from __future__ import annotations

from pathlib import Path

from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.dense.npy_bundle import read_bundle
from rpgmt.data.multitask_set import MultiTaskSet

CITYSCAPES_GROUPS = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
"""The groups of Cityscapes' classes but void, in the order of its own numbers."""


def read_cityscapes(root: str | Path, split: str) -> MultiTaskSet:
    """Cityscapes (Cordts et al., CVPR 2016) in the bundle of Liu et al., MTAN (CVPR 2019), 2975 + 500 images of 256×128.

    ::

        {train,val}/image/0.npy    (128, 256, 3) float, 0 to 1; RGB
        {train,val}/label/0.npy    (128, 256) 7 classes, -1 ignored; or label_7/0.npy
        {train,val}/depth/0.npy    (128, 256, 1) 0 to 0.5, 0 where not known

    As `rpgmt.data.dense.nyuv2.read_nyuv2`, without normals. Classes are the groups of Cityscapes' own but void, which is
    ignored. What the literature calls depth here is inverse depth: the numbers of the original disparity files over 65535 (a
    disparity of (65535 · number - 1) / 256 pixels of the original images), and so are errors that it reports.

    Args:
        root, split: as of `read_nyuv2`.

    Raises:
        UserError: as `read_nyuv2`.
    """
    maps = {
        "segmentation": (("label", "label_7"), LabelMap(kind="classes", classes=CITYSCAPES_GROUPS)),
        "depth": (("depth",), LabelMap(kind="depth", inverse=True)),
    }
    return read_bundle(Path(root), split, "Cityscapes", maps)
