from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers.one_person import one_person
from torch.utils.data import default_collate

from rpgmt.codecs.heatmap import Heatmap
from rpgmt.data.augmentation import Augmentation
from rpgmt.data.coco.data_root import find_files
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.person import Person
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.data.images import read_image_file
from rpgmt.data.pose_crops import MixedCrops, PoseCrops, half_body_box
from rpgmt.data.transforms import transform_points

SIZE = (48, 64)


def test_samples_are_batched_by_the_default_collate() -> None:
    crops = PoseCrops(one_person(), SIZE)
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
    people = one_person()
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
    people = one_person()
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


def test_points_outside_the_crop_keep_their_labels_and_the_codec_leaves_them_out() -> None:
    crops = PoseCrops(one_person(), SIZE, augment=Augmentation(flip=0, scale=0, rotation=0, shift=0.9))
    codec = Heatmap(input_size=SIZE, heatmap_size=(SIZE[0] // 4, SIZE[1] // 4))
    outside = 0
    for epoch in range(20):
        sample = crops[epoch, 0]
        points, visibility = sample["keypoints"], sample["visibility"]
        inside = ((points >= -0.5) & (points < np.array(SIZE) - 0.5)).all(1)
        np.testing.assert_array_equal(visibility, [2, 1, 0] + [2] * 14)
        _, weights = codec.encode(torch.from_numpy(points)[None], torch.from_numpy(visibility)[None])
        np.testing.assert_array_equal(weights[0].numpy() > 0, (visibility > 0) & inside)
        outside += (~inside).sum()
    assert outside > 0


def test_areas_are_those_of_the_crops_on_the_image() -> None:
    crops = PoseCrops(one_person(), SIZE)
    (area,) = crops.areas()
    corners = np.array([[-0.5, -0.5], [SIZE[0] - 0.5, SIZE[1] - 0.5]])
    (left, top), (right, bottom) = transform_points(crops[0, 0]["to_image"], corners)
    assert area == pytest.approx((right - left) * (bottom - top))


def test_without_augmentation_visibility_is_the_annotations() -> None:
    np.testing.assert_array_equal(PoseCrops(one_person(), SIZE)[0, 0]["visibility"], [2, 1, 0] + [2] * 14)


def _person(points: np.ndarray, labelled: np.ndarray) -> Person:
    visibility = np.where(labelled, 2, 0)
    return Person(1, {"id": 1, "width": 99, "height": 99}, (0.0, 0.0, 9.0, 9.0), points, visibility, 1.0)


def test_half_a_body_is_a_box_of_its_labelled_points_size_round_their_mean() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 90, (17, 2))
    upper = np.arange(17) < 11
    labelled = np.ones(17, dtype=bool)
    labelled[[0, 15]] = False
    for half, chosen in [("upper", range(1, 11)), ("lower", [11, 12, 13, 14, 16])]:
        x, y, w, h = half_body_box(_person(points, labelled), upper, half)  # type: ignore[misc, arg-type]
        xs, ys = [points[i][0] for i in chosen], [points[i][1] for i in chosen]
        np.testing.assert_allclose([w, h], [max(xs) - min(xs) + 1, max(ys) - min(ys) + 1])
        np.testing.assert_allclose([x + (w - 1) / 2, y + (h - 1) / 2], [np.mean(xs), np.mean(ys)])


@pytest.mark.parametrize(
    ("labelled", "found"),
    [
        (range(9), "upper"),  # more than half of 17, and nothing below to fall back on
        (range(8), None),
        ([], None),
        ([0, 1, 11, 12, 13, 14, 15, 16, 2], "upper"),
        ([0, 1, *range(10, 17)], "upper"),
        ([0, *range(10, 17), 9], "upper"),
    ],
)
def test_a_body_is_halved_where_enough_is_labelled(labelled: list[int], found: str | None) -> None:
    points = np.random.default_rng(0).uniform(0, 90, (17, 2))
    upper = np.arange(17) < 11
    person = _person(points, np.isin(np.arange(17), list(labelled)))
    box = half_body_box(person, upper, "upper")
    assert (box is None) == (found is None)
    if box:
        assert box[0] + (box[2] - 1) / 2 == pytest.approx(np.mean([points[i][0] for i in labelled if upper[i]]))
        if not any(not upper[i] for i in labelled):
            assert half_body_box(person, upper, "lower") == box  # the other half has too few points


def test_half_bodies_fill_the_crop() -> None:
    """Each crop has every point of its half, and the half is two thirds of it along one axis."""
    people = one_person()
    augment = Augmentation(flip=0, scale=0, rotation=0, half_body=1)
    crops = PoseCrops(people, SIZE, augment=augment, seed=2)
    upper = np.array(people.keypoints.upper)
    lower = np.setdiff1d(np.arange(17), upper)
    seen = set()
    for epoch in range(12):
        sample = crops[epoch, 0]
        drawn = augment.draw(2, epoch, 0).half_body
        half = [i for i in (upper if drawn == "upper" else lower) if people.people[0].visibility[i]]
        assert (sample["visibility"][half] > 0).all()
        extent = (np.ptp(sample["keypoints"][half], axis=0) + 1 / np.sqrt(np.linalg.det(sample["to_image"][:, :2]))) / SIZE
        assert extent.max() == pytest.approx(1 / 1.5, abs=0.02)
        seen.add(drawn)
    assert seen == {"upper", "lower"}


def test_half_bodies_without_an_upper_body_are_a_warning() -> None:
    people = one_person()
    people.keypoints = dataclasses.replace(people.keypoints, upper=())
    with pytest.warns(UserWarning, match="`half_body` 0.5 has no effect"):
        crops = PoseCrops(people, SIZE, augment=Augmentation(half_body=0.5))
    assert crops[0, 0]["image"].shape == (64, 48, 3)


def test_a_detection_gives_a_crop_without_labels() -> None:
    people = one_person()
    detection = Person(-1, people.people[0].image, (20.0, 30.0, 0.5, 0.25), np.zeros((17, 2)), np.zeros(17, np.int64), 0.1, 0.7)
    people.people = [detection, people.people[0]]
    crops = PoseCrops(people, SIZE, augment=Augmentation(half_body=1))
    batch = default_collate([crops[0, 0], crops[0, 1]])
    assert not batch["visibility"][0].any()
    assert batch["visibility"].dtype == torch.int64
    assert torch.isfinite(batch["to_image"]).all()


def test_mixed_crops_are_the_parts_one_after_another() -> None:
    people = one_person()
    people.people = people.people * 3
    parts = [
        PoseCrops(one_person(), SIZE),
        PoseCrops(people, SIZE, augment=Augmentation(), seed=4),
        PoseCrops(one_person(), SIZE),
    ]
    mixed = MixedCrops(parts)
    assert len(mixed) == 5
    for index, (part, own) in enumerate([(0, 0), (1, 0), (1, 1), (1, 2), (2, 0)]):
        sample, expected = mixed[3, index], parts[part][3, own]
        assert sample["index"] == index
        np.testing.assert_array_equal(sample["image"], expected["image"])
        np.testing.assert_array_equal(sample["keypoints"], expected["keypoints"])
    with pytest.raises(IndexError, match="`index` is 5"):
        mixed[0, 5]
    with pytest.raises(ValueError, match="is empty"):
        MixedCrops([])
    with pytest.raises(ValueError, match="`parts` are 48×64 with 17, 64×64 with 17 key points"):
        MixedCrops([parts[0], PoseCrops(one_person(), (64, 64))])


def test_a_reduced_image_gives_the_same_crop_with_the_same_points(tmp_path: Path) -> None:
    """A smooth picture of odd size, as JPEG: a crop differs by a part of what one pixel of misplacement would make."""
    asked = set()
    for box in [(20, 30, 300, 380), (3, 5, 90, 200), (5, 1, 425, 470), (-30, 40, 200, 460)]:
        people, full = _smooth_people(tmp_path, box)
        read = people.read_image

        def counted(entry: dict, *need: int, read: Callable[..., np.ndarray] = read) -> np.ndarray:
            asked.add(need[0])
            return read(entry, *need)

        people.read_image = counted
        for size in [(192, 256), (60, 80), (24, 32)]:
            augment = Augmentation(scale=0.2, rotation=40)
            for epoch in range(3):
                sample = PoseCrops(people, size, augment=augment)[epoch, 0]
                whole = PoseCrops(full, size, augment=augment)[epoch, 0]
                for name in ("keypoints", "visibility", "to_image"):
                    np.testing.assert_array_equal(sample[name], whole[name])
                expected = whole["image"].astype(float)
                misplaced = np.abs(np.diff(expected, axis=0)).mean()
                assert np.abs(sample["image"] - expected).mean() < 0.2 * misplaced
    assert asked == {1, 2, 4, 8}


def _smooth_people(folder: Path, box: tuple[int, int, int, int]) -> tuple[CocoPeople, CocoPeople]:
    """A person in a JPEG file that is decoded as far as asked, and in the same image decoded whole."""
    rng = np.random.default_rng(0)
    path = folder / "image.jpg"
    noise = rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, (431, 479), interpolation=cv2.INTER_CUBIC), [cv2.IMWRITE_JPEG_QUALITY, 95])
    document = one_person().annotations
    document["images"] = [{"id": 5, "width": 431, "height": 479, "file_name": path.name}]
    document["annotations"][0]["bbox"] = box
    image = read_image_file(path, 431, 479)

    def read(entry: dict, *need: int) -> np.ndarray:
        return read_image_file(path, entry["width"], entry["height"], *need)

    return CocoPeople(document, read), CocoPeople(document, lambda *_: image)


