"""Documents with several categories: which of them are the people."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rpgmt.data.coco.annotations import check_lists, folder_of, is_integer, keypoint_names
from rpgmt.errors import UserError

OF_THE_FIRST = ("sigmas", "flip_pairs", "skeleton")
"""Fields of a category with key points."""


def join_categories(document: Any, name: str, chosen: Sequence[str] | None = None) -> tuple[dict[str, Any], frozenset[int]]:
    """The document with one category that has key points, and the ids of those that it was made of.

    By default all categories with key points are one, which a warning says; they need the same key points. The joined one has
    the id, which written results have, the sigmas, the pairs and the skeleton of the first. Other categories stay, without key
    points.

    Args:
        document: in COCO's format; left as it is, and itself where it has one category with key points.
        name: of it, for messages.
        chosen: names of categories, or ids.

    Raises:
        UserError: the document is not COCO's, a chosen category is not there or has no key points, or key points differ.
    """
    check_lists(document, name)
    found = {entry["id"]: entry for entry in document["categories"] if entry.get("keypoints")}
    if chosen is not None:
        found = {entry["id"]: entry for one in chosen for entry in _named(one, list(found.values()), name)}
    if not found or len(found) == sum(bool(entry.get("keypoints")) for entry in document["categories"]) == 1:
        return document, frozenset(found)
    first, *others = found.values()
    names = keypoint_names(first, name)
    for other in others:
        if keypoint_names(other, name) != names:
            raise UserError(
                f"{name}: categories {title(first)} and {title(other)} have other key points: choose by --categories NAME,… "
                "one, or several with the same"
            )
    if chosen is None:
        listed = ", ".join(title(entry) for entry in list(found.values())[:5]) + (", …" if len(found) > 5 else "")
        text = f"{len(found)} categories with the same key points count as one: {listed}; --categories NAME,… chooses"
        warnings.warn(f"{folder_of(name)}: {text}", stacklevel=3)
    other_fields = [key for key in OF_THE_FIRST if any(other.get(key) not in (None, first.get(key)) for other in others)]
    if other_fields:
        text = f"the categories differ in {', '.join(other_fields)}: those of {title(first)} count for all"
        warnings.warn(f"{folder_of(name)}: {text}", stacklevel=3)
    rest = [
        {key: value for key, value in entry.items() if key != "keypoints"}
        for entry in document["categories"]
        if entry["id"] not in found
    ]
    annotations = [
        {**entry, "category_id": first["id"]}
        if is_integer(entry.get("category_id")) and entry["category_id"] in found
        else entry
        for entry in document["annotations"]
    ]
    return {**document, "categories": [first, *rest], "annotations": annotations}, frozenset(found)


def title(category: dict[str, Any]) -> str:
    """What a category is called in messages."""
    return str(category.get("name", category["id"]))


def _named(one: str, entries: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    found = [entry for entry in entries if one in (str(entry.get("name")), str(entry["id"]))]
    if not found:
        known = ", ".join(title(entry) for entry in entries) or "none"
        raise UserError(f"`categories` has {one!r}: the categories with key points of {name} are {known}")
    return found


def check_category_ids(document: dict[str, Any], name: str) -> None:
    """What the annotations of no category are is an error, of categories that are not listed a warning.

    Args:
        document: with the lists that `check_lists` asks for.
        name: of it, for messages.

    Raises:
        UserError: a `category_id` is missing or no integer.
    """
    known = [category["id"] for category in document["categories"]]
    numbers = [annotation.get("category_id") for annotation in document["annotations"]]
    wrong = [place for place, number in enumerate(numbers) if not is_integer(number)]
    if wrong:
        annotation, number = document["annotations"][wrong[0]], numbers[wrong[0]]
        given = repr(number) if "category_id" in annotation else "missing"
        more = f" ({len(wrong)} of {len(numbers)} annotations are such)" if len(wrong) > 1 else ""
        listed = ", ".join(map(str, known[:5])) + (", …" if len(known) > 5 else "")
        raise UserError(
            f"{name}: annotation {annotation['id']}: `category_id` is {given}: give an integer, an `id` of `categories` "
            f"({listed}){more}"
        )
    unknown = Counter(number for number in numbers if number not in set(known))
    if unknown:
        listed = ", ".join(map(str, sorted(unknown)[:5])) + (", …" if len(unknown) > 5 else "")
        text = f"{name}: {unknown.total()} of {len(numbers)} annotations are left out: `categories` lacks their `category_id`"
        warnings.warn(f"{text} {listed}", stacklevel=3)
