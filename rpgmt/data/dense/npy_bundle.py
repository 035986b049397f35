"""Bundles of small `.npy` files, as the multi-task literature has NYUv2 and Cityscapes (Liu et al., MTAN, CVPR 2019)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.dense.label_map_files import as_classes, as_depth, as_normals, open_array
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.file_names import check_link
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.regions import Entry, whole_images
from rpgmt.errors import UserError

_ADVICE = "give the bundle's own files"


def read_bundle(root: Path, split: str, name: str, candidates: Mapping[str, tuple[tuple[str, ...], LabelMap]]) -> MultiTaskSet:
    """A split of a bundle.

    Args:
        root: folder with `train` and `val`.
        split: one of these.
        name: of the data set, for messages.
        candidates: for each label the folders that it may lie in, the first that is there counts, and what it is.

    Raises:
        UserError: a folder or an image is missing, or a file is malformed.
    """
    if split not in ("train", "val"):
        raise UserError(f"`split` is {split!r}: {name} has train, val")
    folder = root / split
    if not (folder / "image").is_dir():
        raise UserError(f"{folder / 'image'}: no such folder: give the one that holds {name}'s train/image and val/image")
    numbers = _numbers(folder / "image")
    if not numbers:
        raise UserError(f"{folder / 'image'}: holds no image: {name}'s are 0.npy, 1.npy, …")
    found = {}
    for key, (folders, kind) in candidates.items():
        present = next((folder / candidate for candidate in folders if (folder / candidate).is_dir()), None)
        if present is None:
            continue
        if missing := sorted(set(_numbers(present)) - set(numbers)):
            raise UserError(
                f"{folder / 'image' / f'{missing[0]}.npy'}: no such image, and {present / f'{missing[0]}.npy'} is there "
                f"({len(missing)} are missing): {_ADVICE}"
            )
        found[key] = _Folder(present, kind)
    bundle = _Bundle(folder / "image", found)
    images = [bundle.entry(number) for number in numbers]
    return MultiTaskSet(
        regions=whole_images(images, bundle.read_image, f"{name} ({root}, {split})"),
        maps={key: place.kind for key, place in found.items()},
        read_maps=bundle.read_maps,
    )


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.iterdir() if re.fullmatch(r"\d+\.npy", path.name))


@dataclass(frozen=True)
class _Folder:
    path: Path
    kind: LabelMap


@dataclass(frozen=True)
class _Bundle:
    images: Path
    maps: dict[str, _Folder]

    def entry(self, number: int) -> Entry:
        path = self.images / f"{number}.npy"
        check_link(path)
        height, width, _ = _channels_last(open_array(path), path).shape
        return {"id": number, "file_name": path.name, "width": width, "height": height}

    def read_image(self, entry: Entry, *_: int) -> NDArray[np.uint8]:
        """The whole image: less of it would spare no decoding."""
        path = self.images / entry["file_name"]
        values = _channels_last(open_array(path), path)
        if values.dtype == np.uint8:
            return np.array(values)
        if not (values.min() >= -1e-3 and values.max() <= 1.001):  # NaN neither
            raise UserError(f"{path}: an image from {values.min():g} to {values.max():g}: give floats 0 to 1, or uint8")
        return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)

    def read_maps(self, entry: Entry, names: Collection[str]) -> dict[str, NDArray]:
        size = entry["height"], entry["width"]
        result: dict[str, NDArray] = {}
        for name in names:
            kind, path = self.maps[name].kind, self.maps[name].path / entry["file_name"]
            if not path.is_file():
                continue
            check_link(path)
            values = open_array(path)
            if kind.categorical:
                result[name] = as_classes(values, size, len(kind.classes), path, advice=_ADVICE)
            else:
                result[name] = (as_depth if kind.kind == "depth" else as_normals)(values, size, path)
        return result


def _channels_last(values: NDArray, path: Path) -> NDArray:
    """An image (H, W, 3) or (3, H, W) as (H, W, 3)."""
    last, first = values.shape[-1:] == (3,), values.shape[:1] == (3,)
    if values.ndim != 3 or first == last:
        shape = "×".join(map(str, values.shape)) or "a single number"
        raise UserError(f"{path}: the image is {shape}: give height × width × 3, or 3 × height × width")
    return values if last else np.moveaxis(values, 0, -1)