def test_the_next_person_on_an_image_finds_it_read(tmp_path: Path) -> None:
    """Whatever was read before, a crop is the same bit for bit; an image is read twice at most at each reduction."""
    people, _ = _smooth_people(tmp_path, (20, 30, 300, 380))
    first = people.people[0]
    other = {**first.image, "id": 6}
    boxes = [(20, 30, 60, 80), (20, 90, 60, 80), (20, 60, 60, 80), (300, 380, 60, 80), (3, 5, 420, 460), (100, 200, 60, 80)]
    people.people = [dataclasses.replace(first, box=box) for box in boxes]
    people.people.append(dataclasses.replace(first, image=other))
    read, calls = people.read_image, []

    def counted(entry: dict, reduction: int, rows: int) -> np.ndarray:
        calls.append((entry["id"], reduction, rows))
        return read(entry, reduction, rows)

    people.read_image = counted
    expected = [PoseCrops(people, (60, 80))[0, index]["image"] for index in range(len(people.people))]
    assert len(calls) == len(expected)  # each from a data set of its own
    calls.clear()
    crops = PoseCrops(people, (60, 80))
    for index, image in enumerate(expected):
        np.testing.assert_array_equal(crops[0, index]["image"], image)
    assert [number for number, _, _ in calls] == [5, 5, 5, 6]
    assert [reduction for _, reduction, _ in calls[:3]] == [1, 1, 8]
    assert calls[0][2] < calls[1][2] == 479
    crops[0, 0]
    assert calls[-1][0] == 5


