from __future__ import annotations

import numpy as np
import pytest
from helpers.one_person import one_person

from rpgmt.data.augmentation import Augmentation, Changes
from rpgmt.data.crops import RegionCrops
from rpgmt.data.pose_crops import PoseCrops
from rpgmt.data.regions import Entry, Region, Regions, whole_images

SIZE = (48, 64)


def _read_image(entry: Entry, *_: int) -> np.ndarray:
    return np.random.default_rng(entry["id"]).integers(0, 256, (entry["height"], entry["width"], 3), np.uint8)


def _whole(count: int = 2) -> Regions:
    entries = [{"id": number, "width": 20 + number, "height": 12} for number in range(count)]
    return whole_images(entries, _read_image, "fields")


def test_a_whole_image_is_cut_out_as_it_is() -> None:
    regions = _whole()
    assert (regions.name, regions.boxes, len(regions)) == ("fields", "whole images", 2)
    assert regions.regions[1].box == (0.0, 0.0, 21.0, 12.0)
    crops = RegionCrops(regions, (20, 12), padding=1.0)
    sample = crops[5, 0]
    assert list(sample) == ["image", "to_image", "index"]
    np.testing.assert_array_equal(sample["image"], _read_image(regions.regions[0].image))
    np.testing.assert_array_equal(sample["to_image"], [[1, 0, 0], [0, 1, 0]])
    assert crops.areas()[0] == pytest.approx(20 * 12)


@pytest.mark.parametrize("augment", [None, Augmentation(shift=0.1)])
def test_a_person_is_cut_out_as_its_region_is(augment: Augmentation | None) -> None:
    people = one_person()
    assert people.regions.boxes == "gt boxes"
    pose = PoseCrops(people, SIZE, augment=augment, seed=3, stream=1)
    crops = RegionCrops(people.regions, SIZE, augment=augment, seed=3, stream=1)
    assert len(pose) == len(crops) == 1
    np.testing.assert_array_equal(pose.areas(), crops.areas())
    for epoch in range(4):
        expected = crops[epoch, 0]
        for key, value in expected.items():
            np.testing.assert_array_equal(pose[epoch, 0][key], value)


def test_any_region_of_an_image_can_be_cut_out() -> None:
    regions = _whole()
    crops = RegionCrops(regions, (4, 4), padding=1.25)
    image = _read_image(regions.regions[0].image)
    crop = crops.cut(Region(regions.regions[0].image, (5.0, 3.0, 4.0, 4.0)), Changes(), padding=1.0)
    np.testing.assert_array_equal(crop.image, image[3:7, 5:9])
    np.testing.assert_array_equal(crop.to_image, [[1, 0, 5], [0, 1, 3]])
    mirrored = crops.cut(Region(regions.regions[0].image, (5.0, 3.0, 4.0, 4.0)), Changes(flip=True), padding=1.0)
    np.testing.assert_array_equal(mirrored.image, image[3:7, 5:9][:, ::-1])
