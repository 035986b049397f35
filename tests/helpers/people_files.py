"""Small files in the formats of real data sets, of people that the project draws: 96×96 JPEG images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rpgmt.data.coco.skeletons import COCO_KEYPOINTS, CROWDPOSE_KEYPOINTS, LSP_KEYPOINTS, MPII_KEYPOINTS, KeypointSet
from rpgmt.synthetic.coco_format import PeopleLabels, coco_document
from rpgmt.synthetic.parallel import render_many, split_start
from rpgmt.synthetic.render import Scene

SIZE = 96


def write_coco(root: Path, count: int = 8) -> None:
    """`annotations/person_keypoints_{train,val}.json` and `images/`, with `count` images a split."""
    for split in ("train", "val"):
        document = _document(root / "images", split, count)
        _write_json(root / f"annotations/person_keypoints_{split}.json", document)


def write_crowdpose(root: Path, count: int = 8) -> None:
    """`crowdpose_{train,val,trainval,test}.json` and `images/`; without areas, with COCO's edges, as the original."""
    for name, split in (("train", "train"), ("val", "val"), ("trainval", "train"), ("test", "val")):
        document = _document(root / "images", split, count)
        for number, image in enumerate(document["images"]):
            image["crowdIndex"] = round((number + 0.5) / count, 3)
        for person in document["annotations"]:
            del person["area"]
            points = _joints(person, CROWDPOSE_KEYPOINTS)
            person |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
        document["categories"][0]["keypoints"] = list(CROWDPOSE_KEYPOINTS.names)
        _write_json(root / f"crowdpose_{name}.json", document)


def write_mpii(root: Path, count: int = 8, *, heads: bool = True) -> None:
    """`annot/{train,valid}.json`, `annot/gt_valid.mat` unless `heads` is false, and `images/`."""
    from scipy.io import savemat

    for split, name in (("train", "train"), ("val", "valid")):
        document = _document(root / "images", split, count)
        files = {image["id"]: image["file_name"] for image in document["images"]}
        people, boxes = [], []
        for person in document["annotations"]:
            points = _joints(person, MPII_KEYPOINTS)
            x, y, w, h = person["bbox"]
            scale = max(w, h) / 200
            top, neck = points[9, :2], points[8, :2]
            boxes.append(np.array([np.minimum(top, neck) - 2, np.maximum(top, neck) + 2]))
            people.append(
                {
                    "image": files[person["image_id"]],
                    "center": [x + (w - 1) / 2 + 1, y + (h - 1) / 2 + 1 - 15 * scale],
                    "scale": scale,
                    "joints": (points[:, :2] + 1).tolist(),
                    "joints_vis": (points[:, 2] > 0).astype(int).tolist(),
                }
            )
        _write_json(root / f"annot/{name}.json", people)
        if name == "valid" and heads:
            truth = {
                "headboxes_src": np.stack(boxes, axis=-1),
                "jnt_missing": 1 - np.array([person["joints_vis"] for person in people]).T,
                "pos_gt_src": np.array([person["joints"] for person in people]).transpose(1, 2, 0),
            }
            savemat(root / "annot/gt_valid.mat", truth)


def write_lsp(root: Path, count: int = 8) -> None:
    """`joints.mat` (3, 14, 2·count) and `images/im0001.jpg` …, the first half to train on, one person each."""
    from scipy.io import savemat

    (root / "images").mkdir(parents=True, exist_ok=True)
    joints = np.zeros((3, 14, 2 * count))
    scenes = [*_scenes("train", count), *_scenes("val", count)]
    for i, scene in enumerate(scenes):
        _write_image(root / f"images/im{i + 1:04d}.jpg", scene)
        largest = int(np.argmax(scene.areas))
        points = _joints({"keypoints": scene.keypoints[largest].ravel()}, LSP_KEYPOINTS)
        points[points[:, 2] == 0, :2] = points[points[:, 2] > 0, :2].mean(axis=0)  # all are labelled there
        joints[:2, :, i], joints[2, :, i] = points[:, :2].T, points[:, 2] < 2
    savemat(root / "joints.mat", {"joints": joints})


def write_detections(path: Path, document: dict[str, Any]) -> None:
    """COCO box results: each annotated box a pixel aside with score 0.9, one of nobody with 0.05 an image, and a car."""
    found = [
        {"image_id": person["image_id"], "category_id": 1, "bbox": [person["bbox"][0] + 1, *person["bbox"][1:]], "score": 0.9}
        for person in document["annotations"]
    ]
    for image in document["images"]:
        found.append({"image_id": image["id"], "category_id": 1, "bbox": [5, 6, 20, 30], "score": 0.05})
    found.append({"image_id": document["images"][0]["id"], "category_id": 3, "bbox": [5, 6, 20, 30], "score": 0.99})
    _write_json(path, found)


def _scenes(split: str, count: int) -> list[Scene]:
    return list(render_many(0, split_start(split, count), count, SIZE, processes=1))


def _document(folder: Path, split: str, count: int) -> dict[str, Any]:
    """The COCO document of a split, whose images are written; ids and names of two splits differ."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = PeopleLabels()
    for i, scene in enumerate(_scenes(split, count)):
        _write_image(folder / f"{split}{i:04d}.jpg", scene)
        labels.add(i, scene)
    document = coco_document(labels.arrays(), count, SIZE)
    for image in document["images"]:
        image["file_name"] = f"{split}{image['id']:04d}.jpg"
    return document


def _write_image(path: Path, scene: Scene) -> None:
    cv2.imwrite(str(path), scene.image[:, :, ::-1])


def _write_json(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def _joints(person: dict[str, Any], keypoints: KeypointSet) -> np.ndarray:
    """(K, 3): COCO's points where the set has them; trunk and head from those, about where annotators put them."""
    coco = dict(zip(COCO_KEYPOINTS.names, np.array(person["keypoints"], dtype=float).reshape(-1, 3), strict=True))
    hips, shoulders = (coco["left_hip"], coco["right_hip"]), (coco["left_shoulder"], coco["right_shoulder"])
    nose = (coco["nose"], *shoulders)
    middle: dict[str, tuple[Sequence[np.ndarray], Callable[..., np.ndarray]]] = {
        "pelvis": (hips, lambda a, b: (a + b) / 2),
        "thorax": (shoulders, lambda a, b: (a + b) / 2),
        "neck": (nose, lambda n, a, b: 0.2 * n + 0.4 * (a + b)),
        "head_top": (nose, lambda n, a, b: 1.6 * n - 0.3 * (a + b)),
    }
    middle |= {"upper_neck": middle["neck"], "head": middle["head_top"]}
    rows = []
    for name in keypoints.names:
        if name in coco:
            rows.append(coco[name])
        else:
            sources, combine = middle[name]
            v = min(point[2] for point in sources)
            rows.append(np.array([*combine(*(point[:2] for point in sources)), v]) if v else np.zeros(3))
    return np.array(rows)
