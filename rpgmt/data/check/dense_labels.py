"""Checks of label maps and of classes of whole images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rpgmt.data.check.dense_values import DepthValues, NormalValues
from rpgmt.data.check.findings import Findings
from rpgmt.data.coco.keypoint_names import side_and_part
from rpgmt.data.dense.label_maps import LabelMap
from rpgmt.data.mirror_classes import Mirror
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
        units: of maps that a YAML file describes, metres of one step, by name; others say nothing of their axes.
    """

    def __init__(self, labelled: MultiTaskSet, findings: Findings, units: Mapping[str, float]) -> None:
        self.labelled, self.findings = labelled, findings
        self.with_label: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.pixels = {name: np.zeros(len(map_.classes), np.int64) for name, map_ in labelled.maps.items() if map_.categorical}
        self.values: dict[str, DepthValues | NormalValues] = {
            name: DepthValues(units.get(name, 1.0), kind.inverse) if kind.kind == "depth" else NormalValues(name in units)
            for name, kind in labelled.maps.items()
            if not kind.categorical
        }
        self.classes: dict[str, Counter[int]] = {name: Counter() for name in labelled.classes}

    def add(self, entry: Entry) -> None:
        """Reads the labels of an image, each by itself."""
        for name, kind in self.labelled.maps.items():
            try:
                found = self.labelled.read_maps(entry, [name])
            except UserError as error:
                self.findings.refuse(f"files of the label {name}", str(error))
                self.refused[name] += 1
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
            self.with_label[name] += 1
            self.values[name].add(values)

    def report(self, images: int, split: str) -> None:
        """Notes of what is missing, never occurs, or is rare.

        Args:
            images: how many there are.
            split: for the notes.
        """
        for name in (*self.labelled.maps, *self.labelled.classes):
            if without := images - self.with_label[name] - self.refused[name]:
                self.findings.fact(f"{split}: {without} of {images} images have no label {name}")
        for name, looked_at in self.values.items():
            looked_at.report(f"{split}, {name}", self.findings)
        for name, pixels in self.pixels.items():
            if self.refused[name]:  # who knows what is in those
                continue
            shares = dict(zip(self.labelled.maps[name].classes, (pixels / max(1, pixels.sum())).tolist(), strict=True))
            note_shares(shares, f"{split}, {name}", "pixels", self.findings)
        for name, found in self.classes.items():
            counts = {text: found[number] for number, text in enumerate(self.labelled.classes[name])}
            note_balance(counts, f"{split}, {name}", self.findings)


def check_sides(labelled: MultiTaskSet, findings: Findings) -> None:
    """What a mirror image does to classes with a side, left or right."""
    classes = {**{name: kind.classes for name, kind in labelled.maps.items()}, **labelled.classes}
    for name, texts in classes.items():
        report_mirror(labelled.mirror(name), texts, f"{name}: ", findings)


def report_mirror(mirror: Mirror, classes: Sequence[str], what: str, findings: Findings) -> None:
    """Says which classes are exchanged, which keep their label although they have a side, and of which nobody knows.

    Args:
        mirror: what a mirror image does to them.
        classes: their names.
        what: begins each example.
        findings: is told.
    """
    for text in mirror.unknown:
        findings.refuse("classes with a side and no mirror image: give `swaps` or --swaps, or --flip 0", f"{what}{text}")
    pairs = ", ".join(f"{classes[left]}/{classes[right]}" for left, right in mirror.swaps)
    if pairs:
        findings.fact(f"{what}mirror images exchange {pairs}" + (", by their names" if mirror.by_names else ""))
    swapped = mirror.partners
    for number, text in enumerate(classes):
        if side_and_part(text)[0] and number not in swapped and text not in mirror.unknown:
            findings.note("classes with a side that no mirror image exchanges: see `swaps`", f"{what}{text}")


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
