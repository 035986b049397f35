from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.people_files import SIZE, write_crowdpose

from rpgmt.data.coco.skeletons import CROWDPOSE_KEYPOINTS
from rpgmt.data.sets.crowdpose import read_crowdpose
from rpgmt.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crowdpose")
    write_crowdpose(folder, 3)
    return folder


@pytest.mark.parametrize("split", ["train", "val", "trainval", "test"])
def test_areas_edges_and_sigmas_are_the_data_set_s(root: Path, split: str) -> None:
    data = read_crowdpose(root, split)
    assert data.keypoints == CROWDPOSE_KEYPOINTS
    assert len(data.people) >= 3
    for annotation in data.annotations["annotations"]:
        assert annotation["area"] == pytest.approx(0.53 * annotation["bbox"][2] * annotation["bbox"][3])
    assert [image["crowdIndex"] for image in data.annotations["images"]] == [0.167, 0.5, 0.833]
    assert data.read_image(data.people[0].image).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("file", ["json/crowdpose_val.json", "annotations/mmpose_crowdpose_val.json"])
def test_other_places_are_found(root: Path, tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / "images").symlink_to(root / "images")
    (tmp_path / file).write_bytes((root / "crowdpose_val.json").read_bytes())
    assert read_crowdpose(tmp_path, "val").annotations == read_crowdpose(root, "val").annotations


def test_what_is_wrong_is_said_in_one_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`split` is 'dev': CrowdPose has train, val, test, trainval"):
        read_crowdpose(tmp_path, "dev")
    with pytest.raises(UserError, match=r"looked for crowdpose_val\.json, json/crowdpose_val\.json"):
        read_crowdpose(tmp_path, "val")
    document = json.loads((root / "crowdpose_val.json").read_text())
    document["annotations"][0]["bbox"] = [1, 2]
    (tmp_path / "crowdpose_val.json").write_text(json.dumps(document))
    (tmp_path / "images").symlink_to(root / "images")
    with pytest.raises(UserError, match=r"annotation 1: `bbox` is \[1, 2\]"):
        read_crowdpose(tmp_path, "val")
    document["categories"][0]["keypoints"][0] = "nose"
    (tmp_path / "crowdpose_val.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="the key points are not CrowdPose's 14, left_shoulder"):
        read_crowdpose(tmp_path, "val")


def test_the_published_example(shared_fixtures: Path, tmp_path: Path) -> None:
    """The ground truth of faster_coco_eval's CrowdPose test, as its file has it, without images."""
    import cv2
    import numpy as np

    document = json.loads((shared_fixtures / "coco_eval/example_crowdpose_val.json").read_text())
    (tmp_path / "images").mkdir()
    (tmp_path / "crowdpose_val.json").write_text(json.dumps(document))
    for image in document["images"]:
        cv2.imwrite(str(tmp_path / "images" / image["file_name"]), np.zeros((8, 8, 3), np.uint8))
    data = read_crowdpose(tmp_path, "val")
    assert len(data.people) == sum(annotation["num_keypoints"] > 0 for annotation in document["annotations"])
    assert data.people[0].area == pytest.approx(0.53 * 482 * 791)
    assert data.people[0].image["crowdIndex"] == 0.76
