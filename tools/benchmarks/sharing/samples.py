"""What the validation set's chance is: figures of each sample, and the metric on images drawn again and again."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rpgmt.data.random_numbers import generator

if TYPE_CHECKING:
    from rpgmt.data.coco.people import CocoPeople
    from rpgmt.heads.keypoints import Keypoints
    from rpgmt.heads.staged_task import StagedTask

PCK = ("pck", "pckh")
"""Protocols in which a person counts by itself, and so may be drawn several times as it is."""


def image_numbers(images: Iterable[Any]) -> NDArray[np.int64]:
    """The number of each sample's image, in the order in which images come: samples of one image are not independent."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(image, len(numbers)) for image in images], np.int64)


def drawn_images(count: int, draws: int) -> NDArray[np.int64]:
    """(draws, count): in each draw so many of the images with repetition, the same ones for all networks."""
    return generator(count, draws).integers(0, count, (draws, count))


def figures(task: StagedTask, predictions: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Figures of each sample by name.

    Args:
        task: whose heads measured.
        predictions: a record a sample, in the order of `task.val_data`.

    Returns:
        `image`: number of its image; `HEAD.quality` (samples, stages), as the head's `quality`; of a PCK also
        `HEAD.hits` and `HEAD.counted` (samples,): key points of the last stage that are found, and that count.
    """
    images = [region.image["id"] for region in task.val_data.regions.regions]
    found: dict[str, NDArray[Any]] = {"image": image_numbers(images)}
    for name, head in task.heads.items():
        found[f"{name}.quality"] = np.concatenate([record["quality"][name].samples for record in predictions])
        if head.main.startswith("PCK"):
            metrics = [head.metrics([record["measured"][-1][name]]) for record in predictions]
            parts = [[value for key, value in of.items() if key.startswith(f"{head.main}:")] for of in metrics]
            found[f"{name}.hits"] = np.array([sum(value or 0 for value in of) for of in parts])
            found[f"{name}.counted"] = np.array([sum(value is not None for value in of) for of in parts])
    return found


def resampled(task: StagedTask, predictions: Sequence[Mapping[str, Any]], draws: int) -> NDArray[np.float64]:
    """(draws,) the main metric of the last stage over images drawn with repetition, all samples of an image together.

    Every sample that is drawn counts as often as it is drawn: the metric is computed anew for each draw, AP too.

    Args:
        task, predictions: as of `figures`.
        draws: how many.
    """
    images = image_numbers(region.image["id"] for region in task.val_data.regions.regions)
    samples_of = [np.flatnonzero(images == number) for number in range(int(images.max()) + 1)]
    values = []
    for drawn in drawn_images(len(samples_of), draws):
        scores = [_score(task, name, predictions, [samples_of[image] for image in drawn]) for name in task.heads]
        known = [score for score in scores if score is not None]
        values.append(sum(known) / len(known) if known else np.nan)
    return np.array(values)


def _score(
    task: StagedTask, name: str, predictions: Sequence[Mapping[str, Any]], drawn: Sequence[NDArray[np.int64]]
) -> float | None:
    """A head's score over the samples of the images that were drawn."""
    from rpgmt.heads.keypoints import Keypoints

    head = task.heads[name]
    if isinstance(head, Keypoints) and head.evaluation.protocol not in PCK:
        return _precision(head, [[predictions[sample]["measured"][-1][name] for sample in of] for of in drawn])
    return head.metrics([predictions[sample]["measured"][-1][name] for of in drawn for sample in of])[head.score]


def _precision(head: Keypoints, drawn: Sequence[Sequence[Any]]) -> float | None:
    """AP where an image that is drawn twice is two images: its people are found, and looked for, twice."""
    evaluation = head.evaluation
    places, people = _people_of(evaluation.people, drawn)
    poses = np.concatenate([measured[1] for of in drawn for measured in of])
    again = copy.copy(evaluation)
    again.__dict__.pop("_evaluator", None)  # of the people as they were
    again.people, again.areas = people, evaluation.areas[places]
    if again.protocol == "coco_pck":
        again.protocol = "coco"  # whose first figure it is
    return again.metrics(range(len(places)), poses)[head.score]


def _people_of(people: CocoPeople, drawn: Sequence[Sequence[Any]]) -> tuple[list[int], CocoPeople]:
    """The places of the people that were drawn, and a set of them alone, each draw of an image under an id of its own."""
    document = people.annotations
    annotations: dict[Any, list[Any]] = {}
    for annotation in document["annotations"]:
        annotations.setdefault(annotation["image_id"], []).append(annotation)
    places: list[int] = []
    found = copy.copy(people)
    found.people, images, again = [], [], []
    for number, of in enumerate(drawn):
        own = [index for indices, _ in of for index in indices]
        image = {**people.people[own[0]].image, "id": number}
        images.append(image)
        again += [{**one, "image_id": number} for one in annotations.get(people.people[own[0]].image["id"], ())]
        found.people += [dataclasses.replace(people.people[index], image=image) for index in own]
        places += own
    again = [{**annotation, "id": number} for number, annotation in enumerate(again, start=1)]
    found.annotations = {**document, "images": images, "annotations": again}
    return places, found
