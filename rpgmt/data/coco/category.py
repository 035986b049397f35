"""The key points of a document's category: what it says, what is known of its names, what the names tell."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from rpgmt.data.coco.annotations import are_numbers, folder_of
from rpgmt.data.coco.keypoint_names import infer_flip_pairs, side_and_part, upper_body
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS, DEFAULT_SIGMA, KNOWN_SETS, KeypointSet
from rpgmt.errors import UserError

Names = tuple[str, ...]
Pairs = tuple[tuple[int, int], ...]
NamePairs = Sequence[tuple[str, str]]


def keypoint_set(
    category: dict[str, Any],
    name: str,
    *,
    sigmas: Sequence[float] | None = None,
    flip_pairs: NamePairs | None = None,
    skeleton: NamePairs | None = None,
) -> KeypointSet:
    """The key points of a category, each property from the first of these that has it:

    1. the arguments, 2. the category itself, 3. the known set of the same names (COCO's, MPII's, CrowdPose's, LSP's),
    4. the names: left and right give the flip pairs, and points that COCO has its sigmas; a warning says what was taken.

    Args:
        category: of the document, checked by `keypoint_category`. Beyond COCO's own `skeleton`, whose numbers count from
            one, it may have `sigmas` (K numbers) and `flip_pairs` (pairs of names).
        name: of the data set, for messages.
        sigmas: K positive numbers.
        flip_pairs: pairs of names that a mirror image swaps.
        skeleton: edges, as pairs of names.

    Raises:
        UserError: there are not K sigmas, or a pair is not two names of the category.
    """
    names = tuple(category["keypoints"])
    meanings = [side_and_part(point) for point in names]
    known = next((known for known in KNOWN_SETS if [side_and_part(point) for point in known.names] == meanings), None)
    notes: list[str] = []
    result = KeypointSet(
        names=names,
        sigmas=_sigmas(names, category, name, sigmas, known, notes),
        flip_pairs=_flip_pairs(names, category, name, flip_pairs, known, notes),
        skeleton=_skeleton(names, category, name, skeleton, known),
        upper=upper_body(names),
    )
    if notes:
        # Of the folder, so that the files of two splits say it once.
        warnings.warn(f"{folder_of(name)}: taken from the names of the key points: {'; '.join(notes)}", stacklevel=4)
    return result


def _sigmas(
    names: Names, category: dict[str, Any], name: str, given: Any, known: KeypointSet | None, notes: list[str]
) -> tuple[float, ...]:
    sources = ((given, name), (category.get("sigmas"), f"{name}: category {category['id']}"))
    for values, where in sources:
        if values is None:
            continue
        if not are_numbers(values) or len(values) != len(names) or min(values) <= 0:
            count = f"{len(values)} entries" if isinstance(values, list | tuple) else repr(values)
            raise UserError(f"{where}: `sigmas` has {count}: give {len(names)} positive numbers, one for each key point")
        return tuple(float(value) for value in values)
    if known:
        return known.sigmas
    coco = dict(zip(map(side_and_part, COCO_KEYPOINTS.names), COCO_KEYPOINTS.sigmas, strict=True))
    missing = [point for point in names if side_and_part(point) not in coco]
    if len(missing) < len(names):
        notes.append("COCO's OKS sigmas")
    if missing:
        notes.append(f"no OKS sigma for {', '.join(missing)}: {DEFAULT_SIGMA}, this library's own (give `sigmas`)")
    return tuple(coco.get(side_and_part(point), DEFAULT_SIGMA) for point in names)


def _flip_pairs(
    names: Names, category: dict[str, Any], name: str, given: Any, known: KeypointSet | None, notes: list[str]
) -> Pairs:
    sources = ((given, name), (category.get("flip_pairs"), f"{name}: category {category['id']}"))
    for values, where in sources:
        if values is None:
            continue
        pairs = _by_names(values, names, "flip_pairs", where)
        if len({index for pair in pairs for index in pair}) < 2 * len(pairs):
            raise UserError(f"{where}: `flip_pairs` is {values!r}: a key point has one mirror image, another point, at most")
        return pairs
    if known:
        return known.flip_pairs
    pairs = infer_flip_pairs(names)
    listed = ", ".join(f"{names[left]}/{names[right]}" for left, right in pairs)
    notes.append(f"flip pairs {listed}" if pairs else "no flip pairs, nothing is swapped in a mirror image")
    return pairs


def _skeleton(names: Names, category: dict[str, Any], name: str, given: Any, known: KeypointSet | None) -> Pairs:
    if given is not None:
        return _by_names(given, names, "skeleton", name)
    edges = category.get("skeleton")
    if edges is None:
        return known.skeleton if known else ()
    where = f"{name}: category {category['id']}"
    if not isinstance(edges, list) or not all(_is_pair(edge, int) for edge in edges):
        raise UserError(f"{where}: `skeleton` is {_short(edges)}: give pairs of numbers of key points, from 1 to {len(names)}")
    inside = tuple((a - 1, b - 1) for a, b in edges if 1 <= a <= len(names) and 1 <= b <= len(names))
    if len(inside) < len(edges):  # it occurs: CrowdPose's files keep COCO's edges
        where = f"{folder_of(name)}: category {category['id']}"
        warnings.warn(f"{where}: edges of `skeleton` to points beyond the {len(names)} are left out", stacklevel=5)
    return inside


def _by_names(pairs: Any, names: Names, what: str, where: str) -> Pairs:
    if not isinstance(pairs, list | tuple) or not all(_is_pair(pair, str) for pair in pairs):
        raise UserError(f"{where}: `{what}` is {_short(pairs)}: give pairs of names, e.g. [[{names[0]}, {names[-1]}]]")
    unknown = [point for pair in pairs for point in pair if point not in names]
    if unknown:
        raise UserError(f"{where}: `{what}` names {unknown[0]!r}, which is no key point: they are {', '.join(names)}")
    return tuple((names.index(a), names.index(b)) for a, b in pairs)


def _is_pair(value: Any, kind: type) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, kind) for part in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
