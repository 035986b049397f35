"""Images with a class each, read from the files of CIFAR and from folders."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.image_folders import coloured, write_cifar, write_folders

from rpgmt.data.image_classification import ImageFiles, SmallImages
from rpgmt.data.sets import image_classes
from rpgmt.data.sets.image_classes import read_cifar10, read_cifar10_jpeg, read_cifar100, read_folder
from rpgmt.errors import UserError


def test_hidden_and_other_files_are_no_images(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 4}, suffix=".PNG")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("none")
    (tmp_path / "train" / "cat" / "._0.jpg").write_text("none")
    (tmp_path / "train" / "dog" / "more").mkdir()
    with pytest.warns(UserWarning, match=r"train: 2 files or folders are passed over, e\.g\. cat/notes\.txt"):
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
