"""Kinds of data sets that are mutated: how a sound one is written, how it is read, and what then must hold."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from helpers.labelled_set import random_document, write_set
from helpers.mutated_kind import Kind
from helpers.mutation import bytes_of, json_of, text_of
from helpers.people_files import write_crowdpose, write_detections, write_lsp, write_mpii

from rpgmt.data.catalog import read_multitask_set, read_people
from rpgmt.data.check.examination import examine
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.convert.conversion import FORMATS, convert
from rpgmt.data.images import read_image_file
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.metrics.coco import coco_keypoint_metrics
from rpgmt.prediction.command.boxes import read_boxes


def _write_people(folder: Path) -> None:
    random = np.random.default_rng(0)
    documents = {split: random_document(random, 2, least=1, most=2) for split in ("train", "val")}
    for document in documents.values():
        for number, person in enumerate(document["annotations"]):
            x, y, w, h = person["bbox"]
            image = next(image for image in document["images"] if image["id"] == person["image_id"])
            runs = {"size": [image["height"], image["width"]], "counts": [7, 30, image["height"] * image["width"] - 37]}
            person["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]] if number % 2 else runs
    write_set(folder, documents)


def _read_people(folder: Path) -> None:
    labelled = read_multitask_set("coco", folder, "train")
    assert labelled.people is not None
    document = json.loads((folder / "annotations/person_keypoints_train.json").read_bytes().decode("utf-8-sig"))
    given = {entry["id"]: entry for entry in document["annotations"]}
    for person in labelled.people.people:
        flat = given[person.annotation_id]["keypoints"]
        assert (person.visibility == flat[2::3]).all()
        seen = person.visibility > 0
        assert (person.keypoints[seen] == np.transpose([flat[::3], flat[1::3]])[seen]).all()
    _check_people(labelled.people)
    _check_maps(labelled)
    truth = [
        {
            "image_id": person.image["id"],
            "category_id": labelled.people.category_id,
            "keypoints": np.column_stack([person.keypoints, np.ones(len(person.keypoints))]).ravel().tolist(),
            "score": 0.5,
        }
        for person in labelled.people.people
    ]
    found = coco_keypoint_metrics(labelled.people.annotations, truth, labelled.people.keypoints)
    assert found["AP"] is None or found["AP"] > 0.99, "who finds everybody is right"


def _check_people(people: CocoPeople) -> None:
    for person in people.people:
        *_, w, h = person.box
        assert np.isfinite(person.box).all()
        assert w > 0
        assert h > 0
        assert np.isfinite(person.keypoints).all()
        assert person.keypoints.shape == (len(people.keypoints), 2)
        assert set(person.visibility.tolist()) <= {0, 1, 2}
        assert np.isfinite(person.area)
        assert np.isfinite(person.score)
        assert people.read_image(person.image).shape == (person.image["height"], person.image["width"], 3)


def _check_maps(labelled: MultiTaskSet) -> None:
    for region in labelled.regions.regions:
        entry = region.image
        assert labelled.regions.read_image(entry).shape == (entry["height"], entry["width"], 3)
        for name, values in labelled.read_maps(entry, list(labelled.maps)).items():
            kind = labelled.maps[name]
            assert values.shape[:2] == (entry["height"], entry["width"])
            assert np.isfinite(values).all()
            if kind.categorical:
                assert values.min() >= -1
                assert values.max() < len(kind.classes)
            elif kind.kind == "depth":
                assert values.min() >= 0
        for name, number in labelled.read_classes(entry).items():
            assert 0 <= number < len(labelled.classes[name])


def _read_set(name: str, split: str, folder: Path) -> None:
    _check_people(read_people(name, folder, split))


def _write_detections(folder: Path) -> None:
    _write_people(folder)
    document = json.loads((folder / "annotations/person_keypoints_train.json").read_text())
    write_detections(folder / "found.json", document)
    found = json.loads((folder / "found.json").read_text())
    (folder / "found.json").write_text(json.dumps([{**one, "category_id": 7} for one in found]))


def _read_detections(folder: Path) -> None:
    _check_people(read_people("coco", folder, "train").with_detections(folder / "found.json"))


def _read_boxes(folder: Path) -> None:
    boxes = read_boxes(folder / "found.json", folder / "annotations/person_keypoints_train.json")
    for file in (folder / "images/train").rglob("*.jpg"):
        assert np.isfinite(boxes.of(str(file)).boxes).all()


_DESCRIPTION = """images: images/{split}
maps:
  seg: {folder: "seg/{split}", kind: classes, classes: [background, person, bag], ignore: 255}
  parts: {folder: "parts/{split}", kind: parts, classes: [a, left_b, right_b], swaps: [[left_b, right_b]]}
  depth: {folder: "depth/{split}", kind: depth, unit: 0.001}
  normals: {folder: "normals/{split}", kind: normals, negate: [y, z]}
classes:
  scene: {file: "scenes_{split}.csv", classes: [indoor, outdoor]}
