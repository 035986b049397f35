"""A picture of samples with their labels, as the network sees them: cut out, mirrored, changed as in training."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.augmentation import Augmentation
from rpgmt.data.check.examination import Readable, Report
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.mirror_classes import Mirror, mirror_of
from rpgmt.data.multitask_crops import MultiTaskCrops
from rpgmt.data.pose_crops import PoseCrops
from rpgmt.data.sets.image_classes import ImageSet
from rpgmt.errors import UserError
from rpgmt.visualize import colorize, contact_sheet, draw_pose, save_png, write_caption

Image = NDArray[np.uint8]
SHOWN = 6
COLUMNS = ("crop", "its labels", "their mirror image", "mirrored in training", "changed in training")
CLASS_COLUMNS = ("validated on", "mirrored in training", "changed in training")
MIRROR = Augmentation(flip=1.0, scale=0.0, rotation=0.0)
"""Training's own mirror image, and nothing else."""


def write_sheet(path: Path, report: Report, size: tuple[int, int] = (192, 256)) -> None:
    """Writes a PNG with a row for each of some samples, of several labels one for each.

    Columns: the crop; with its labels; that picture mirrored as it is; the crop that training makes as a mirror image, with
    its labels, where left (blue) and right (orange) are to be the other way round than in the column before; one of training's
    changed crops.

    Args:
        path: of the PNG.
        report: of the check.
        size: (width, height) of a crop.

    Raises:
        UserError: no split can be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the check has said it
        rows = next((rows for labelled in report.sets.values() if (rows := list(_rows(labelled, size)))), [])
    if not rows:
        raise UserError(f"{report.recognised.root}: nothing can be drawn, as no split can be read")
    titles = COLUMNS if len(rows[0]) == len(COLUMNS) else CLASS_COLUMNS[: len(rows[0])]
    save_png(path, contact_sheet(rows, titles))


def _spread(count: int, shown: int) -> list[int]:
    """Indices of some samples, evenly spread."""
    shown = min(shown, count)
    return sorted({round(i * (count - 1) / max(1, shown - 1)) for i in range(shown)})


def _rows(labelled: Readable, size: tuple[int, int]) -> Iterator[list[Image]]:
    if isinstance(labelled, ImageSet):
        yield from _class_rows(labelled, size)
    elif isinstance(labelled, CocoPeople):
        crops = [PoseCrops(labelled, size, augment=augment) for augment in (None, MIRROR, Augmentation())]
        for index, samples in _samples(crops, SHOWN):
            person = labelled.people[index]
            caption = f"{person.image.get('file_name', '')}, {person.annotation_id}"
            yield _row(samples, "keypoints", labelled.keypoints, caption)
    else:
        names = list(labelled.names)
        known = {name: Mirror(swaps=labelled.mirror(name).swaps) for name in (*labelled.maps, *labelled.classes)}
        labelled = dataclasses.replace(labelled, mirrors=known)  # it is drawn in any case, and said before what is not known
        several = [MultiTaskCrops(labelled, names, size, augment=augment) for augment in (None, MIRROR, Augmentation())]
        for index, samples in _samples(several, max(2, 2 * SHOWN // len(names)) if names else SHOWN):
            file = labelled.regions.regions[index].image.get("file_name", "")
            for name in names:
                kind = labelled.people.keypoints if name == "keypoints" and labelled.people else labelled.kind(name)
                yield _row(samples, name, kind, f"{name}, {file}")


def _samples(crops: Sequence[Any], shown: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Some samples, evenly spread, cut out in each way; what cannot be read was found before, and others stand in."""
    count, found = len(crops[0]), 0
    for index in dict.fromkeys([*_spread(count, shown), *range(min(count, 100))]):
        if found == shown:
            return
        with contextlib.suppress(UserError):
            yield index, [part[0, index] for part in crops]
            found += 1


def _row(samples: list[dict[str, Any]], name: str, kind: Any, caption: str) -> list[Image]:
    crop, mirrored, changed = (_draw(sample, name, kind) for sample in samples)
    return [write_caption(samples[0]["image"], caption), crop, np.ascontiguousarray(crop[:, ::-1]), mirrored, changed]


def _draw(sample: dict[str, Any], name: str, kind: Any) -> Image:
    """A crop with one of its labels, as the heads draw theirs."""
    image: Image = sample["image"]
    if isinstance(kind, KeypointSet):
        points = np.concatenate([sample["keypoints"], sample["visibility"][:, None]], axis=1)
        return draw_pose(image, points, kind.skeleton, flip_pairs=kind.flip_pairs, scale=-(-192 // image.shape[0]))
    if isinstance(kind, LabelMap):
        drawn = {"classes": "labels", "parts": "labels"}.get(kind.kind, kind.kind)
        return colorize(sample[name], drawn)  # type: ignore[arg-type]
    number = sample[name]
    return write_caption(image, f"{name}: {kind[number] if number >= 0 else 'no label'}")


def _class_rows(labelled: ImageSet, size: tuple[int, int]) -> Iterator[list[Image]]:
    """Of each of up to 12 classes an image."""
    from rpgmt.data.image_classification import ImageAugmentation, classified_images

    chosen = [int(np.flatnonzero(labelled.labels == number)[0]) for number in range(min(12, len(labelled.classes)))]
    if not isinstance(labelled.images, list):  # small images, which are changed on the training device
        yield from ([write_caption(labelled.images[index], labelled.classes[labelled.labels[index]])] for index in chosen)
        return
    side = min(size), min(size)
    classes = labelled.classes
    swaps = tuple((classes[left], classes[right]) for left, right in mirror_of(classes).swaps)
    mirrored, changes = ImageAugmentation(flip=1.0, swaps=swaps, smallest=1.0), ImageAugmentation(swaps=swaps)
    ways = [classified_images(labelled, "images", side, augment=augment, seed=0) for augment in (None, mirrored, changes)]
    for index in chosen:
        with contextlib.suppress(UserError):
            samples = [images[0, index] for images in ways]
            yield [write_caption(sample["image"], classes[sample["label"]]) for sample in samples]
