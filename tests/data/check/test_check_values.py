"""Numbers that training takes, and that would ruin it, are noted; those of good data are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rpgmt.data.check.dense_values import DepthValues, NormalValues
from rpgmt.data.check.findings import Findings
from rpgmt.data.check.people import check_labels


def notes(findings: Findings) -> list[str]:
    return [f"{one.count} × {one.title}: {one.examples[0]}" if one.count else one.title for one in findings.notes]


def people(count: int, edit: Callable[[dict, int], object] = lambda entry, number: None, per_image: int = 1) -> list[str]:
    """What is noted of people with three points each, of which `edit` changes some."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 90, "height": 80} for i in range(-(-count // per_image))]
    entries = []
    for number in range(count):
        x = 5 + number % 40
        points = [x + 5, 20 + number % 9, 2, x + 20, 30, 1, x + 9, 40, 2]
        entry = {"id": number, "image_id": number // per_image, "category_id": 1, "bbox": [x, 9, 40, 50], "area": 21}
        entries.append({**entry, "keypoints": points})
        edit(entries[-1], number)
    category = {"id": 1, "name": "cat", "keypoints": ["nose", "tail", "back"]}
    findings = Findings()
    check_labels({"images": images, "annotations": entries, "categories": [category]}, "x", findings)
    return notes(findings)


def test_people_that_are_as_they_should_be() -> None:
    assert people(30) == []
    assert people(40, per_image=20) == []
    assert people(30, lambda entry, number: number == 0 and entry["keypoints"].__setitem__(slice(0, 2), [0, 0])) == []


@pytest.mark.parametrize("place", [0, -1])
def test_points_at_no_place(place: int) -> None:
    def edit(entry: dict, number: int) -> None:
        if number % 5 == 0:
            entry["keypoints"][:2] = entry["keypoints"][6:8] = [place, place]
            entry["bbox"] = [0, 0, 80, 80]
            entry["area"] = 100

    text = f"12 labelled key points of 6 of 30 people lie at exactly ({place}, {place}): perhaps not labelled: give them v = 0"
    assert people(30, edit) == [f"x: {text}"]


def test_areas_of_another_unit_and_crowded_images() -> None:
    (note,) = people(30, lambda entry, _: entry.update(area=0.2))
    assert note.startswith("30 × people whose area is below 1 % of their box (in square pixels?")
    (note,) = people(42, per_image=21)
    assert note == "2 × images with more than 20 people (COCO's evaluation counts the 20 best found): x: 0.jpg with 21"


def depth(change: Callable[[np.ndarray], np.ndarray], unit: float = 1.0, *, inverse: bool = False) -> list[str]:
    looked_at, findings = DepthValues(unit, inverse), Findings()
    for seed in range(3):
        metres = np.random.default_rng(seed).uniform(0.5, 30, (20, 30))
        looked_at.add(np.float32(change(metres)) * np.float32(unit))
    looked_at.report("train, depth", findings)
    return notes(findings)


def test_depth() -> None:
    def with_holes(metres: np.ndarray) -> np.ndarray:
        return np.where(metres > 25, 65535, np.round(metres * 1000))

    assert depth(lambda metres: metres) == []
    assert depth(lambda metres: np.round(metres * 1000), 0.001) == []
    assert depth(lambda metres: np.where(metres > 25, 0, metres)) == []
    (note,) = depth(lambda metres: metres * 1000)
    assert "half of it is beyond" in note
    assert "`unit: 0.001` of millimetres" in note
    (note,) = depth(with_holes, 0.001)
    assert "17% of the labelled pixels hold 65535, the largest number of 16 bits: perhaps no label, which is 0" in note
    assert depth(lambda metres: metres * 0) == ["train, depth: 3 of 3 maps hold no number above 0: 0 and below is no label"]
    assert depth(lambda disparity: disparity * 1000, inverse=True) == []


def normals(change: Callable[[np.ndarray], np.ndarray], *, facing: bool = True) -> list[str]:
    looked_at, findings = NormalValues(facing), Findings()
    for seed in range(3):
        vectors = np.random.default_rng(seed).normal(size=(20, 30, 3)) * 0.4
        vectors[..., 2] = -1
        looked_at.add(change(vectors))
    looked_at.report("train, normals", findings)
    return notes(findings)


def test_normals() -> None:
    assert normals(lambda n: n) == []
    assert normals(lambda n: n * (n[..., :1] > 0)) == []  # half of it without a label
    wall = np.array([0.0, 0.0, -1.0])
    assert normals(lambda n: np.zeros_like(n) + wall) == []
    for signs in (1, np.array([1, -1, -1])):  # as `negate` leaves them
        (note,) = normals(lambda n, signs=signs: (n / np.linalg.norm(n, axis=2, keepdims=True) + 1) / 2 * signs)
        assert "none of x, y and z has both signs in 1,800 pixels: perhaps (n + 1) / 2 was stored" in note
    (note,) = normals(lambda n: -n)
    assert "z is above 0 in 100% of the pixels" in note
    assert "see `negate`, e.g. [z], or [y, z] where y runs up" in note
    assert normals(lambda n: -n, facing=False) == []  # NYUv2's bundle is what it is
    assert normals(lambda n: n * 0) == ["train, normals: 3 of 3 maps hold (0, 0, 0) alone, which is no label"]
