"""NYUv2 in the bundle of the multi-task literature."""

from __future__ import annotations

from pathlib import Path

from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.dense.npy_bundle import read_bundle
from rpgmt.data.multitask_set import MultiTaskSet

NYUV2_CLASSES = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)


def read_nyuv2(root: str | Path, split: str) -> MultiTaskSet:
    """NYUv2 (Silberman et al., ECCV 2012) in the bundle of Liu et al., MTAN (CVPR 2019), 795 + 654 images of 384×288.

    ::

        {train,val}/image/0.npy    (288, 384, 3) float, 0 to 1; RGB
        {train,val}/label/0.npy    (288, 384) 13 classes, -1 ignored
        {train,val}/depth/0.npy    (288, 384, 1) metres, 0 where not known
        {train,val}/normal/0.npy   (288, 384, 3) unit vectors, 0 where not known

    Maps are `segmentation`, `depth` and `normals`. Other sizes, uint8 images and channels that come first are read as well;
    images become uint8, 0 to 255, rounded. Files are numbered, with gaps or without. A map without a folder is not in the
    set, an image without one of the files lacks that label. Normals are taken as they stand: mirror images negate x in
    all code that reads the bundle, but nobody says whether y runs down or up, which matters to turned images only.

    Args:
        root: folder with `train` and `val`.
        split: "train" or "val".

    Raises:
        UserError: a folder or an image is missing, or a file is malformed; images' headers are looked at here, maps when
            they are read.
    """
    maps = {
        "segmentation": (("label",), LabelMap(kind="classes", classes=NYUV2_CLASSES)),
        "depth": (("depth",), LabelMap(kind="depth")),
        "normals": (("normal",), LabelMap(kind="normals")),
    }
    return read_bundle(Path(root), split, "NYUv2", maps)
