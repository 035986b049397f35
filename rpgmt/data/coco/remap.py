"""Key points of one set under the names of another, so that one network trains on several data sets."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from rpgmt.data.coco.entries import person_category
from rpgmt.data.coco.keypoint_names import side_and_part
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import CROWDPOSE_KEYPOINTS, KeypointSet
from rpgmt.errors import UserError

# Parts that data sets mark at the same place under different names. The thorax is not here: MPII's lies well below its
# neck, LSP's and CrowdPose's neck is MPII's upper neck.
_SAME = {"topofhead": "headtop", "tophead": "headtop", "headtop": "headtop", "upperneck": "neck"}


def remap(people: CocoPeople, keypoints: KeypointSet) -> CocoPeople:
    """The same people with the key points of another set, matched by name.

    Case, spaces, `_` and `-` do not count, sides may be written `left_`, `L` or `_l`, and a few names mean the same
    point (`top_of_head`, `top_head` and `head_top`; `upper_neck` and `neck`). Points that the source lacks are not
    labelled, points that the target lacks are dropped, and so are people of whom nothing is left. A warning says what
    matches.

    The result is for training: a detector's boxes and the evaluation of the data set's own points stay with `people`.

    Args:
        people: with key points of their own; left as they are.
        keypoints: the target.

    Raises:
        UserError: no name matches, or nobody has one of the matching points labelled.
    """
    if people.keypoints == keypoints:
        return people
    source = {meaning: index for index, meaning in enumerate(_meanings(people.keypoints))}
    order = [source.get(meaning, -1) for meaning in _meanings(keypoints)]
    matched = sum(index >= 0 for index in order)
    if not matched:
        raise UserError(
            f"{people.name}: no key point of {', '.join(people.keypoints.names)} has the name of one of "
            f"{', '.join(keypoints.names)}: rename those in the category that mean the same"
        )
    pairs = [(people.keypoints.names[s], keypoints.names[t]) for t, s in enumerate(order) if s >= 0]
    listed = ", ".join(old if old == new else f"{old} as {new}" for old, new in pairs)
    lacking = [name for name, s in zip(keypoints.names, order, strict=True) if s < 0]
    warnings.warn(
        f"{people.name}: {matched} of {len(keypoints)} key points match: {listed}"
        + (f"; never labelled: {', '.join(lacking)}" if lacking else ""),
        stacklevel=2,
    )
    result = copy.copy(people)
    result.keypoints = keypoints
    taken, there = np.array(order), np.array(order) >= 0
    result.people = []
    for person in people.people:
        visibility = np.where(there, person.visibility[taken], 0)
        if visibility.any():
            points = np.where(there[:, None], person.keypoints[taken], 0.0)
            result.people.append(replace(person, keypoints=points, visibility=visibility))
    if not result.people:
        raise UserError(f"{people.name}: nobody has one of the matching key points labelled: {listed}")
    result.annotations = _document(people, keypoints, order)
    return result


def _meanings(keypoints: KeypointSet) -> list[tuple[str, str]]:
    meanings = [side_and_part(name) for name in keypoints.names]
    if keypoints.names == CROWDPOSE_KEYPOINTS.names:  # elsewhere a head may be its middle
        meanings = [(side, "headtop" if part == "head" else part) for side, part in meanings]
    return [(side, _SAME.get(part, part)) for side, part in meanings]


def _document(people: CocoPeople, keypoints: KeypointSet, order: list[int]) -> dict[str, Any]:
    annotations = []
    for annotation in people.annotations["annotations"]:
        if annotation.get("category_id") != people.category_id:
            continue
        old = annotation.get("keypoints") or [0] * (3 * len(people.keypoints))
        flat = [value for s in order for value in (old[3 * s : 3 * s + 3] if s >= 0 else (0, 0, 0))]
        annotations.append({**annotation, "keypoints": flat, "num_keypoints": sum(v > 0 for v in flat[2::3])})
    category = {**person_category(keypoints), "id": people.category_id}
    return {**people.annotations, "annotations": annotations, "categories": [category]}
