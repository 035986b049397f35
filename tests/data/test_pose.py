from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from rpgmt.data.coco import CocoPeople, find_files
from rpgmt.data.keypoints import COCO_KEYPOINTS
from rpgmt.data.pose import Augmentation, PoseCrops
from rpgmt.data.transforms import transform_points

SIZE = (48, 64)


def _people() -> CocoPeople:
    """One person whose every labelled point is a bright pixel on black, each of its own colour."""
    rng = np.random.default_rng(0)
    x, y = rng.choice(np.arange(30, 70), 17, replace=False), rng.choice(np.arange(20, 100), 17, replace=False)
    visibility = np.array([2, 1, 0] + [2] * 14)
    image = np.zeros((120, 100, 3), dtype=np.uint8)
    image[y, x] = rng.integers(100, 256, (17, 3))
    document = {
        "images": [{"id": 5, "width": 100, "height": 120}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS.names)}],
        "annotations": [
            {
                "id": 1,
                "image_id": 5,
                "category_id": 1,
                "bbox": [28, 18, 44, 84],
                "area": 2000,
                "keypoints": np.stack([x, y, visibility], axis=1).ravel().tolist(),
            }
        ],
    }
    return CocoPeople(document, lambda _: image)


def test_samples_are_batched_by_the_default_collate() -> None:
    crops = PoseCrops(_people(), SIZE)
    batch = default_collate([crops[0, 0], crops[7, 0]])
    assert batch["image"].shape == (2, 64, 48, 3)
    assert batch["image"].dtype == torch.uint8
    assert batch["keypoints"].shape == (2, 17, 2)
    assert batch["keypoints"].dtype == torch.float32
    assert batch["visibility"].shape == (2, 17)
    assert batch["to_image"].shape == (2, 2, 3)
    assert batch["to_image"].dtype == torch.float64
    assert batch["index"].tolist() == [0, 0]
    assert torch.equal(batch["image"][0], batch["image"][1])  # no augmentation, no difference between epochs
    assert len(crops) == 1


@pytest.mark.parametrize("augment", [None, Augmentation(flip=0.5, scale=0.25, rotation=40, shift=0.1)])
def test_points_go_back_to_where_they_were(augment: Augmentation | None) -> None:
    people = _people()
    crops = PoseCrops(people, SIZE, augment=augment, seed=1)
    order = np.array(COCO_KEYPOINTS.flip_order)
    flips = 0
    for epoch in range(12):
        sample = crops[epoch, 0]
        back = transform_points(sample["to_image"], sample["keypoints"].astype(float))
        mirrored = np.linalg.det(sample["to_image"][:, :2]) < 0
        flips += mirrored
        expected = people.people[0].keypoints[order if mirrored else slice(None)]
        np.testing.assert_allclose(back, expected, atol=1e-4)
    assert flips == 0 if augment is None else 0 < flips < 12


def test_image_and_points_stay_together() -> None:
    """Under every augmentation the bright pixels are where the key points are, each in the colour of its own."""
    people = _people()
    image = people.read_image(people.people[0].image)
    crops = PoseCrops(people, (240, 320), augment=Augmentation(scale=0.1, rotation=40, shift=0.05), seed=3)
    order = np.array(COCO_KEYPOINTS.flip_order)
    for epoch in range(6):
        sample = crops[epoch, 0]
        mirrored = np.linalg.det(sample["to_image"][:, :2]) < 0
        source = people.people[0].keypoints[order if mirrored else slice(None)].astype(int)
        for (x, y), (column, row), visibility in zip(source, sample["keypoints"], sample["visibility"], strict=True):
            if visibility:
                found = sample["image"][round(float(row)), round(float(column))].astype(float)
                np.testing.assert_allclose(found, image[y, x], rtol=0.45)  # half a cell off the centre at the most


def test_points_outside_the_crop_are_not_visible() -> None:
    crops = PoseCrops(_people(), SIZE, augment=Augmentation(flip=0, scale=0, rotation=0, shift=0.9))
    hidden = 0
    for epoch in range(20):
        sample = crops[epoch, 0]
        points = sample["keypoints"]
        inside = ((points >= -0.5) & (points < np.array(SIZE) - 0.5)).all(1)
        np.testing.assert_array_equal(sample["visibility"], np.array([2, 1, 0] + [2] * 14) * inside)
        hidden += (~inside).sum()
    assert hidden > 0


def test_without_augmentation_visibility_is_the_annotations() -> None:
    np.testing.assert_array_equal(PoseCrops(_people(), SIZE)[0, 0]["visibility"], [2, 1, 0] + [2] * 14)


def test_augmentation_is_a_function_of_seed_epoch_and_index() -> None:
    augment = Augmentation(shift=0.1)
    again = Augmentation(shift=0.1)
    drawn = {}
    for key in np.ndindex(4, 4, 4):
        drawn[key] = tuple(augment.draw(*key).values())
        assert drawn[key] == tuple(again.draw(*key).values())
    assert len({value[1:] for value in drawn.values()}) == 64
    augment.draw(2**63 - 1, 2**31, 2**31)  # large numbers have streams too


def test_augmentation_is_uniform_in_its_ranges() -> None:
    augment = Augmentation(flip=0.25, scale=0.2, rotation=30, shift=0.1)
    drawn = [augment.draw(0, epoch, index) for epoch in range(40) for index in range(50)]
    assert np.mean([change["flip"] for change in drawn]) == pytest.approx(0.25, abs=0.04)
    for name, middle, half in [("scale", 1, 0.2), ("rotation", 0, 30)]:
        values = (np.array([change[name] for change in drawn]) - middle) / half
        _assert_uniform(values)
    for axis in (0, 1):
        _assert_uniform(np.array([change["shift"][axis] for change in drawn]) / 0.1)


def _assert_uniform(values: np.ndarray) -> None:
    """From -1 to 1: Kolmogorov-Smirnov distance of 2,000 values, below its 0.999 quantile 1.95 / √2000."""
    distance = np.abs(np.sort(values) - np.linspace(-1, 1, len(values))).max() / 2
    assert distance < 1.95 / np.sqrt(len(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip": 1.5}, "`flip` is 1.5: give a probability"),
        ({"scale": 1.0}, "`scale` is 1.0"),
        ({"rotation": -1}, "`rotation` is -1"),
        ({"shift": float("nan")}, "`shift` is nan"),
    ],
)
def test_an_impossible_augmentation_is_an_error(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**change)


def test_real_coco(shared_data: Path) -> None:
    people = CocoPeople.from_files(*find_files(shared_data / "coco", "val"))
    crops = PoseCrops(people, (192, 256))
    for index in range(len(crops)):
        sample = crops[0, index]
        # The box is annotated round the person, so that its padded crop holds all labelled points.
        np.testing.assert_array_equal(sample["visibility"], people.people[index].visibility)
        assert sample["image"].shape == (256, 192, 3)