def test_crops_of_partly_read_images_are_those_of_whole_ones(tmp_path: Path) -> None:
    people, _ = _smooth_people(tmp_path, (150, 120, 90, 140))
    read, spared = people.read_image, []

    def counted(entry: dict, reduction: int, rows: int) -> np.ndarray:
        image = read(entry, reduction, rows)
        spared.append(len(image) < len(read(entry, reduction)))
        return image

    whole = CocoPeople(people.annotations, lambda entry, reduction, _: read(entry, reduction))
    people.read_image = counted
    augment = Augmentation(scale=0.2, rotation=40)
    for epoch in range(20):
        sample, expected = (PoseCrops(source, (48, 64), augment=augment)[epoch, 0] for source in (people, whole))
        np.testing.assert_array_equal(sample["image"], expected["image"])
    assert sum(spared) > 10


def test_real_coco(shared_data: Path) -> None:
    people = CocoPeople.from_files(*find_files(shared_data / "coco", "val"))
    crops = PoseCrops(people, (192, 256))
    for index in range(len(crops)):
        sample = crops[0, index]
        # The box is annotated round the person, so that its padded crop holds all labelled points.
        np.testing.assert_array_equal(sample["visibility"], people.people[index].visibility)
        assert sample["image"].shape == (256, 192, 3)


def test_parts_of_a_mixture_have_streams_of_their_own() -> None:
    augment = Augmentation()
    one, two = (PoseCrops(one_person(), SIZE, augment=augment, seed=3, stream=stream) for stream in (0, 1))
    assert not np.array_equal(one[0, 0]["to_image"], two[0, 0]["to_image"])


def test_a_zoom_shows_a_part_of_the_box_of_its_size_anywhere_in_it() -> None:
    plain = {"flip": 0, "scale": 0, "rotation": 0}
    crops = PoseCrops(one_person(), SIZE, augment=Augmentation(**plain, zooms=(1, 2, 4)), padding=1.25)
    whole = PoseCrops(one_person(), SIZE, padding=1.25)[0, 0]["to_image"]
    low, high = (whole[:, :2] @ np.array(corner) + whole[:, 2] for corner in ((-0.5, -0.5), (SIZE[0] - 0.5, SIZE[1] - 0.5)))
    zooms, places = [], []
    for epoch in range(200):
        found = crops[epoch, 0]["to_image"]
        zoom = whole[0, 0] / found[0, 0]
        first, last = (found[:, :2] @ np.array(c) + found[:, 2] for c in ((-0.5, -0.5), (SIZE[0] - 0.5, SIZE[1] - 0.5)))
        assert (first >= low - 1e-9).all()
        assert (last <= high + 1e-9).all()
        zooms.append(round(zoom, 9))
        places += [tuple((first - low) / (high - low) / (1 - 1 / zoom))] if zoom > 1.5 else []
    assert set(zooms) == {1.0, 2.0, 4.0}
    assert min(map(zooms.count, (1.0, 2.0, 4.0))) > 40
    assert np.ptp(places, axis=0).min() > 0.9  # from one edge of the box to the other
    with pytest.raises(ValueError, match="`zooms` is"):
        Augmentation(zooms=(0.5,))
