"""Checks of label maps and of classes of whole images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from rpgmt.data.check.findings import Findings
from rpgmt.data.coco.keypoint_names import side_and_part
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.regions import Entry
from rpgmt.errors import UserError

RARE = 0.01
"""Part of a kind's labels below which a class is rare."""
UNEVEN = 10
"""How many times as many images the most frequent class may have as the rarest, without a word."""


class LabelCount:
    """Counts the labels of a set, an image after the other.

    Args:
        labelled: the set.
        findings: gets what is wrong with an image's labels.
    """

    def __init__(self, labelled: MultiTaskSet, findings: Findings) -> None:
        self.labelled, self.findings = labelled, findings
        self.with_label: Counter[str] = Counter()
        self.pixels = {name: np.zeros(len(map_.classes), np.int64) for name, map_ in labelled.maps.items() if map_.categorical}
        self.classes: dict[str, Counter[int]] = {name: Counter() for name in labelled.classes}

    def add(self, entry: Entry) -> None:
        """Reads the labels of an image, each by itself."""
        for name, kind in self.labelled.maps.items():
            try:
                found = self.labelled.read_maps(entry, [name])
            except UserError as error:
                self.findings.refuse(f"files of the label {name}", str(error))
                continue
            if name in found:
                self._count(name, kind, found[name])
        for name, number in self.labelled.read_classes(entry).items():
            self.with_label[name] += 1
            self.classes[name][number] += 1

    def _count(self, name: str, kind: LabelMap, values: np.ndarray) -> None:
        if kind.categorical:
            known = values[values >= 0]
            self.pixels[name] += np.bincount(known.ravel(), minlength=len(kind.classes))
            self.with_label[name] += bool(known.size)
        else:
            self.with_label[name] += bool(np.any(values))

    def report(self, images: int, split: str) -> None:
        """Notes of what is missing, never occurs, or is rare.

        Args:
            images: how many there are.
            split: for the notes.
        """
        for name in (*self.labelled.maps, *self.labelled.classes):
            if without := images - self.with_label[name]:
                self.findings.fact(f"{split}: {without} of {images} images have no label {name}")
        for name, pixels in self.pixels.items():
            shares = dict(zip(self.labelled.maps[name].classes, (pixels / max(1, pixels.sum())).tolist(), strict=True))
            note_shares(shares, f"{split}, {name}", "pixels", self.findings)
        for name, found in self.classes.items():
            counts = {text: found[number] for number, text in enumerate(self.labelled.classes[name])}
            note_balance(counts, f"{split}, {name}", self.findings)


def check_sides(labelled: MultiTaskSet, findings: Findings) -> None:
    """Notes of classes with a side, left or right, that no mirror image exchanges."""
    for name, kind in labelled.maps.items():
        swapped = {index for pair in kind.swaps for index in pair}
        for index, text in enumerate(kind.classes):
            if side_and_part(text)[0] and index not in swapped:
                findings.note(
                    "classes with a side that no mirror image exchanges: give `kind: parts`, `swaps`", f"{name}: {text}"
                )


def note_shares(shares: Mapping[str, float], what: str, of: str, findings: Findings) -> None:
    """Notes of classes that occur nowhere or hardly."""
    for name, share in shares.items():
        if share == 0:
            findings.note("classes that no label has", f"{what}: {name}")
        elif share < RARE:
            findings.note("classes that are rare", f"{what}: {name} has {share:.2%} of the {of}")


def note_balance(counts: Mapping[str, int], what: str, findings: Findings) -> None:
    """Notes of classes of images that occur nowhere, or far less often than others."""
    for name, count in counts.items():
        if not count:
            findings.note("classes that no label has", f"{what}: {name}")
    most, least = (choose(counts, key=lambda name: counts[name]) for choose in (max, min))
    if counts[least] and counts[most] > UNEVEN * counts[least]:
        findings.fact(f"{what}: {counts[most]} images of {most} and {counts[least]} of {least}: classes are uneven")


def label_entries(labelled: MultiTaskSet) -> list[Entry]:
    """Each image of the set once."""
    entries: Iterable[Entry] = (region.image for region in labelled.regions.regions)
    return list({entry["id"]: entry for entry in entries}.values())
