"""The part of the training images that is held out: which images, and that nothing of them remains."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from helpers.few_people import few_people

from rpgmt.config import ConfigError
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.hold_out import held_out, split_people
from rpgmt.errors import UserError
from tasks import multitask, pose


def crowd() -> CocoPeople:
    """Eight images, the first with a second person and a crowd."""
    document, _ = few_people([900.0] * 8)
    first = document["annotations"][0]
    document["annotations"] += [{**first, "id": 100}, {**first, "id": 101, "iscrowd": 1}]
    return CocoPeople(document, lambda image: None, sigmas=(0.05, 0.1), flip_pairs=())  # type: ignore[arg-type,return-value]


def test_every_image_is_in_one_part_with_all_that_is_in_it() -> None:
    people = crowd()
    before = copy.deepcopy(people.annotations)
    rest, held = split_people(people, 0.25)
    assert people.annotations == before
    for key in ("images", "annotations"):
        parts = [entry["id"] for part in (rest, held) for entry in part.annotations[key]]
        assert sorted(parts) == sorted(entry["id"] for entry in before[key])
    assert len(held.annotations["images"]) == 2
    for part in (rest, held):
        images = {image["id"] for image in part.annotations["images"]}
        assert {person.image["id"] for person in part.people} == images
        assert {annotation["image_id"] for annotation in part.annotations["annotations"]} == images
        own = {annotation["id"] for annotation in part.annotations["annotations"] if not annotation.get("iscrowd")}
        assert {person.annotation_id for person in part.people} == own


def test_the_order_of_images_plays_no_part() -> None:
    images: list[Any] = [*range(100), "a.jpg"]
    chosen = held_out(images, 0.3, "set")
    assert len(chosen) == 30
    assert held_out(reversed(images), 0.3, "set") == chosen == held_out(images * 3, 0.3, "set")
    assert held_out(images, 0.1, "set") < chosen  # a larger part is a smaller one and more


@pytest.mark.parametrize("part", [0.01, 0.99])
def test_a_part_without_images_is_one_clear_line(part: float) -> None:
    with pytest.raises(
        UserError, match=rf"^`hold_out` is {part}: of the 8 images of annotations that is [08]; give more images$"
    ):
        split_people(crowd(), part)


def test_tasks_validate_on_what_they_do_not_train_on(tmp_path: Path) -> None:
    flags = {"root": tmp_path, "train_images": 10, "val_images": 2, "image_size": 48, "hold_out": 0.2}
    of_pose = pose.read(pose.Config(data=pose.DataConfig(**flags)), training=True)  # type: ignore[arg-type]
    (people,) = of_pose.train
    trained = {person.image["id"] for person in people.people}
    held = {person.image["id"] for person in of_pose.val.people}
    assert len(held) == 2
    assert not trained & held
    of_all = multitask.read(multitask.Config(data=multitask.DataConfig(**flags)), training=True)  # type: ignore[arg-type]
    for labelled, images in ((of_all.train, trained), (of_all.val, held)):
        assert {region.image["id"] for region in labelled.regions.regions} == images
        assert labelled.people is not None
        assert [person.region for person in labelled.people.people] == labelled.regions.regions
    assert "held-out part" in pose.build(of_pose.config, of_pose).metric_label


def test_detections_are_of_another_set() -> None:
    with pytest.raises(ConfigError, match=r"`detections` is found\.json: they are of val_split"):
        pose.DataConfig(detections=Path("found.json"), hold_out=0.1)
