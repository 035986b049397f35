"""Images with a class each: what is cut out and mirrored, by seed, epoch and index alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.image_folders import coloured, write_folders
from helpers.random_twin import drawn

from rpgmt.data.image_classification import ImageAugmentation, ImageFiles, SmallImages
from rpgmt.data.images import normalize
from rpgmt.data.resized_crops import centre_box, random_box
from rpgmt.data.sets.image_classes import ImageSet, read_folder


def batch_of(data: Any, epoch: int, indices: list[int]) -> dict[str, Any]:
    return torch.utils.data.default_collate([data[epoch, index] for index in indices])


# ---- small images, changed on the device


def padded_cut_mirrored(image: np.ndarray, down: int, right: int, mirrored: bool, padding: int) -> np.ndarray:
    """As it is said: pad, cut one of the old size out, mirror that."""
    height, width, _ = image.shape
    padded = np.zeros((height + 2 * padding, width + 2 * padding, 3), np.uint8)
    padded[padding : padding + height, padding : padding + width] = image
    cut = padded[down : down + height, right : right + width]
    return cut[:, ::-1] if mirrored else cut


@pytest.mark.parametrize("padding", [0, 4])
def test_small_images_are_padded_cut_and_mirrored(padding: int) -> None:
    pixels, labels = coloured(12, 3, size=(9, 7))
    data = SmallImages(ImageSet(("a", "b", "c"), labels, pixels), augment=ImageAugmentation(padding=padding), seed=5)
    indices, epoch = [3, 11, 0, 7, 7, 1], 4
    seen = set()
    wanted = []
    for index in indices:
        down, right = (drawn(5, epoch, index, stream, 2 * padding + 1) for stream in (0, 1))
        mirrored = drawn(5, epoch, index, 2, 2**30) < 2**29
        seen.add((down, right, mirrored))
        wanted.append(padded_cut_mirrored(pixels[index], down, right, mirrored, padding))
    batch = batch_of(data, epoch, indices)
    assert torch.equal(data.images(batch), normalize(torch.from_numpy(np.stack(wanted))))
    assert batch["label"].tolist() == [index % 3 for index in indices]
    assert len(seen) > (1 if padding == 0 else 4)


def test_epochs_differ_and_repeat_and_validation_stays() -> None:
    pixels, labels = coloured(8, 2)
    data = SmallImages(ImageSet(("a", "b"), labels, pixels), augment=ImageAugmentation(), seed=1)
    first, again, second = (data.images(batch_of(data, epoch, list(range(8)))) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    plain = SmallImages(ImageSet(("a", "b"), labels, pixels))
    batch = batch_of(plain, 3, [5, 2])
    assert set(batch) == {"index", "label", "part"}
    assert torch.equal(plain.images(batch), normalize(torch.from_numpy(pixels[[5, 2]])))
    never = SmallImages(ImageSet(("a", "b"), labels, pixels), augment=ImageAugmentation(flip=0, padding=0))
    assert torch.equal(never.images(batch_of(never, 0, [4])), normalize(torch.from_numpy(pixels[[4]])))
    always = SmallImages(ImageSet(("a", "b"), labels, pixels), augment=ImageAugmentation(flip=1, padding=0))
    assert torch.equal(always.images(batch_of(always, 0, [4])), normalize(torch.from_numpy(pixels[[4], :, ::-1].copy())))


# ---- files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_folders(root, {"train": 6, "val": 2}, size=(120, 80), suffix=".png")
    return root


def test_files_are_cut_at_random_by_seed_epoch_and_index(folder: Path) -> None:
    source = read_folder(folder, "train")
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    data = ImageFiles(source, (24, 16), augment=ImageAugmentation(), seed=3)
    batch = batch_of(data, 2, [0, 4])
    assert batch["image"].shape == (2, 16, 24, 3)
    assert data.images(batch).shape == (2, 3, 16, 24)
    assert np.array_equal(data[2, 4]["image"], data[2, 4]["image"])
    assert not np.array_equal(data[2, 4]["image"], data[3, 4]["image"])
    other = ImageFiles(source, (24, 16), augment=ImageAugmentation(), seed=4)
    assert not np.array_equal(data[2, 4]["image"], other[2, 4]["image"])


def test_validation_takes_the_centre(tmp_path: Path) -> None:
    assert centre_box(256, 256, (224, 224)) == (16, 16, 224, 224)
    assert centre_box(500, 256, (224, 224)) == (138, 16, 224, 224)
    assert centre_box(3, 1, (32, 32)) == (1, 0, 1, 1)
    gradient = np.zeros((256, 512, 3), np.uint8)
    gradient[:, :, 0] = np.arange(512) // 2
    gradient[:, :, 1] = np.arange(256)[:, None]
    for suffix, tolerance in ((".png", 0.0), (".jpg", 3.0)):
        path = tmp_path / f"image{suffix}"
        cv2.imwrite(str(path), gradient[:, :, ::-1])
        for side in (224, 112, 28):  # whole, and decoded at a half and an eighth of the size where it is a JPEG file
            data = ImageFiles(ImageSet(("a", "b"), np.array([0]), [path]), (side, side))
            found = data[0, 0]["image"].astype(float)
            step = 224 / side
            columns = (144 + step * np.arange(side) + (step - 1) / 2) / 2
            rows = 16 + step * np.arange(side) + (step - 1) / 2
            assert np.abs(found[:, :, 0] - columns).max() <= tolerance + 1
            assert np.abs(found[:, :, 1] - rows[:, None]).max() <= tolerance + 1
            assert np.array_equal(data.picture(0), data[7, 0]["image"])


def test_random_parts_have_the_asked_area_and_shape_and_lie_inside() -> None:
    random = np.random.default_rng(0)
    boxes = [random_box(200, 150, 0.08, random) for _ in range(2000)]
    x, y, w, h = np.array(boxes).T
    assert x.min() >= 0
    assert y.min() >= 0
    assert (x + w).max() <= 200
    assert (y + h).max() <= 150
    area, ratio = w * h / (200 * 150), w / h
    assert 0.075 < area.min() < 0.1
    assert area.max() > 0.9
    assert 0.72 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.36
    assert random_box(200, 2, 0.08, random)[2:] == (3, 2)  # nothing fits: the centre, of a legal shape
    assert random_box(1, 1, 0.08, random) == (0, 0, 1, 1)


# ---- CIFAR
