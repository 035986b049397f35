"""Small files of images with classes that a network can tell apart, for the tests."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest


def coloured(count: int, classes: int, size: tuple[int, int] = (32, 32), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise around a colour of its class: uint8 (n, H, W, 3) and labels 0, 1, …, 0, 1, … (n,); size = (width, height)."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    colours = np.random.default_rng(99).integers(40, 216, (classes, 3))
    pixels = colours[labels][:, None, None] + random.integers(-30, 31, (count, size[1], size[0], 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


def write_folders(
    root: Path,
    counts: dict[str, int],
    classes: Sequence[str] = ("cat", "dog"),
    size: tuple[int, int] = (40, 32),
    suffix: str = ".jpg",
) -> None:
    """Writes <root>/<split>/<class>/<i><suffix>; `counts` is split → number of images."""
    for seed, (split, count) in enumerate(counts.items()):
        pixels, labels = coloured(count, len(classes), size, seed)
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            path = root / split / classes[label] / f"{number}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), image[:, :, ::-1])


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, classes: int = 10, train: int = 20, test: int = 10) -> None:
    """Writes a CIFAR of a few images as torchvision reads it, and tells torchvision their check sums meanwhile."""
    from torchvision.datasets import CIFAR10, CIFAR100

    dataset = CIFAR10 if classes == 10 else CIFAR100
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    key = "labels" if classes == 10 else "fine_labels"
    lists = {}
    for seed, (name, count) in enumerate({"train": train, "test": test}.items()):
        pixels, labels = coloured(count, classes, seed=seed)
        entry = {"data": pixels.transpose(0, 3, 1, 2).reshape(count, -1), key: labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(entry))
        lists[name] = [[name, _md5(folder / name)]]
    names = dataset.meta["key"]
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps({names: [f"class{i}" for i in range(classes)]}))
    monkeypatch.setattr(dataset, "train_list", lists["train"])
    monkeypatch.setattr(dataset, "test_list", lists["test"])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": _md5(folder / dataset.meta["filename"])})


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