"""


def _write_folders(folder: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("images", "seg", "parts", "depth", "normals"):
        (folder / name / "train").mkdir(parents=True)
    for number in range(2):
        cv2.imwrite(str(folder / f"images/train/{number}.jpg"), random.integers(0, 255, (20, 30, 3), np.uint8))
        cv2.imwrite(str(folder / f"seg/train/{number}.png"), random.integers(0, 3, (20, 30), np.uint8))
        np.save(folder / f"parts/train/{number}.npy", random.integers(-1, 3, (20, 30)))
        cv2.imwrite(str(folder / f"depth/train/{number}.png"), random.integers(0, 9999, (20, 30), np.uint16))
        np.save(folder / f"normals/train/{number}.npy", random.normal(size=(20, 30, 3)).astype(np.float32))
    (folder / "scenes_train.csv").write_text("image,class\n0,indoor\n1.jpg,outdoor\n")
    (folder / "dataset.yaml").write_text(_DESCRIPTION)


def _read_folders(folder: Path) -> None:
    _check_maps(read_multitask_set("folders", folder, "train"))


def _write_bundle(folder: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, values in (
            ("image", random.uniform(size=(12, 16, 3))),
            ("label", random.integers(-1, 13, (12, 16)).astype(float)),
            ("depth", random.uniform(0, 5, (12, 16, 1))),
            ("normal", random.normal(size=(12, 16, 3))),
        ):
            (folder / split / name).mkdir(parents=True)
            np.save(folder / split / name / "0.npy", values)


def _read_bundle(folder: Path) -> None:
    _check_maps(read_multitask_set("nyuv2", folder, "train"))


def _write_image(suffix: str, folder: Path) -> None:
    cv2.imwrite(str(folder / f"a{suffix}"), np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8))


def _read_image(suffix: str, folder: Path) -> None:
    for reduction, rows in ((1, None), (2, 10)):
        image = read_image_file(folder / f"a{suffix}", 40, 24, reduction, rows)
        assert image.dtype == np.uint8
        assert image.shape[1:] in ((40, 3), (20, 3))


def _write_format(name: str, folder: Path) -> None:
    random = np.random.default_rng(0)
    document = random_document(random, 2, least=1, most=2)
    for image in document["images"]:
        image["file_name"] = image["file_name"].rpartition("/")[2]
    write_set(folder / "source", {"train": document})
    convert(folder / "source", folder / "set", origin="coco", target=name, val=0)


def _read_format(name: str, folder: Path) -> None:
    for part in FORMATS[name].read(folder / "set", None, []):
        for _, annotation, points in part.people():
            assert np.isfinite(annotation["bbox"]).all()
            assert np.isfinite(points).all()


def _write_check(folder: Path) -> None:
    _write_people(folder)


def _read_check(task: str, data: str, folder: Path) -> None:
    examine(folder, task=task, data=data, splits=["train"], progress=False)


_LISTED = "annotations/person_keypoints_train.json"
SETS = [
    Kind("COCO document", _LISTED, _write_people, json_of, _read_people, 2),
    Kind("COCO document, data check", _LISTED, _write_check, json_of, partial(_read_check, "multitask", "coco")),
    Kind(
        "CrowdPose document",
        "crowdpose_train.json",
        partial(write_crowdpose, count=2),
        json_of,
        partial(_read_set, "crowdpose", "train"),
    ),
    Kind(
        "MPII list", "annot/valid.json", partial(write_mpii, count=2, heads=False), json_of, partial(_read_set, "mpii", "val")
    ),
    Kind("detections", "found.json", _write_detections, json_of, _read_detections),
    Kind("boxes for predict", "found.json", _write_detections, json_of, _read_boxes),
    Kind("dataset.yaml", "dataset.yaml", _write_folders, text_of, _read_folders),
    Kind(
        "dataset.yaml, data check", "dataset.yaml", _write_folders, text_of, partial(_read_check, "multitask", "folders"), 0.5
    ),
    Kind("CSV of classes", "scenes_train.csv", _write_folders, text_of, _read_folders),
    Kind("label PNG", "seg/train/0.png", _write_folders, bytes_of, _read_folders),
    Kind("label .npy", "parts/train/0.npy", _write_folders, bytes_of, _read_folders),
    Kind("bundle .npy", "train/image/0.npy", _write_bundle, bytes_of, _read_bundle),
    Kind("JPEG", "a.jpg", partial(_write_image, ".jpg"), bytes_of, partial(_read_image, ".jpg")),
    Kind("PNG", "a.png", partial(_write_image, ".png"), bytes_of, partial(_read_image, ".png")),
    Kind("WebP", "a.webp", partial(_write_image, ".webp"), bytes_of, partial(_read_image, ".webp"), 0.5),
    Kind(".mat", "joints.mat", partial(write_lsp, count=2), bytes_of, partial(_read_set, "lsp", "train"), 0.3),
    *(
        Kind(f"{name} to convert", f"set/{file}", partial(_write_format, name), mutate, partial(_read_format, name), 0.5)
        for name, file, mutate in (
            ("coco", _LISTED, json_of),
            ("yolo-pose", "data.yaml", text_of),
            ("yolo-pose", "labels/train/0.txt", text_of),
            ("label-studio", "tasks.json", json_of),
            ("cvat", "annotations.xml", text_of),
            ("deeplabcut", "labeled-data/train/CollectedData_rpgmt.csv", text_of),
            ("sleap", "train.json", json_of),
        )
    ),
]
