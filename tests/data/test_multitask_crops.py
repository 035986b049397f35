from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from rpgmt.data.augmentation import Augmentation
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.dense.label_maps import LabelMap, warp_maps
from rpgmt.data.multitask_crops import MultiTaskCrops
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.pose_crops import PoseCrops
from rpgmt.data.regions import Entry, whole_images
from rpgmt.data.transforms import warp
from rpgmt.synthetic.cache import SyntheticScenes, load
from rpgmt.synthetic.labels import synthetic_labels

COUNT, SIZE = 5, 32
NAMES = ("segmentation", "parts", "depth", "normals")
MAPS = {"level": LabelMap(kind="classes", classes=("low", "high")), "depth": LabelMap(kind="depth")}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> SyntheticScenes:
    root = tmp_path_factory.mktemp("scenes")
    return load(root, count=COUNT, size=SIZE, dense=True, processes=1, progress=False)


def _read_image(entry: Entry, *_: int) -> np.ndarray:
    return np.random.default_rng(entry["id"]).integers(0, 256, (12, 20, 3), np.uint8)


def _read_maps(entry: Entry, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Image 0 has both maps, image 1 lacks the depth, image 2 lacks both."""
    image = _read_image(entry)[..., 0]
    both = {"level": image // 128, "depth": image.astype(np.float32)}
    return {name: both[name] for name in ("level", "depth")[: 2 - entry["id"]] if name in names}


def _read_classes(entry: Entry) -> dict[str, int]:
    return {"place": entry["id"]} if entry["id"] < 2 else {}


@pytest.fixture
def images() -> MultiTaskSet:
    entries = [{"id": number, "width": 20, "height": 12} for number in range(3)]
    return MultiTaskSet(
        regions=whole_images(entries, _read_image, "fields"),
        maps=MAPS,
        read_maps=_read_maps,
        classes={"place": ("field", "forest"), "light": ("day", "night")},
        read_classes=_read_classes,
    )


def test_a_whole_image_is_a_sample_as_it_is(images: MultiTaskSet) -> None:
    crops = MultiTaskCrops(images, ("level", "depth", "place"), (20, 12))
    assert len(crops) == 3
    assert images.people is None
    assert images.name == "fields"
    sample = crops[0, 0]
    assert list(sample) == ["image", "to_image", "index", "level", "depth", "place"]
    image = _read_image({"id": 0})
    np.testing.assert_array_equal(sample["image"], image)
    np.testing.assert_array_equal(sample["level"], image[..., 0] // 128)
    np.testing.assert_array_equal(sample["depth"], image[..., 0])


def test_a_set_says_what_its_labels_are(images: MultiTaskSet, scenes: SyntheticScenes) -> None:
    assert images.names == ("level", "depth", "place", "light")
    assert images.kind("level") == MAPS["level"]
    assert images.kind("light") == ("day", "night")
    assert images.kind("keypoints") is None
    people = synthetic_labels(scenes, "scenes")
    assert people.names == ("keypoints", *NAMES)
    assert people.kind("keypoints") == people.people.keypoints.names  # type: ignore[union-attr]
    assert people.kind("parts") == people.maps["parts"]
    assert people.kind("ship") is None


def test_missing_labels_are_marked(images: MultiTaskSet) -> None:
    crops = MultiTaskCrops(images, ("level", "depth", "place", "light"), (20, 12))
    known = [
        ((sample["level"] >= 0).all(), (sample["depth"] > 0).mean() > 0.9, sample["place"], sample["light"])
        for sample in (crops[0, index] for index in range(3))
    ]
    assert known == [(True, True, 0, -1), (True, False, 1, -1), (False, False, -1, -1)]
    assert not crops[0, 1]["depth"].any()
    assert (crops[0, 2]["level"] == -1).all()
    batch = default_collate([crops[0, index] for index in range(3)])
    assert batch["level"].shape == batch["depth"].shape == (3, 12, 20)
    assert batch["place"].tolist() == [0, 1, -1]


def test_only_what_is_asked_for_is_read(images: MultiTaskSet) -> None:
    assert list(MultiTaskCrops(images, ("light",), (20, 12))[0, 0]) == ["image", "to_image", "index", "light"]
    assert list(MultiTaskCrops(images, ("depth", "keypoints"), (20, 12))[0, 0]) == ["image", "to_image", "index", "depth"]


def test_another_shape_shows_the_whole_image(images: MultiTaskSet) -> None:
    """20×12 in 10×10: half as large, with two rows above and below that have no label."""
    sample = MultiTaskCrops(images, ("level", "depth"), (10, 10))[0, 0]
    inside = (sample["level"] >= 0).all(axis=1)
    assert inside.tolist() == [False] * 2 + [True] * 6 + [False] * 2
    assert not sample["image"][~inside].any()
    image = _read_image({"id": 0})[..., 0].astype(np.float32)
    np.testing.assert_array_equal(sample["depth"][inside], 2 * image[1::2, 1::2])  # half as large is twice as far


def test_whole_images_have_no_halves(images: MultiTaskSet) -> None:
    augment = Augmentation(flip=0, scale=0, rotation=0, half_body=1)
    with pytest.warns(UserWarning, match=r"fields: no key points are known as the upper body, so `half_body` 1 has no effect"):
        crops = MultiTaskCrops(images, (), (20, 12), augment=augment)
    np.testing.assert_array_equal(crops[0, 0]["image"], _read_image({"id": 0}))


def test_people_with_all_labels(scenes: SyntheticScenes) -> None:
    labelled = synthetic_labels(scenes, "scenes")
    assert isinstance(labelled.people, CocoPeople)
    augment = Augmentation(flip=0.5, scale=0.3, rotation=40, shift=0.1)
    crops = MultiTaskCrops(labelled, NAMES, (24, 32), augment=augment, seed=3)
    plain = PoseCrops(labelled.people, (24, 32), augment=augment, seed=3)
    assert len(crops) == len(plain) >= COUNT
    for index in range(len(crops)):
        sample, expected = crops[2, index], plain[2, index]
        assert sample.keys() == expected.keys() | set(NAMES)
        for key, value in expected.items():
            np.testing.assert_array_equal(sample[key], value)
        entry = labelled.people.people[index].image
        maps = warp_maps(labelled.read_maps(entry, NAMES), labelled.maps, sample["to_image"], (24, 32))
        for name in NAMES:
            np.testing.assert_array_equal(sample[name], maps[name])
    assert default_collate([crops[0, 0], crops[0, 1]])["normals"].shape == (2, 32, 24, 3)


def test_epochs_differ_and_are_the_same_again(scenes: SyntheticScenes) -> None:
    labelled = synthetic_labels(scenes, "scenes")
    crops = MultiTaskCrops(labelled, NAMES, (24, 32), augment=Augmentation(), seed=1)
    again = MultiTaskCrops(labelled, ("parts",), (24, 32), augment=Augmentation(), seed=1)
    assert not np.array_equal(crops[0, 0]["parts"], crops[1, 0]["parts"])
    np.testing.assert_array_equal(crops[1, 0]["parts"], again[1, 0]["parts"])
    still = MultiTaskCrops(labelled, NAMES, (24, 32))
    np.testing.assert_array_equal(still[0, 0]["parts"], still[5, 0]["parts"])


def test_labels_lie_where_the_picture_does(scenes: SyntheticScenes) -> None:
    """The map of a person, drawn in white on black and cut out as an image is, covers the pixels of the cut-out map."""
    labelled = synthetic_labels(scenes, "scenes")
    crops = MultiTaskCrops(labelled, ("segmentation",), (48, 64), augment=Augmentation(), seed=2)
    for index in range(len(crops)):
        sample = crops[0, index]
        mask = scenes.person_mask(labelled.people.people[index].image["id"]) > 0
        affine = np.linalg.inv(np.vstack([sample["to_image"], [0, 0, 1]]))[:2]
        picture = warp((255 * mask).astype(np.uint8), affine, (48, 64))
        sure = (picture < 60) | (picture > 195)
        inside = sample["segmentation"] >= 0
        assert (sample["segmentation"] == 1)[inside & sure].sum() > 50
        np.testing.assert_array_equal((sample["segmentation"] == 1)[inside & sure], (picture > 127)[inside & sure])


class _FirstEpoch(Dataset):
    def __init__(self, crops: MultiTaskCrops) -> None:
        self.crops = crops

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> dict:
        return self.crops[0, index]


def test_worker_processes_give_the_same(scenes: SyntheticScenes, images: MultiTaskSet) -> None:
    for labelled, names in ((synthetic_labels(scenes, "scenes"), NAMES), (images, ("level", "depth", "place"))):
        crops = MultiTaskCrops(labelled, names, (24, 32), augment=Augmentation(), seed=1)
        copy = pickle.loads(pickle.dumps(crops))
        expected = default_collate([crops[0, index] for index in range(len(crops))])
        copied = default_collate([copy[0, index] for index in range(len(crops))])
        loader = DataLoader(_FirstEpoch(crops), batch_size=len(crops), num_workers=1)
        (loaded,) = loader
        for key, value in expected.items():
            assert torch.equal(copied[key], value), key
            assert torch.equal(loaded[key], value), key


def test_a_set_without_classes_can_be_pickled(images: MultiTaskSet, tmp_path: Path) -> None:
    labelled = MultiTaskSet(regions=images.regions, maps=MAPS, read_maps=_read_maps)
    copy = pickle.loads(pickle.dumps(labelled))
    assert copy.read_classes({"id": 0}) == {}
    assert copy.maps == MAPS
