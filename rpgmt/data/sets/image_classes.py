"""Sets of images with a class each: CIFAR, ImageNet, and folders of one's own.

A set of small images is one array in memory; larger ones are files that are decoded when they are asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt.data.file_names import file_inside
from rpgmt.data.images import IMAGE_SUFFIXES, note_passed_over, read_image_file
from rpgmt.errors import UserError

CIFAR_SIZE = 32
"""Width and height of CIFAR's images in pixels."""


@dataclass(frozen=True)
class ImageSet:
    """Images with a class each.

    Attributes:
        classes: names of the classes, from number 0 on.
        labels: int64 (n,), each image's class.
        images: uint8 (n, H, W, 3), RGB; or n paths of image files.
        name: of the set, for messages.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    images: np.ndarray | list[Path]
    name: str = "images"


def read_cifar10(root: Path, split: str) -> ImageSet:
    """CIFAR-10 (Krizhevsky 2009), 50,000 + 10,000 images of 32×32, 10 classes; downloaded where `root` has it not."""
    from torchvision.datasets import CIFAR10

    return _read_cifar(CIFAR10, root, split)


def read_cifar100(root: Path, split: str) -> ImageSet:
    """CIFAR-100 (Krizhevsky 2009), 50,000 + 10,000 images of 32×32, 100 classes; downloaded where `root` has it not."""
    from torchvision.datasets import CIFAR100

    return _read_cifar(CIFAR100, root, split)


def _read_cifar(dataset: Callable[..., Any], root: Path, split: str) -> ImageSet:
    if split not in ("train", "test"):
        raise UserError(f"`split` of CIFAR is {split!r}: it has train and test")
    arguments: Any = {"train": split == "train"}
    try:
        read = dataset(root, **arguments)
    except RuntimeError:  # it is not there
        try:
            read = dataset(root, download=True, **arguments)
        except (OSError, RuntimeError) as error:  # URLError is an OSError
            reason = str(error).partition("\n")[0]
            raise UserError(f"{root}: CIFAR is not there and cannot be had ({reason}): give the folder it is in") from error
    return ImageSet(tuple(read.classes), np.array(read.targets, np.int64), np.asarray(read.data))


def read_cifar10_jpeg(root: Path, split: str) -> ImageSet:
    """Copies of CIFAR-10 as files, {train,test}/<class>/*.jpg: accuracy on them is not accuracy on CIFAR-10.

    What was decoded is kept beside the files, as decoded_<split>_<digest>.npy: 60,000 files take a while. The digest is of
    the files' names, sizes and times, so that other files are decoded anew.

    Raises:
        UserError: as `read_folder`, or an image is not of 32×32 pixels.
    """
    files = read_folder(root, split)
    assert isinstance(files.images, list)
    stats = [(str(path.relative_to(root)), path.stat()) for path in files.images]
    listing = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    cache = root / f"decoded_{split}_{hashlib.sha256(listing.encode()).hexdigest()[:16]}.npy"
    if cache.is_file():
        with contextlib.suppress(Exception):  # what is damaged, in whatever way, is made anew
            decoded = np.load(cache)
            if decoded.dtype == np.uint8 and decoded.shape == (len(files.labels), CIFAR_SIZE, CIFAR_SIZE, 3):
                return dataclasses.replace(files, images=decoded)
    pixels = np.stack([read_image_file(path, CIFAR_SIZE, CIFAR_SIZE) for path in files.images])
    part = cache.with_name(f"{cache.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.save(file, pixels)
        part.replace(cache)
        for old in set(root.glob(f"decoded_{split}_*.npy")) - {cache}:
            old.unlink()
    except OSError:  # a folder that nobody may write to, or a full disk: it works without
        part.unlink(missing_ok=True)
    return dataclasses.replace(files, images=pixels)


def read_folder(root: Path, split: str) -> ImageSet:
    """Image files in a folder for each class: <split>/<class>/*, as ImageNet is usually laid out. Classes are sorted by name.

    Raises:
        UserError: there is no such folder, no class in it, a class without images, or a file that is a link to elsewhere.
    """
    folder = root / split
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: images belong in {root}/<split>/<class>/, e.g. train/cat/1.jpg")
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"{folder}: {len(names)} folders of classes: give at least 2, with the images of a class each")
    files: list[Path] = []
    labels: list[int] = []
    others: list[str] = []
    for number, name in enumerate(names):
        listed = [file for file in sorted(os.listdir(folder / name)) if not file.startswith(".")]
        own = [file for file in listed if file.lower().endswith(IMAGE_SUFFIXES)]
        others += [f"{name}/{file}" for file in set(listed) - set(own)]
        if not own:
            raise UserError(f"{folder / name}: no images: give files that end with {', '.join(IMAGE_SUFFIXES)}")
        files += [file_inside(folder / name, file, str(folder)) for file in own]
        labels += [number] * len(own)
    note_passed_over(folder, others)
    return ImageSet(tuple(names), np.array(labels, np.int64), files, str(folder))
