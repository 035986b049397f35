"""The check of a whole data set: recognise it, read it as training does, list what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rpgmt.config.json_files import read_json
from rpgmt.data.catalog import IMAGE_SETS, read_multitask_set, read_people
from rpgmt.data.check import people as people_checks
from rpgmt.data.check.dense_labels import LabelCount, check_sides, label_entries, note_balance, report_mirror
from rpgmt.data.check.findings import Findings
from rpgmt.data.check.image_files import Digests, check_images, compare_splits, tracked
from rpgmt.data.check.image_places import find_folder, is_there
from rpgmt.data.check.recognition import Recognised, recognise
from rpgmt.data.coco.annotations import AREA_RULE, is_box
from rpgmt.data.coco.data_root import annotation_files, find_file
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.person_masks import check_segment, with_person_masks
from rpgmt.data.coco.skeletons import KeypointSet
from rpgmt.data.dense.label_map_files import open_array
from rpgmt.data.image_headers import image_size
from rpgmt.data.images import IMAGE_SUFFIXES, read_image_file
from rpgmt.data.mirror_classes import mirror_of
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.data.sets.image_classes import ImageSet
from rpgmt.errors import UserError

Readable = CocoPeople | MultiTaskSet | ImageSet
"""What can be cut out and drawn."""


@dataclass
class Report:
    """What a check found.

    Args:
        recognised: what the data set was taken for.
        categories: that were chosen; None: all with key points.
        findings: what is wrong, and what one should know.
        counts: of each split.
        sets: of each split that can be read what training reads, without the entries that it would refuse.
    """

    recognised: Recognised
    categories: Sequence[str] | None = None
    findings: Findings = field(default_factory=Findings)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    sets: dict[str, Readable] = field(default_factory=dict)

    @property
    def heads(self) -> dict[str, int]:
        """The heads that train on all of it, with their channels; empty where there are none to choose."""
        first = next(iter(self.sets.values()), None)
        if isinstance(first, CocoPeople):
            return {"keypoints": len(first.keypoints)}
        if isinstance(first, MultiTaskSet):
            points = {} if first.people is None else {"keypoints": len(first.people.keypoints)}
            sizes = {name: len(kind.classes) or {"depth": 1, "normals": 3}[kind.kind] for name, kind in first.maps.items()}
            return points | sizes | {name: len(classes) for name, classes in first.classes.items()}
        return {}

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        own = self.recognised
        head = {"root": str(own.root), "task": own.task, "data": own.data, "title": own.title, "heads": self.heads}
        return {**head, "splits": self.counts, **self.findings.as_data()}


def examine(
    path: Path,
    *,
    task: str | None = None,
    data: str | None = None,
    splits: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    progress: bool = True,
) -> Report:
    """Checks a data set.

    Args:
        path: its folder, or the YAML file that describes it.
        task, data: what it is to be taken for; None: what its files look like.
        splits: which are looked at; None: those that training needs.
        categories: names of those that are the people, as of `rpgmt.data.coco.people.CocoPeople`; for key points in COCO's
            format.
        progress: shows how far it is, on a terminal.

    Raises:
        UserError: the path holds no data set, or one that categories cannot be chosen of.
    """
    report = Report(recognise(path, task, data), categories)
    own = report.recognised
    if categories is not None and (own.task, own.data) != ("pose", "coco"):
        given = f"`--categories` is {','.join(categories)}: training takes them of --task pose --data coco only"
        raise UserError(f"{given}, and {path} is {own.title} (--task {own.task} --data {own.data}): leave it out")
    wanted = tuple(splits or (*own.splits, *_missing(own)))
    digests: dict[str, Digests] = {}
    for split in wanted:
        examination = _Examination(report, split, progress)
        look = {"pose": examination.pose, "multitask": examination.multitask, "classification": examination.classes}
        digests[split] = look[own.task]()
    if digests:
        compare_splits(digests, report.findings)
    _compare(report)
    return report


def _missing(own: Recognised) -> tuple[str, ...]:
    """The splits that training needs and that are not there: reading them says what was looked for."""
    if own.task == "classification":
        return tuple(split for split in ("train",) if split not in own.splits) + (("val",) if len(own.splits) < 2 else ())
    return tuple(split for split in ("train", "val") if split not in own.splits)


def _compare(report: Report) -> None:
    """What splits have to have in common."""
    found, root, findings = report.sets, report.recognised.root, report.findings
    points: dict[str, KeypointSet] = {}
    for split, part in found.items():
        whose = part if isinstance(part, CocoPeople) else part.people if isinstance(part, MultiTaskSet) else None
        if whose is not None:
            points[split] = whose.keypoints
    people_checks.compare_points(points, root, findings)
    classes = [set(part.classes) for part in found.values() if isinstance(part, ImageSet)]
    for name in sorted(set().union(*classes)):
        if not all(name in part for part in classes):
            findings.refuse("classes to train on or to validate on, and not both", f"{root}: {name}")
    for keypoints in list(points.values())[:1]:
        people_checks.check_points(keypoints, findings)


class _Examination:
    """Looks at one split and tells a report."""

    def __init__(self, report: Report, split: str, progress: bool) -> None:
        self.report, self.findings, self.split, self.progress = report, report.findings, split, progress
        self.root, self.data = report.recognised.root, report.recognised.data

    def pose(self) -> Digests:
        people = self._coco() if self.data in ("coco", "crowdpose") else self._try(partial(read_people, self.data, self.root))
        if not isinstance(people, CocoPeople):
            return {}
        self.report.sets[self.split] = people
        return self._people(people)

    def _try(self, read: Any) -> Any:
        """What a reader of training gives for the split; None where it refuses."""
        try:
            with self.findings.warnings_as_facts():
                return read(self.split)
        except UserError as error:
            self.findings.refuse("what the reader refuses (the first of it)", str(error))
            return None

    def _coco(self) -> CocoPeople | None:
        """People of a document without the entries that training would refuse, which are listed."""
        names = annotation_files(self.split)
        if self.data == "crowdpose":
            stem = f"crowdpose_{self.split}.json"
            names = (stem, f"json/{stem}", f"annotations/{stem}", f"annotations/mmpose_{stem}")
        try:
            path = find_file(self.root, self.split, names)
            document = read_json(path)
        except UserError as error:
            self.findings.refuse("splits that cannot be read", str(error))
            return None
        if self.data == "crowdpose":
            document = _with_areas(document)
        return self._document(document, path)

    def _document(self, document: Any, path: Path) -> CocoPeople | None:
        part = people_checks.sound_part(document, str(path), self.findings, self.report.categories)
        if part is None:
            return None
        sound = part.document
        folder = find_folder(self.root, self.split, [image["file_name"] for image in sound["images"]], path, self.findings)
        if folder is None:
            return None
        peopled = {image["id"] for image in people_checks.images_of_people(sound, str(path))}
        lost = part.refused - peopled
        for image in sound["images"]:
            if image["id"] in peopled | part.refused and not is_there(folder, image["file_name"], path, self.findings):
                lost.add(image["id"])
        if lost and peopled <= lost:
            return None
        # The images go, too: readers would say of them that nobody is on them.
        sound["images"] = [image for image in sound["images"] if image["id"] not in lost]
        sound["annotations"] = [entry for entry in sound["annotations"] if entry.get("image_id") not in lost]
        return self._try(lambda _: CocoPeople.from_document(sound, folder, name=str(path)))

    def _people(self, people: CocoPeople) -> Digests:
        """Labels and images of people."""
        self.report.counts[self.split] = people_checks.check_labels(people.annotations, people.name, self.findings)
        folder = people.image_dir
        if folder is None:
            return {}
        images = {person.image["id"]: person.image for person in people.people}
        files = [(folder / image["file_name"], partial(people.read_image, image)) for image in images.values()]
        return check_images(files, self.findings, f"{self.split} images", progress=self.progress)

    def multitask(self) -> Digests:
        if self.data == "coco":
            people = self._coco()
            if people is None:
                return {}
            self._segments(people)
            labelled = self._try(lambda _: with_person_masks(people))
        else:
            if self.data in ("nyuv2", "cityscapes"):
                self._arrays()
            labelled = self._try(partial(read_multitask_set, self.data, self.root))
        if not isinstance(labelled, MultiTaskSet):
            return {}
        self.report.sets[self.split] = labelled
        return self._labels(labelled)

    def _segments(self, people: CocoPeople) -> None:
        """Lists malformed segments, and takes them out of the document."""
        images = {image["id"]: image for image in people.annotations["images"]}
        for entry in people.annotations["annotations"]:
            if entry.get("category_id") != people.category_id:
                continue
            try:
                check_segment(entry.get("segmentation"), images[entry["image_id"]], f"{people.name}: annotation {entry['id']}")
            except UserError as error:
                self.findings.refuse("malformed segments", str(error))
                entry["segmentation"] = None

    def _arrays(self) -> None:
        """Lists all arrays of a bundle that cannot be opened: its reader stops at the first."""
        for path in sorted((self.root / self.split).glob("*/*.npy")):
            try:
                open_array(path)
            except UserError as error:
                self.findings.refuse("arrays that cannot be opened", str(error))

    def _labels(self, labelled: MultiTaskSet) -> Digests:
        entries = label_entries(labelled)
        counts = {"images": len(entries), "samples": len(labelled.regions)}
        if labelled.people is not None:
            counts |= people_checks.check_labels(labelled.people.annotations, labelled.people.name, self.findings)
        check_sides(labelled, self.findings)
        counter = LabelCount(labelled, self.findings, self._units())
        self.report.counts[self.split] = counts
        files = []
        for entry in tracked(entries, len(entries), f"{self.split} labels", sys.stderr, self.progress):
            counter.add(entry)
            files.append((self._image_file(labelled, entry), partial(labelled.regions.read_image, entry)))
        digests = check_images(files, self.findings, f"{self.split} images", progress=self.progress)
        counter.report(len(entries), self.split)
        return digests

    def _units(self) -> dict[str, float]:
        if self.data != "folders":
            return {}
        return {name: float(files.get("unit", 1.0)) for name, files in (self._description()[1].get("maps") or {}).items()}

    def _description(self) -> tuple[Path, dict[str, Any]]:
        """The YAML file of folders, and what it holds."""
        from rpgmt.config.yaml_files import load_yaml

        path = self.root / "dataset.yaml" if self.root.is_dir() else self.root
        return path, load_yaml(path)

    def _image_file(self, labelled: MultiTaskSet, entry: dict[str, Any]) -> Path:
        if labelled.people is not None and labelled.people.image_dir is not None:
            return labelled.people.image_dir / entry["file_name"]
        if self.data != "folders":
            return self.root / self.split / "image" / entry["file_name"]
        path, description = self._description()
        return path.parent / description["images"].replace("{split}", self.split) / entry["file_name"]

    def classes(self) -> Digests:
        folder = self.root / self.split
        if folder.is_dir():
            inner = [item for item in sorted(folder.iterdir()) if item.is_dir() and not item.name.startswith(".")]
            for item in inner:
                if not any(file.suffix.lower() in IMAGE_SUFFIXES for file in item.iterdir()):
                    self.findings.refuse("classes without images", str(item))
            for file in sorted(folder.iterdir()):
                if file.suffix.lower() in IMAGE_SUFFIXES:
                    self.findings.note("images that lie in no class", str(file))
        found = self._try(partial(IMAGE_SETS[self.data].read, self.root)) if not self._emptied(folder) else None
        if not isinstance(found, ImageSet):
            return {}
        self.report.sets[self.split] = found
        counts = np.bincount(found.labels, minlength=len(found.classes)).tolist()
        self.report.counts[self.split] = {"images": len(found.labels), "classes": len(found.classes)}
        note_balance(dict(zip(found.classes, counts, strict=True)), self.split, self.findings)
        report_mirror(mirror_of(found.classes), found.classes, "", self.findings)
        if not isinstance(found.images, list):
            return {}
        files = [(path, partial(_decode, path)) for path in found.images]
        return check_images(files, self.findings, f"{self.split} images", progress=self.progress)

    def _emptied(self, folder: Path) -> bool:
        """Whether a class without images was listed, at which the reader would stop."""
        titles = [finding for finding in self.findings.refused if finding.title == "classes without images"]
        return any(example.startswith(f"{folder}/") for finding in titles for example in finding.examples)


def _with_areas(document: Any) -> Any:
    """CrowdPose has no areas: its reader fills them in."""
    if not isinstance(document, dict) or not isinstance(document.get("annotations"), list):
        return document
    entries = [
        {**entry, "area": AREA_RULE * entry["bbox"][2] * entry["bbox"][3]}
        if isinstance(entry, dict) and is_box(entry.get("bbox"))
        else entry
        for entry in document["annotations"]
    ]
    return {**document, "annotations": entries}


def _decode(path: Path) -> Any:
    return read_image_file(path, *image_size(path))
