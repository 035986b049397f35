"""Which data set a folder holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rpgmt.data.coco.data_root import annotation_files
from rpgmt.data.images import IMAGE_SUFFIXES
from rpgmt.errors import UserError

_CROWDPOSE = tuple(f"{start}crowdpose_{{}}.json" for start in ("", "json/", "annotations/", "annotations/mmpose_"))
_MPII = {
    "train": ("annot/train.json", "annotations/mpii_train.json", "mpii_train.json"),
    "val": ("annot/valid.json", "annotations/mpii_val.json", "mpii_val.json"),
}
_OTHERS = {
    "data.yaml": "yolo-pose",
    "annotations.xml": "cvat",
    "tasks.json": "label-studio",
    "labeled-data": "deeplabcut",
}


@dataclass(frozen=True)
class Recognised:
    """What a data set was taken for.

    Args:
        task: that trains on it.
        data: its name for `--data`.
        root: what training is given as `--data-root`.
        splits: that are there.
        title: in words.
    """

    task: str
    data: str
    root: Path
    splits: tuple[str, ...]
    title: str


def recognise(path: Path, task: str | None = None, data: str | None = None) -> Recognised:
    """What a folder or a `dataset.yaml` holds, from the names of its files.

    Args:
        path: of it.
        task, data: what it is to be taken for; None: what fits.

    Raises:
        UserError: nothing that training reads is there.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.suffix == ".json":
        raise UserError(
            f"{path}: give the folder of the data set; if it is not laid out for training, {_conversion(path, 'coco')}"
        )
    found = [one for one in _candidates(path) if (task is None or one.task == task) and (data is None or one.data == data)]
    if found:
        return found[0]
    wanted = "".join(f" --{key} {value}" for key, value in (("task", task), ("data", data)) if value)
    for name, other in _OTHERS.items():
        if (path / name).exists():
            raise UserError(f"{path}: {name} looks like labels of {other}: {_conversion(path, other)}")
    if wanted:
        known = ", ".join(f"--task {one.task} --data {one.data}" for one in _candidates(path)) or "nothing that is read"
        raise UserError(f"{path}: holds nothing for{wanted}; it looks like {known}")
    below = [item for item in sorted(path.iterdir()) if item.is_dir()][:100]
    if inside := next((item for item in below if _candidates(item)), None):
        raise UserError(f"{path}: no data set is recognised, but one in {inside}: give that folder")
    if labels := next((file for folder in (path, path / "annotations") for file in sorted(folder.glob("*.json"))), None):
        raise UserError(f"{path}: no data set is recognised: if {labels} is in COCO's format, {_conversion(labels, 'coco')}")
    raise UserError(
        f"{path}: no data set is recognised: looked for dataset.yaml, {annotation_files('train')[0]}, crowdpose_train.json, "
        f"{_MPII['train'][0]}, joints.mat, train/image/0.npy and train/<class>/*.jpg"
    )


def _conversion(path: Path, origin: str) -> str:
    return f"`data convert {path} --from {origin} --to coco --out NEW` makes a set of it that trains"


def _candidates(path: Path) -> list[Recognised]:
    """All that a path may be, the likeliest first."""
    if path.is_file():
        return [Recognised("multitask", "folders", path, ("train", "val"), "folders that a YAML file describes")]
    both = ("train", "val")

    def splits(names: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        return tuple(split for split in both if any((path / name).is_file() for name in names[split]))

    found = []
    if (path / "dataset.yaml").is_file():
        found.append(Recognised("multitask", "folders", path, both, "folders that dataset.yaml describes"))
    if present := splits({split: [name.format(split) for name in _CROWDPOSE] for split in both}):
        found.append(Recognised("pose", "crowdpose", path, present, "CrowdPose"))
    if present := splits(_MPII):
        found.append(Recognised("pose", "mpii", path, present, "MPII Human Pose"))
    if (path / "joints.mat").is_file():
        found.append(Recognised("pose", "lsp", path, both, "Leeds Sports Pose"))
    if present := splits({split: annotation_files(split) for split in both}):
        found.append(Recognised("pose", "coco", path, present, "key points in COCO's format"))
        found.append(Recognised("pose", "lsp", path, present, "Leeds Sports Pose in COCO's format"))
        found.append(Recognised("multitask", "coco", path, present, "key points and masks in COCO's format"))
    if any((path / split / "image").is_dir() for split in both):
        here = tuple(split for split in both if (path / split / "image").is_dir())
        nyu = Recognised("multitask", "nyuv2", path, here, "NYUv2 as .npy files")
        cities = Recognised("multitask", "cityscapes", path, here, "Cityscapes as .npy files")
        found += [nyu, cities] if (path / here[0] / "normal").is_dir() else [cities, nyu]
    else:
        val = "val" if _has_classes(path / "val") else "test"
        if present := tuple(split for split in ("train", val) if _has_classes(path / split)):
            found.append(Recognised("classification", "folder", path, present, "images in a folder for each class"))
    return found


def _has_classes(folder: Path) -> bool:
    """Whether it has folders with images in them."""
    if not folder.is_dir():
        return False
    inner = (item for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    return any(file.suffix.lower() in IMAGE_SUFFIXES for item in inner for file in item.iterdir())
