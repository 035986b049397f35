"""Which classes a mirror image exchanges, in maps, images of folders and classification."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from helpers.image_folders import coloured, write_folders
from helpers.one_person import one_person

from rpgmt.config.validation import from_dict
from rpgmt.data.augmentation import Augmentation
from rpgmt.data.check.examination import examine
from rpgmt.data.check.sheet import write_sheet
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.dense.dataset_yaml import ClassFile, MapFiles
from rpgmt.data.dense.folders import read_folders
from rpgmt.data.image_classification import ImageAugmentation, ImageFiles, SmallImages
from rpgmt.data.mirror_classes import mirror_of
from rpgmt.data.multitask_crops import MultiTaskCrops
from rpgmt.data.pose_crops import PoseCrops
from rpgmt.data.sets.image_classes import ImageSet, read_folder
from rpgmt.errors import UserError
from tasks import classification, multitask

EXCHANGED = r"mirror images exchange left/right, by their names; .*`?swaps`? .*says otherwise"

NAMES: list[tuple[str, list[tuple[int, int]], list[str]]] = [
    ("left right", [(0, 1)], []),
    ("right ahead left", [(2, 0)], []),
    ("look_left look_right look_up", [(0, 1)], []),
    ("HandL HandR", [(0, 1)], []),
    ("l r", [(0, 1)], []),
    ("i l o r", [], []),  # letters
    ("s m l xl", [], []),  # sizes
    ("lefthand righthand", [(0, 1)], []),
    ("bright dark upright copyright", [], []),
    ("right wrong", [], ["right"]),
    ("left_hand right_hand left_foot", [(0, 1)], ["left_foot"]),
    ("left_to_right right_to_left", [], ["left_to_right", "right_to_left"]),
    ("Left left right", [], ["Left", "left", "right"]),
    ("cat dog", [], []),
]


@pytest.mark.parametrize(("names", "pairs", "unknown"), NAMES)
def test_names_tell(names: str, pairs: list[tuple[int, int]], unknown: list[str]) -> None:
    mirror = mirror_of(names.split())
    assert sorted(mirror.swaps) == pairs
    assert list(mirror.unknown) == unknown
    assert all(mirror.partners[mirror.partners[number]] == number for number in mirror.partners)


def test_what_is_given_counts_and_is_checked() -> None:
    assert mirror_of(["left", "right", "both"], []).partners == {}
    assert mirror_of(["a", "left", "b"], [("a", "b")]).partners == {0: 2, 2: 0}
    for swaps, message in (([("a", "c")], "`swaps` names 'c', which is not in"), ([("a", "b"), ("b", "left")], "'b' twice")):
        with pytest.raises(UserError, match=message):
            mirror_of(["a", "left", "b"], swaps)
    file = {"file": "{split}.csv", "classes": ["a", "b"]}
    assert from_dict(ClassFile, {**file, "swaps": [["b", "a"]]}).mirror.swaps == ((1, 0),)
    assert from_dict(MapFiles, {"folder": "m", "kind": "classes", "classes": ["l", "r"]}).label_map.swaps == ((0, 1),)
    assert from_dict(MapFiles, {"folder": "m", "kind": "parts", "classes": ["l", "r"], "swaps": []}).label_map.swaps == ()


def _gazes(root: Path, *, swaps: Any = None, classes: tuple[str, ...] = ("left", "right")) -> Path:
    """Images with a bright half, called by it; and a mask of that half."""
    for split in ("train", "val"):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        rows = ["image,class"]
        for number in range(4):
            image, mask = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 1, np.uint8)
            side = number % 2
            image[:, 16 * side : 16 + 16 * side] = 200
            mask[:, :16] = 0
            cv2.imwrite(str(root / f"images/{split}/{number}.png"), image)
            cv2.imwrite(str(root / f"masks/{split}/{number}.png"), mask)
            rows.append(f"{number}.png,{classes[side]}")
        (root / f"gaze_{split}.csv").write_text("\n".join(rows))
    more = {} if swaps is None else {"swaps": swaps}
    gaze = {"file": "gaze_{split}.csv", "classes": [*classes], **more}
    half = {"folder": "masks/{split}", "kind": "classes", "classes": [*classes], **more}
    text = {"images": "images/{split}", "maps": {"half": half}, "classes": {"gaze": gaze}}
    (root / "dataset.yaml").write_text(yaml.safe_dump(text))
    return root / "dataset.yaml"


def _is_right(image: np.ndarray) -> bool:
    return bool(image[:, 20:].mean() > image[:, :12].mean())


def test_images_and_masks_of_folders_are_called_by_what_is_seen(tmp_path: Path) -> None:
    labelled = read_folders(_gazes(tmp_path), "train")
    augment, names = Augmentation(flip=0.5, scale=0, rotation=0), ("half", "gaze")
    with pytest.warns(UserWarning, match=EXCHANGED) as notes:
        crops = MultiTaskCrops(labelled, names, (32, 32), augment=augment)
    assert len(notes) == 2
    assert str(notes[1].message).endswith("left/right, by their names; `swaps` in dataset.yaml says otherwise")
    mirrored = 0
    for epoch in range(8):
        for index in range(4):
            sample = crops[epoch, index]
            assert sample["gaze"] == _is_right(sample["image"])
            assert (sample["half"][:, :16] == 0).all()
            assert (sample["half"][:, 16:] == 1).all()
            mirrored += sample["gaze"] != index % 2
    assert 8 < mirrored < 24
    given = read_folders(_gazes(tmp_path, swaps=[["left", "right"]]), "train")
    kept = read_folders(_gazes(tmp_path, swaps=[]), "train")
    always = Augmentation(flip=1, scale=0, rotation=0)
    for one, gaze, halves in ((given, 1, [0, 1]), (kept, 0, [1, 0])):  # and no note
        sample = MultiTaskCrops(one, names, (32, 32), augment=always)[0, 0]
        assert sample["gaze"] == gaze
        assert sample["half"][0, [0, 31]].tolist() == halves
    MultiTaskCrops(labelled, names, (32, 32), augment=Augmentation(flip=0))
    MultiTaskCrops(labelled, (), (32, 32), augment=always)  # labels that nobody trains do not matter


def test_a_class_whose_mirror_image_nobody_knows_is_refused_early(tmp_path: Path) -> None:
    labelled = read_folders(_gazes(tmp_path, classes=("right", "wrong")), "train")
    text = "half: class 'right' has a side, and by its name no class is its mirror image: give `swaps` in dataset.yaml, pairs"
    with pytest.raises(UserError, match=text) as error:
        MultiTaskCrops(labelled, ("half",), (32, 32), augment=Augmentation())
    assert str(error.value).endswith(r"or [] where all keep their label, or --flip 0")
    data = multitask.DataConfig(name="folders", root=tmp_path)
    with pytest.raises(UserError, match=text):
        multitask.read(_multitask(data, flip=0.5), training=True)
    multitask.read(_multitask(data, flip=0.5))
    multitask.read(_multitask(data, flip=0.0), training=True)


def _multitask(data: multitask.DataConfig, flip: float) -> multitask.Config:
    model = multitask.ModelConfig(stages=1, channels=8, depth=1, input_size=(32, 32), heads=None)
    return multitask.Config(model=model, data=data, augmentation=multitask.AugmentationConfig(flip=flip))


def test_classified_images_are_called_by_what_is_seen(tmp_path: Path) -> None:
    for side, name in enumerate(("left", "right")):
        image = np.zeros((32, 32, 3), np.uint8)
        image[:, 16 * side : 16 + 16 * side] = 200
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(2):
            cv2.imwrite(str(tmp_path / "train" / name / f"{number}.png"), image)
    source = read_folder(tmp_path, "train")
    pixels = np.stack([cv2.imread(str(path)) for path in source.images])
    augment = ImageAugmentation(smallest=0.9, padding=0)
    with pytest.warns(UserWarning, match="mirror images exchange left/right, by their names; --swaps says otherwise"):
        files = ImageFiles(source, (32, 32), augment=augment)
    with pytest.warns(UserWarning, match="mirror images exchange"):
        small = SmallImages(ImageSet(source.classes, source.labels, pixels), augment=augment)
    for data in (files, small):
        mirrored = 0
        for epoch in range(10):
            for index in range(4):
                sample = data[epoch, index]
                batch = {key: np.array([value]) for key, value in sample.items()}
                seen = data.images({key: _tensor(value) for key, value in batch.items()})[0].permute(1, 2, 0).numpy()
                assert sample["label"] == _is_right(seen)
                mirrored += sample["label"] != source.labels[index]
        assert 10 < mirrored < 30
    assert classification.read(_classification(tmp_path), training=True).train.classes == ("left", "right")
    kept = ImageFiles(source, (32, 32), augment=ImageAugmentation(flip=1, swaps=()))
    assert [kept[0, index]["label"] for index in range(4)] == [0, 0, 1, 1]


def _tensor(value: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(value) if value.dtype.kind in "biuf" else value.tolist()


def _classification(root: Path, **changes: Any) -> classification.Config:
    data = classification.DataConfig(name="folder", root=root, val_split="train")
    model = classification.ClassifierConfig(classes=2)
    return classification.Config(model=model, data=data, augmentation=classification.AugmentationConfig(**changes))


def test_folders_of_sides_without_partners_are_refused_unless_told(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 4}, classes=("left", "other"))
    with pytest.raises(UserError, match=r"train: class 'left' has a side, .*: give --swaps, pairs of classes or"):
        classification.read(_classification(tmp_path), training=True)
    for changes in ({"flip": 0.0}, {"swaps": ()}, {"swaps": (("left", "other"),)}):
        classification.read(_classification(tmp_path, **changes), training=True)
    with pytest.raises(UserError, match="`swaps` names 'cat'"):
        classification.read(_classification(tmp_path, swaps=(("cat", "left"),)), training=True)
    plain = coloured(4, 2)
    assert SmallImages(ImageSet(("a", "b"), plain[1], plain[0]), augment=ImageAugmentation()).partners == {}


def test_the_check_shows_what_mirror_images_do(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for classes, swaps, refused, noted in (
            (("left", "right"), None, [], ["half: mirror images exchange left/right, by their names"]),
            (("left", "right"), [["left", "right"]], [], ["gaze: mirror images exchange left/right"]),
            (("left", "right"), [], [], ["classes with a side that no mirror image exchanges: see `swaps`"]),
            (("right", "wrong"), None, ["classes with a side and no mirror image: give `swaps` or --swaps, or --flip 0"], []),
        ):
            _gazes(tmp_path / "set", classes=classes, swaps=swaps)
            report = examine(tmp_path / "set", progress=False)
            assert [finding.title for finding in report.findings.refused] == refused
            assert {*noted} <= {finding.title for finding in report.findings.notes}
            write_sheet(tmp_path / "sheet.png", report, (48, 48))
        write_folders(tmp_path / "classes", {"train": 4, "val": 4}, classes=("left", "right"))
        report = examine(tmp_path / "classes", progress=False)
        assert "mirror images exchange left/right, by their names" in {finding.title for finding in report.findings.notes}
        write_sheet(tmp_path / "sheet.png", report, (48, 48))


def test_key_points_with_a_side_and_no_pair_are_noted() -> None:
    people = one_person()
    document = json.loads(json.dumps(people.annotations))
    category = document["categories"][0]
    category |= {"keypoints": ["nose", "left_eye", *(f"p{i}" for i in range(15))], "sigmas": [0.1] * 17, "flip_pairs": []}
    odd = CocoPeople(document, people.read_image, name="odd")
    with pytest.warns(UserWarning, match="odd: mirror images keep the key points left_eye, which have a side and no flip pair"):
        PoseCrops(odd, (32, 32), augment=Augmentation())
    PoseCrops(odd, (32, 32), augment=Augmentation(flip=0))
    PoseCrops(people, (32, 32), augment=Augmentation())
