"""CrowdPose, which is COCO's format with 14 key points, a crowd index and no areas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rpgmt.config.json_files import read_json
from rpgmt.data.coco.annotations import AREA_RULE, is_box, keypoint_category
from rpgmt.data.coco.data_root import find_file
from rpgmt.data.coco.entries import person_category
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import CROWDPOSE_KEYPOINTS
from rpgmt.data.coco.tidy import tidy
from rpgmt.errors import UserError

_SPLITS = ("train", "val", "test", "trainval")


def read_crowdpose(root: str | Path, split: str) -> CocoPeople:
    """CrowdPose (Li et al., "CrowdPose: Efficient Crowded Scenes Pose Estimation and A New Benchmark", CVPR 2019).

    The document is a copy in which each annotation has the `area` of that data set's evaluation, 0.53 · w · h of its
    box, and the category has the data set's sigmas and edges of its own (the file's edges are COCO's). `crowdIndex` of the
    images stays, for AP by crowding. Papers train on `trainval` and report `test`.

    Args:
        root: folder with `crowdpose_{split}.json` (in it, in `json/` or in `annotations/`, or as MMPose names it
            `annotations/mmpose_crowdpose_{split}.json`) and `images/`.
        split: "train", "val", "test" or "trainval".

    Raises:
        UserError: a file or image is missing, or the document is malformed or has other key points.
    """
    if split not in _SPLITS:
        raise UserError(f"`split` is {split!r}: CrowdPose has {', '.join(_SPLITS)}")
    stem = f"crowdpose_{split}.json"
    path = find_file(root, split, (stem, f"json/{stem}", f"annotations/{stem}", f"annotations/mmpose_{stem}"))
    document = tidy(read_json(path), str(path))
    category = keypoint_category(document, str(path))
    names = CROWDPOSE_KEYPOINTS.names
    # Some copies say what the file means by "head".
    if tuple("head" if point == "top_head" else point for point in category["keypoints"]) != names:
        raise UserError(f"{path}: the key points are not CrowdPose's {len(names)}, {', '.join(names)}")
    document = {
        **document,
        "annotations": [_with_area(annotation) for annotation in document["annotations"]],
        "categories": [{**category, **person_category(CROWDPOSE_KEYPOINTS), "id": category["id"]}],
    }
    return CocoPeople.from_document(document, Path(root) / "images", name=str(path))


def _with_area(annotation: dict[str, Any]) -> dict[str, Any]:
    box = annotation.get("bbox")
    return {**annotation, "area": AREA_RULE * box[2] * box[3]} if is_box(box) else annotation  # else an error follows
