"""What a mirror image does to classes: which it exchanges, and of which nobody can know."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from rpgmt.data.coco.keypoint_names import infer_flip_pairs, name_words
from rpgmt.errors import UserError

IndexPairs = tuple[tuple[int, int], ...]

SWAPS_FLAG = "--swaps"
"""How classes of images in folders are given pairs."""


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """What a mirror image does to classes; those that are not named keep their label.

    Args:
        swaps: pairs of classes that it exchanges.
        by_names: nobody gave the pairs, they come from the names.
        unknown: names that have a side, where nobody gave pairs and no class is their mirror image by its name.
    """

    swaps: IndexPairs = ()
    by_names: bool = False
    unknown: tuple[str, ...] = ()

    @property
    def partners(self) -> dict[int, int]:
        """The class of the mirror image, where it is another."""
        return {one: other for left, right in self.swaps for one, other in ((left, right), (right, left))}

    def check(self, name: str, way: str) -> None:
        """Raise UserError where it is not known what a mirror image does to a class.

        Args:
            name: of the labels, for messages.
            way: to give the pairs, for messages, e.g. "--swaps" or "`swaps` in dataset.yaml".
        """
        if self.unknown:
            raise UserError(
                f"{name}: class {self.unknown[0]!r} has a side, and by its name no class is its mirror image: give {way}, "
                "pairs of classes or [] where all keep their label, or --flip 0"
            )

    def note(self, name: str, classes: Sequence[str], way: str) -> None:
        """Note what is exchanged by the names of `classes`; `name` and `way` as of `check`."""
        if self.by_names and self.swaps:
            pairs = ", ".join(f"{classes[left]}/{classes[right]}" for left, right in self.swaps)
            warnings.warn(f"{name}: mirror images exchange {pairs}, by their names; {way} says otherwise", stacklevel=3)


def mirror_of(classes: Sequence[str], swaps: Sequence[tuple[str, str]] | None = None) -> Mirror:
    """What a mirror image does to classes.

    Args:
        classes: their names.
        swaps: pairs of names that it exchanges; None: those whose names differ in left and right only, found as key points'
            pairs are (`rpgmt.data.coco.keypoint_names.infer_flip_pairs`).

    Raises:
        UserError: a name is no class, or stands in two pairs.
    """
    if swaps is not None:
        swapped = [name for pair in swaps for name in pair]
        for name in swapped:
            if name not in classes:
                raise UserError(f"`swaps` names {name!r}, which is not in `classes`: give pairs of classes")
            if swapped.count(name) > 1:
                raise UserError(f"`swaps` names {name!r} twice: a class has one mirror image")
        return Mirror(swaps=tuple((list(classes).index(left), list(classes).index(right)) for left, right in swaps))
    letters = [name for name in classes if len(name) == 1]
    pairs = infer_flip_pairs(tuple(classes))
    if len(letters) > 2:  # l and r are letters among others, and no sides
        pairs = tuple(pair for pair in pairs if classes[pair[0]] not in letters)
    return Mirror(swaps=pairs, by_names=True, unknown=lone_sides(classes, pairs))


def lone_sides(names: Sequence[str], pairs: IndexPairs) -> tuple[str, ...]:
    """Names with the word left or right that are in no pair. Parts of words, as in bright, and single letters are no sides."""
    paired = {index for pair in pairs for index in pair}
    return tuple(name for index, name in enumerate(names) if index not in paired and {"left", "right"} & set(name_words(name)))
