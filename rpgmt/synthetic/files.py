"""Synthetic scenes as files: a COCO-format data set with dense maps, and a sheet to look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.synthetic.coco_format import PeopleLabels, coco_document
from rpgmt.synthetic.parallel import render_many, split_start
from rpgmt.synthetic.render import Scene
from rpgmt.visualize import colorize, contact_sheet, draw_pose, save_png
from rpgmt.whole_files import whole_file, write_bytes, write_text


def write_split(
    root: Path,
    split: str,
    *,
    count: int,
    size: int = 96,
    seed: int = 0,
    processes: int | None = None,
    progress: bool = True,
    written: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Write a split of the scenes of ``load`` as files below ``root``; returns the COCO document.

    ::

        images/SPLIT/000000.png              uint8 RGB
        masks/SPLIT/000000.png               0, or 1 + the person's place among the image's annotations
        parts/SPLIT/000000.png               index into rpgmt.synthetic.body.PARTS
        depth/SPLIT/000000.npy               float32 (size, size), metres
        normals/SPLIT/000000.npy             float32 (size, size, 3)
        annotations/person_keypoints_SPLIT.json   written last

    Args:
        root: folder, made if missing.
        split, count, size, seed, processes, progress: as of ``load``.
        written: called with the number of finished images after each.
    """
    start = split_start(split, count)
    folders = ("images", "masks", "parts", "depth", "normals")
    for folder in folders:
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    labels = PeopleLabels()
    title = f"Rendering synthetic {split}" if progress else None
    for i, scene in enumerate(render_many(seed, start, count, size, processes=processes, progress=title)):
        paths = {folder: root / folder / split / f"{i:06d}" for folder in folders}
        _write_png(paths["images"], scene.image[:, :, ::-1])  # OpenCV writes BGR
        _write_png(paths["masks"], scene.people)
        _write_png(paths["parts"], scene.parts)
        for name, values in (("depth", scene.depth), ("normals", scene.normals)):
            with whole_file(paths[name].with_suffix(".npy"), durable=False) as part:
                np.save(part, values)
        labels.add(i, scene)
        written(i + 1)
    document = coco_document(labels.arrays(), count, size)
    path = root / "annotations" / f"person_keypoints_{split}.json"
    write_text(path, json.dumps(document, allow_nan=False))
    return document


def _write_png(path: Path, image: NDArray[np.uint8]) -> None:
    _, data = cv2.imencode(".png", np.ascontiguousarray(image))
    write_bytes(path.with_suffix(".png"), data.tobytes(), durable=False)


def write_sheet(path: Path, scenes: list[Scene]) -> None:
    """Write a PNG with a row for each scene: image, skeletons, people, parts, depth and normals."""
    rows = []
    for scene in scenes:
        skeletons = scene.image
        for person in scene.keypoints:
            skeletons = draw_pose(skeletons, person, COCO_KEYPOINTS.skeleton, flip_pairs=COCO_KEYPOINTS.flip_pairs)
        rows.append(
            [
                scene.image,
                skeletons,
                colorize(scene.people, "labels"),
                colorize(scene.parts, "labels"),
                colorize(scene.depth, "depth"),
                colorize(scene.normals, "normals"),
            ]
        )
    save_png(path, contact_sheet(rows, ["image", "key points", "people", "parts", "depth", "normals"]), max_bytes=300_000)
