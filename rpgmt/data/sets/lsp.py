"""Leeds Sports Pose and its extended training set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rpgmt.data.coco.data_root import annotation_files, find_file, find_files
from rpgmt.data.coco.entries import annotation, image_entries, person_category, points_box
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.person import clip_box
from rpgmt.data.coco.skeletons import LSP_KEYPOINTS
from rpgmt.data.regions import Box
from rpgmt.data.sets.matlab import read_mat
from rpgmt.errors import UserError


def read_lsp(root: str | Path, split: str) -> CocoPeople:
    """Leeds Sports Pose (Johnson and Everingham, BMVC 2010) or its extension (CVPR 2011).

    Read are COCO-format files where they are there (`rpgmt.data.coco.data_root.find_files`), else the data set's own
    `joints.mat` with `images/`:

    - LSP, 3×14×2000: the first half of the images trains, the second is `val`. All joints are labelled, and the
      third row is 1 where a joint is *hidden*.
    - LSP Extended, 14×3×10000: all of it trains. The third column is 1 where a joint is *visible*; others have no
      position.

    Coordinates are taken as they stand, since the data sets do not say where theirs begin. A box is that of the labelled
    joints with a tenth of its longer side around, as hands, feet and hair stick out, clipped to the image; `area` is
    0.53 of it.

    Args:
        root: folder with the annotations and the images.
        split: "train" or "val".

    Raises:
        UserError: a file or image is missing or malformed, or the extension is asked for "val".
    """
    root = Path(root)
    path = find_file(root, split, (*annotation_files(split), "joints.mat"))
    if path.name != "joints.mat":
        return CocoPeople.from_files(*find_files(root, split))
    if split not in ("train", "val"):
        raise UserError(f"`split` is {split!r}: LSP has train, val")
    joints = read_mat(path, ("joints",))["joints"]
    if joints.ndim == 3 and joints.shape[:2] == (3, 14):
        points, third = joints[:2].transpose(2, 1, 0), joints[2].T
        visibility = np.where(third > 0, 1, 2)
        half = len(points) // 2
        chosen = np.arange(half) if split == "train" else np.arange(half, len(points))
        digits = 4
    elif joints.ndim == 3 and joints.shape[:2] == (14, 3):
        if split == "val":
            raise UserError(f"{path}: LSP Extended has no val split: validate on LSP, or on a COCO-format file of your own")
        points, third = joints[:, :2].transpose(2, 0, 1), joints[:, 2].T
        visibility = np.where(third > 0, 2, 0)
        chosen = np.arange(len(points))
        digits = 5
    else:
        raise UserError(f"{path}: `joints` is {joints.shape}: LSP's is (3, 14, 2000), LSP Extended's (14, 3, 10000)")
    if not (np.abs(points[visibility > 0]) < 1e9).all():
        raise UserError(f"{path}: a labelled joint has no position: give the data set's own file")
    images = image_entries(root / "images", [f"im{i + 1:0{digits}d}.jpg" for i in chosen], str(path))
    annotations = []
    for i, image in zip(chosen, images, strict=True):
        labelled = points[i][visibility[i] > 0]
        box = _box(labelled, image["width"], image["height"])
        annotations.append(annotation(image["id"], image["id"], points[i], visibility[i], box, box))
    document = {"images": images, "annotations": annotations, "categories": [person_category(LSP_KEYPOINTS)]}
    return CocoPeople.from_document(document, root / "images", name=f"{path} ({split})")


def _box(points: np.ndarray, width: int, height: int) -> Box:
    whole = (0.0, 0.0, float(width), float(height))
    if not len(points):
        return whole
    margin = 0.1 * float((points.max(axis=0) - points.min(axis=0)).max())
    return clip_box(points_box(points, margin), {"id": 0, "width": width, "height": height}, "LSP") or whole
