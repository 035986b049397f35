"""Sets of images with classes: what is read, what is cut out and mirrored, by seed, epoch and index alone."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.image_folders import coloured, write_cifar, write_folders

from rpgmt.data.catalog import IMAGE_SETS
from rpgmt.data.image_classification import ImageAugmentation, ImageFiles, SmallImages
from rpgmt.data.images import normalize
from rpgmt.data.random_numbers import uniform_integers
from rpgmt.data.resized_crops import centre_box, random_box
from rpgmt.data.sets import image_classes
from rpgmt.data.sets.image_classes import ImageSet, read_cifar10, read_cifar10_jpeg, read_cifar100, read_folder
from rpgmt.errors import UserError
from tasks.classification import DataConfig

WORD = 0xFFFFFFFF


def batch_of(data: Any, epoch: int, indices: list[int]) -> dict[str, Any]:
    return torch.utils.data.default_collate([data[epoch, index] for index in indices])


# ---- small images, changed on the device


def mixed(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x21F0AAAD & WORD
    x = (x ^ (x >> 15)) * 0x735A2D97 & WORD
    return x ^ (x >> 15)


def drawn(seed: int, epoch: int, index: int, stream: int, count: int) -> int:
    word = 0
    for part in (seed, stream, epoch, index):
        word = mixed((word + part + 1) * 0x9E3779B9 & WORD)
    return word * count >> 32


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


def test_what_is_drawn_is_even_and_its_streams_are_independent() -> None:
    index, epoch = torch.arange(60_000), torch.zeros(60_000, dtype=torch.long)
    first, second, later = (
        uniform_integers(0, epoch, index, 0, 9),
        uniform_integers(0, epoch, index, 1, 9),
        uniform_integers(0, epoch + 1, index, 0, 9),
    )
    for pair in (
        first * 9 + second,
        first * 9 + later,
        first[:-1] * 9 + first[1:],
        first * 9 + uniform_integers(1, epoch, index, 0, 9),
    ):
        counts = torch.bincount(pair, minlength=81).double()
        expected = counts.sum() / 81
        assert ((counts - expected) ** 2 / expected).sum() < 130  # χ² with 80 degrees of freedom: 1 in 3,000 is above


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


def test_hidden_and_other_files_are_no_images(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 4}, suffix=".PNG")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("none")
    (tmp_path / "train" / "cat" / "._0.jpg").write_text("none")
    assert len(read_folder(tmp_path, "train").images) == 4


def test_folders_that_are_no_classes_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train: no such folder: images belong in .*/<split>/<class>/"):
        read_folder(tmp_path, "train")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train: 1 folders of classes: give at least 2"):
        read_folder(tmp_path, "train")
    (tmp_path / "train" / "dog").mkdir()
    with pytest.raises(UserError, match=r"cat: no images: give files that end with \.bmp"):
        read_folder(tmp_path, "train")
    for name in ("cat", "dog"):
        (tmp_path / "train" / name / "0.jpg").write_text("none")
    with pytest.raises(UserError, match=r"0\.jpg: not an image that can be read"):
        _ = ImageFiles(read_folder(tmp_path, "train"), (32, 32))[0, 0]


# ---- CIFAR


@pytest.mark.parametrize(("read", "classes"), [(read_cifar10, 10), (read_cifar100, 100)])
def test_cifar_is_what_torchvision_reads(read: Any, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, monkeypatch, classes, train=6, test=4)
    for split, count, seed in (("train", 6, 0), ("test", 4, 1)):
        found = read(tmp_path, split)
        pixels, labels = coloured(count, classes, seed=seed)
        assert np.array_equal(found.images, pixels)
        assert np.array_equal(found.labels, labels)
        assert found.classes == tuple(f"class{i}" for i in range(classes))
    with pytest.raises(UserError, match=r"`split` of CIFAR is 'val': it has train and test"):
        read(tmp_path, "val")


def test_cifar_that_cannot_be_had_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    def no_network(self: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(CIFAR10, "download", no_network)
    with pytest.raises(UserError, match=r"CIFAR is not there and cannot be had \(no network\): give the folder it is in"):
        read_cifar10(tmp_path, "train")


def test_jpeg_files_are_decoded_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path, {"train": 6, "test": 4}, size=(32, 32))
    decoded: list[Path] = []
    real = image_classes.read_image_file
    monkeypatch.setattr(image_classes, "read_image_file", lambda path, *size: (decoded.append(path), real(path, *size))[1])
    first = read_cifar10_jpeg(tmp_path, "train")
    assert len(decoded) == 6
    assert first.images.shape == (6, 32, 32, 3)  # type: ignore[union-attr]
    assert np.abs(first.images[1].astype(int) - real(tmp_path / "train/cat/2.jpg", 32, 32)).max() == 0  # type: ignore[union-attr]
    again = read_cifar10_jpeg(tmp_path, "train")
    assert len(decoded) == 6
    assert np.array_equal(first.images, again.images)
    (cache,) = tmp_path.glob("decoded_train_*.npy")
    cache.write_bytes(cache.read_bytes()[:200])  # damaged
    assert np.array_equal(read_cifar10_jpeg(tmp_path, "train").images, first.images)
    os.utime(tmp_path / "train/cat/2.jpg", (1, 1))
    read_cifar10_jpeg(tmp_path, "train")
    assert len(decoded) == 18
    read_cifar10_jpeg(tmp_path, "test")
    assert len(list(tmp_path.glob("decoded_*"))) == 2  # one of each split, no parts


def test_jpeg_files_of_another_size_are_refused_and_a_full_disk_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_classes.np, "save", full)
    write_folders(tmp_path, {"train": 4}, size=(32, 32))
    assert len(read_cifar10_jpeg(tmp_path, "train").labels) == 4
    assert not list(tmp_path.glob("decoded_*"))
    write_folders(tmp_path, {"test": 4}, size=(40, 32))
    with pytest.raises(UserError, match=r"the image is 40×32 and its annotations are for 32×32"):
        read_cifar10_jpeg(tmp_path, "test")


def test_the_names_of_the_sets_are_those_of_the_config() -> None:
    from typing import get_args, get_type_hints

    assert set(get_args(get_type_hints(DataConfig)["name"])) == set(IMAGE_SETS)


def test_real_jpeg_files_are_read(shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "cifar10_jpg.tar.xz") as archive:
        taken: dict[tuple[str, str], int] = {}
        for member in archive:
            parts = Path(member.name).parts
            if not member.isfile() or len(parts) != 4:
                continue
            if taken.get(parts[1:3], 0) < 2:  # type: ignore[call-overload]
                taken[parts[1:3]] = taken.get(parts[1:3], 0) + 1  # type: ignore[index, call-overload]
                archive.extract(member, tmp_path, filter="data")
            if len(taken) >= 2 and all(count == 2 for count in taken.values()):
                break
    split = next(iter(taken))[0]
    found = read_cifar10_jpeg(tmp_path / "cifar10_jpg", split)
    assert found.images.shape == (4, 32, 32, 3)  # type: ignore[union-attr]
    assert 20 < found.images.std() < 110  # type: ignore[union-attr]
    assert SmallImages(found).size == (32, 32)
