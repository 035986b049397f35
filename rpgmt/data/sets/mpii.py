"""MPII Human Pose from the JSON files in common use."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt.config.json_files import read_json
from rpgmt.data.coco.annotations import are_numbers
from rpgmt.data.coco.data_root import find_file
from rpgmt.data.coco.entries import annotation, image_entries, person_category, points_box
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import MPII_KEYPOINTS
from rpgmt.data.regions import Box
from rpgmt.data.sets.matlab import read_mat
from rpgmt.errors import UserError

_FILES = {
    "train": ("annot/train.json", "annotations/mpii_train.json", "mpii_train.json"),
    "val": ("annot/valid.json", "annotations/mpii_val.json", "mpii_val.json"),
    "trainval": ("annot/trainval.json", "annotations/mpii_trainval.json", "mpii_trainval.json"),
}
_HEADS = ("annot/gt_valid.mat", "annotations/mpii_gt_val.mat", "mpii_gt_val.mat")
_FAR = 1e9
"""Pixels: no image is so large."""
_NECK, _TOP = MPII_KEYPOINTS.names.index("upper_neck"), MPII_KEYPOINTS.names.index("head_top")


def read_mpii(root: str | Path, split: str) -> CocoPeople:
    """MPII Human Pose (Andriluka et al., CVPR 2014) as a COCO document in memory.

    Read are the JSON files that HRNet and Simple Baselines (`annot/train.json`, `annot/valid.json`) and MMPose
    (`annotations/mpii_train.json`, `…_val.json`) train on: a list of {`image`, `center`, `scale`, `joints`,
    `joints_vis`}. Points and centres there are MATLAB's, counted from one; ours are one less.

    **Box.** Those projects cut out a square of 200 · 1.25 · `scale` pixels round `center`, which is moved down by
    15 · `scale` first so that feet are not cut off. Here the box is the square of 200 · `scale` pixels round that same
    centre, and the crop's padding of 1.25 (`rpgmt.data.transforms.crop_affine`) makes it theirs; only that the
    centre falls on their crop's W/2 and on our (W-1)/2, the middle of the pixels' centres. Boxes are not clipped to the
    image, as this would move their middle.

    **Head size.** Each annotation has `head_size` in pixels, the unit of PCKh: for `val` 0.6 of the head box's
    diagonal, from `gt_valid.mat` (`mpii_gt_val.mat`), whose points and flags are then also the truth, as in
    published figures. For other splits, or without that file, it is the distance from upper neck to head top, and is
    missing where one of them is not labelled.

    A joint is labelled (v = 2) or not; the files do not tell the hidden ones. `area` is 0.53 of the points' box: MPII has no
    segments.

    Args:
        root: folder with the annotations and `images/`.
        split: "train", "val" or "trainval".

    Raises:
        UserError: a file or image is missing or malformed.
    """
    if split not in _FILES:
        raise UserError(f"`split` is {split!r}: MPII has {', '.join(_FILES)}")
    root = Path(root)
    path = find_file(root, split, _FILES[split])
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: not a list of people: give MPII's JSON file of HRNet or MMPose")
    for number, entry in enumerate(entries):
        _check(entry, f"{path}: person {number}")
    points = np.array([entry["joints"] for entry in entries], dtype=np.float64) - 1
    labelled = np.array([entry["joints_vis"] for entry in entries]) > 0
    heads = np.linalg.norm(points[:, _TOP] - points[:, _NECK], axis=1)
    heads[~(labelled[:, _TOP] & labelled[:, _NECK])] = np.nan
    if split == "val":
        points, labelled, heads = _evaluation_truth(root, points, labelled, heads)
    names = sorted({entry["image"] for entry in entries})
    images = image_entries(root / "images", names, str(path))
    document = {
        "images": images,
        "annotations": _annotations(entries, {image["file_name"]: image["id"] for image in images}, points, labelled, heads),
        "categories": [person_category(MPII_KEYPOINTS)],
    }
    return CocoPeople.from_document(document, root / "images", name=str(path), clip=False)


def _annotations(
    entries: Sequence[dict[str, Any]], image_ids: dict[str, int], points: np.ndarray, labelled: np.ndarray, heads: np.ndarray
) -> list[dict[str, Any]]:
    annotations = []
    for i, entry in enumerate(entries):
        box = _box(entry["center"], entry["scale"])
        extent = points_box(points[i][labelled[i]]) if labelled[i].any() else box
        person = annotation(i + 1, image_ids[entry["image"]], points[i], 2 * labelled[i], box, extent)
        if heads[i] > 0:  # not where it is unknown, NaN
            person["head_size"] = float(heads[i])
        annotations.append(person)
    return annotations


def _box(center: Sequence[float], scale: float) -> Box:
    x, y = center[0] - 1, center[1] - 1
    if center[0] != -1:  # the files' mark of an unknown centre
        y += 15 * scale
    side = 200 * scale
    return x - (side - 1) / 2, y - (side - 1) / 2, side, side


def _evaluation_truth(
    root: Path, points: np.ndarray, labelled: np.ndarray, heads: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The truth of published PCKh figures where its file is there: points, flags and head sizes in pixels."""
    path = next((root / file for file in _HEADS if (root / file).is_file()), None)
    if path is None:
        warnings.warn(
            f"{root}: no {_HEADS[0]} with head boxes: PCKh takes the distance from upper neck to head top as head size, "
            "which gives other figures than the published ones",
            stacklevel=3,
        )
        return points, labelled, heads
    truth = read_mat(path, ("headboxes_src", "jnt_missing", "pos_gt_src"))
    count = len(points)
    for key, shape in (("headboxes_src", (2, 2, count)), ("jnt_missing", (16, count)), ("pos_gt_src", (16, 2, count))):
        if truth[key].shape != shape:
            raise UserError(f"{path}: `{key}` is {truth[key].shape}, not {shape} for the {count} people of the JSON file")
    boxes = truth["headboxes_src"]
    _check_finite("headboxes_src", np.isnan(boxes) | (np.abs(boxes) < _FAR), path, axis=(0, 1))
    labelled = truth["jnt_missing"].T == 0
    points = np.where(labelled[..., None], truth["pos_gt_src"].transpose(2, 0, 1) - 1, 0.0)
    _check_finite("pos_gt_src", np.abs(points) < _FAR, path, axis=(1, 2))
    return points, labelled, 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0)


