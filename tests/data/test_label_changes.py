"""What each random change does to each kind of label: every cell of the table in docs/own-data.md."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.one_person import one_person
from numpy.typing import NDArray

from rpgmt.data.augmentation import Augmentation, Changes
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.mirror_classes import Mirror
from rpgmt.data.multitask_crops import MultiTaskCrops
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.pose_crops import HALF_BODY_PADDING, half_body_box
from rpgmt.data.regions import Entry

SIZE = (36, 48)
PADDING = 1.25
SIDES = ("ground", "left_arm", "right_arm", "head")

STILL: dict[str, Any] = {"flip": 0.0, "scale": 0.0, "rotation": 0.0}
CHANGES: dict[str, dict[str, Any]] = {
    "mirror image": {"flip": 1.0},
    "rotation": {"rotation": 90.0},
    "scale": {"scale": 0.4},
    "zoom": {"zooms": (2.0,)},
    "shift": {"shift": 0.3},
    "half body": {"half_body": 1.0},
}
OF_PIXELS: dict[str, dict[str, Any]] = {"pixels": {"pixels": 1.0}, "occlusion": {"occlusion": 1.0}}
KINDS = ("keypoints", "classes", "parts", "depth", "inverse depth", "normals", "class of an image")
MAPS = {
    "classes": LabelMap(kind="classes", classes=SIDES, swaps=((1, 2),)),
    "parts": LabelMap(kind="parts", classes=SIDES, swaps=((1, 2),)),
    "depth": LabelMap(kind="depth"),
    "inverse depth": LabelMap(kind="depth", inverse=True),
    "normals": LabelMap(kind="normals"),
}


def _maps(entry: Entry, names: Any = tuple(MAPS)) -> dict[str, NDArray]:
    random, size = np.random.default_rng(7), (entry["height"], entry["width"])
    normals = random.normal(size=(*size, 3)).astype(np.float32)
    numbers = random.integers(0, 4, size).astype(np.int16)
    depth = random.uniform(1, 9, size).astype(np.float32)
    all_of_them = {"classes": numbers, "parts": numbers[::-1], "depth": depth, "inverse depth": 1 / depth, "normals": normals}
    return {name: all_of_them[name] for name in MAPS if name in names}


@cache
def _crops(change: str) -> MultiTaskCrops:
    people = one_person()
    labelled = MultiTaskSet(
        regions=people.regions,
        people=people,
        maps=MAPS,
        read_maps=_maps,
        classes={"class of an image": ("left", "ahead", "right")},
        read_classes=lambda _: {"class of an image": 2},
        mirrors={"class of an image": Mirror(swaps=((0, 2),))},
    )
    augment = Augmentation(**(STILL | (CHANGES | OF_PIXELS)[change]))
    return MultiTaskCrops(labelled, KINDS, SIZE, augment=augment, seed=3, padding=PADDING)


def _to_image(crops: MultiTaskCrops, changes: Changes) -> tuple[NDArray, NDArray, float]:
    """From the pixels of the crop (x, y) to those of the image, step by step: linear part, offset, magnification."""
    people = crops.dataset.people
    assert people is not None
    box, padding = people.people[0].box, PADDING
    if changes.half_body:
        upper = np.isin(np.arange(17), people.keypoints.upper)
        half = half_body_box(people.people[0], upper, changes.half_body)
        assert half is not None
        box, padding = half, HALF_BODY_PADDING
    x, y, w, h = box
    width, height = SIZE
    shown = padding * max(w, h * width / height)
    magnification = changes.scale * width / shown
    turn = math.radians(changes.rotation)
    back = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) / magnification
    back = back @ np.diag([-1 if changes.flip else 1, 1])
    centre = np.array([x + (w - 1) / 2, y + (h - 1) / 2]) + np.array(changes.shift) * [shown, shown * height / width]
    return back, centre - back @ [(width - 1) / 2, (height - 1) / 2], magnification


def _expected(kind: str, crops: MultiTaskCrops, changes: Changes) -> Any:
    """By the rules of the table."""
    back, offset, magnification = _to_image(crops, changes)
    people = crops.dataset.people
    assert people is not None
    person = people.people[0]
    if kind == "keypoints":
        points = (person.keypoints - offset) @ np.linalg.inv(back).T
        return points[list(people.keypoints.flip_order)] if changes.flip else points
    if kind == "class of an image":
        return 0 if changes.flip else 2
    label, values = MAPS[kind], _maps(person.image)[kind]
    rows, columns = np.indices(SIZE[::-1])
    x, y = np.floor(np.stack([columns, rows], -1) @ back.T + offset + 0.5).astype(int).transpose(2, 0, 1)
    inside = (x >= 0) & (y >= 0) & (x < values.shape[1]) & (y < values.shape[0])
    seen = values[y.clip(0, values.shape[0] - 1), x.clip(0, values.shape[1] - 1)]
    if label.categorical:
        exchanged = np.array([0, 2, 1, 3])[seen] if changes.flip else seen
        return np.where(inside, exchanged, -1)
    if label.kind == "depth":
        return np.where(inside, seen * magnification if label.inverse else seen / magnification, 0)
    turn, side = math.radians(changes.rotation), -1 if changes.flip else 1
    nx, ny, nz = seen.transpose(2, 0, 1).astype(float)
    turned = side * (nx * math.cos(turn) - ny * math.sin(turn)), nx * math.sin(turn) + ny * math.cos(turn), nz
    return np.where(inside[..., None], np.stack(turned, -1), 0)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_label_changes_as_the_table_says(kind: str, change: str) -> None:
    _check(kind, change)


def test_changes_of_pixels_leave_every_label() -> None:
    """In one test: the library that makes them takes seconds to load."""
    for change in OF_PIXELS:
        for kind in KINDS:
            _check(kind, change)


def _check(kind: str, change: str) -> None:
    crops = _crops(change)
    changes = crops.crops._crops.changes((1, 0))  # type: ignore[union-attr]
    sample, expected = crops[1, 0], _expected(kind, crops, changes)
    assert changes != Changes()  # something did change
    if kind == "keypoints":
        people = crops.dataset.people
        assert people is not None
        order = list(people.keypoints.flip_order) if changes.flip else list(range(17))
        np.testing.assert_array_equal(sample["visibility"], people.people[0].visibility[order])
        np.testing.assert_allclose(sample[kind], expected, atol=1e-3)
    elif kind == "class of an image":
        assert sample[kind] == expected
    else:
        found = np.isclose(sample[kind], expected, rtol=1e-4, atol=1e-4)
        assert found.mean() > 0.99  # a centre that falls on the border of two pixels may be either's


def test_the_table_in_the_documentation_has_these_rows_and_columns() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/own-data.md").read_text()
    section = page.partition("## What random changes do to labels\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    columns = [word for cell in rows[0][1:] for word in re.split(", | and ", cell)]
    assert set(columns) == {*CHANGES, *OF_PIXELS, "random part"}
    kinds = [word for row in rows[2:] for word in row[0].split(", ")]
    assert set(kinds) == {kind.replace("keypoints", "key points") for kind in KINDS}
    assert all(all(row) and len(row) == len(rows[0]) for row in rows)
