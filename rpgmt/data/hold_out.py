"""A part of the training images that is held out: to choose by, where the validation set is for the final figure alone."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterable
from typing import Any

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.errors import UserError


def split_people(people: CocoPeople, part: float) -> tuple[CocoPeople, CocoPeople]:
    """The people of the images that remain, and those of the images that are held out; see `held_out`.

    Args:
        people: of the training set.
        part: of its images that are held out, between 0 and 1.

    Raises:
        UserError: nobody would be in one of the two.
    """
    chosen = held_out((person.image["id"] for person in people.people), part, people.name)
    return _people_where(people, lambda image: image not in chosen), _people_where(people, lambda image: image in chosen)


def split_labelled(labelled: MultiTaskSet, part: float) -> tuple[MultiTaskSet, MultiTaskSet]:
    """The same of images with labels for several tasks."""
    chosen = held_out((region.image["id"] for region in labelled.regions.regions), part, labelled.name)

    def where(keep: Callable[[Any], bool]) -> MultiTaskSet:
        regions = [region for region in labelled.regions.regions if keep(region.image["id"])]
        people = None if labelled.people is None else _people_where(labelled.people, keep)
        return dataclasses.replace(labelled, regions=dataclasses.replace(labelled.regions, regions=regions), people=people)

    return where(lambda image: image not in chosen), where(lambda image: image in chosen)


def held_out(images: Iterable[Any], part: float, name: str) -> Collection[Any]:
    """The images that are held out: of all, `part`, chosen by a hash of their ids, whatever their order and whoever asks.

    Args:
        images: ids of the images with a sample; each may come several times.
        part: of them.
        name: of the data set, for messages.

    Raises:
        UserError: none would be held out, or none would remain.
    """
    different = sorted(set(images), key=lambda image: hashlib.sha256(str(image).encode()).digest())
    count = round(part * len(different))
    if not 0 < count < len(different):
        raise UserError(f"`hold_out` is {part:g}: of the {len(different)} images of {name} that is {count}; give more images")
    return set(different[:count])


def _people_where(people: CocoPeople, keep: Callable[[Any], bool]) -> CocoPeople:
    """The same set with the images that are kept: evaluation looks for all people of its document."""
    found = copy.copy(people)
    document = people.annotations
    found.annotations = {
        **document,
        "images": [image for image in document["images"] if keep(image["id"])],
        "annotations": [annotation for annotation in document["annotations"] if keep(annotation["image_id"])],
    }
    found.people = [person for person in people.people if keep(person.image["id"])]
    return found