def _check_finite(key: str, finite: np.ndarray, path: Path, axis: tuple[int, int]) -> None:
    """Raise UserError where a number of a person is infinite; an unknown head box, NaN, is not."""
    wrong = ~finite.all(axis=axis)
    if wrong.any():
        raise UserError(f"{path}: `{key}` of person {int(np.argmax(wrong))} is not finite: give the data set's own file")


def _check(entry: Any, where: str) -> None:
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {entry!r}: give an object {{image, center, scale, joints, joints_vis}}")
    joints, flags, centre = entry.get("joints"), entry.get("joints_vis"), entry.get("center")
    pairs = isinstance(joints, list) and len(joints) == 16 and all(are_numbers(pair) and len(pair) == 2 for pair in joints)
    for key, valid, text in (
        ("image", isinstance(entry.get("image"), str), "a file name"),
        ("center", are_numbers(centre) and len(centre or ()) == 2, "[x, y] in pixels"),
        ("scale", are_numbers([entry.get("scale")]) and entry["scale"] > 0, "the person's height in units of 200 pixels"),
        ("joints", pairs, "16 pairs of numbers"),
        ("joints_vis", are_numbers(flags) and len(flags or ()) == 16, "16 numbers, 0 or 1"),
    ):
        if not valid:
            given = repr(entry[key])[:80] if key in entry else "missing"
            raise UserError(f"{where}: `{key}` is {given}: give {text}")
