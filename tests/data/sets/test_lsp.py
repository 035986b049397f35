from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.people_files import SIZE, write_coco, write_lsp
from scipy.io import loadmat, savemat

from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import LSP_KEYPOINTS
from rpgmt.data.sets.lsp import read_lsp
from rpgmt.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lsp")
    write_lsp(folder, 3)
    return folder


@pytest.mark.parametrize(("split", "first"), [("train", 0), ("val", 3)])
def test_halves_of_the_original_file(root: Path, split: str, first: int) -> None:
    joints = loadmat(root / "joints.mat")["joints"]
    data = read_lsp(root, split)
    assert data.keypoints == LSP_KEYPOINTS
    assert [person.image["file_name"] for person in data.people] == [f"im{first + i + 1:04d}.jpg" for i in range(3)]
    hidden = 0
    for i, person in enumerate(data.people):
        np.testing.assert_allclose(person.keypoints, joints[:2, :, first + i].T)
        np.testing.assert_array_equal(person.visibility, 2 - joints[2, :, first + i])
        hidden += (person.visibility == 1).sum()
        x, y, w, h = person.box
        inside = np.clip(person.keypoints, 0, SIZE - 1)
        assert (inside >= [x, y]).all()
        assert (inside <= [x + w - 1, y + h - 1]).all()
        assert person.area == pytest.approx(0.53 * w * h)
        assert data.read_image(person.image).shape == (SIZE, SIZE, 3)
    assert hidden > 0


def _write_extended(root: Path) -> None:
    joints = np.zeros((14, 3, 3))
    joints[:, :, 0] = [[10 + i, 20 + 2 * i, 1] for i in range(14)]
    joints[5, :, 0] = -7, -8, 0
    joints[2, :, 2] = 30, 40, 1
    savemat(root / "joints.mat", {"joints": joints})
    (root / "images").mkdir()
    for i in range(3):
        cv2.imwrite(str(root / f"images/im{i + 1:05d}.jpg"), np.zeros((60, 50, 3), np.uint8))


def test_the_extension_labels_visible_joints_only(tmp_path: Path) -> None:
    _write_extended(tmp_path)
    data = read_lsp(tmp_path, "train")
    assert [person.image["file_name"] for person in data.people] == ["im00001.jpg", "im00003.jpg"]  # one has no joint
    first, last = data.people
    assert first.visibility.tolist() == [2] * 5 + [0] + [2] * 8
    assert first.keypoints[5].tolist() == [0, 0]
    assert first.keypoints[13].tolist() == [23, 46]
    margin = 0.1 * 26
    assert first.box == pytest.approx((10 - margin, 20 - margin, 14 + 2 * margin, 27 + 2 * margin))
    assert last.box == (30, 40, 1, 1)
    with pytest.raises(UserError, match="LSP Extended has no val split"):
        read_lsp(tmp_path, "val")


def test_files_in_coco_s_format_come_first(root: Path, tmp_path: Path) -> None:
    write_coco(tmp_path, 1)
    (tmp_path / "joints.mat").write_bytes((root / "joints.mat").read_bytes())
    assert len(read_lsp(tmp_path, "train").keypoints) == 17


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"looked for annotations/person_keypoints_train\.json, .*, joints\.mat"):
        read_lsp(tmp_path, "train")
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((4, 14, 2))})
    with pytest.raises(UserError, match=r"`joints` is \(4, 14, 2\): LSP's is \(3, 14, 2000\)"):
        read_lsp(tmp_path, "train")
    savemat(tmp_path / "joints.mat", {"joints": np.full((3, 14, 2), np.nan)})
    with pytest.raises(UserError, match="a labelled joint has no position"):
        read_lsp(tmp_path, "train")
    savemat(tmp_path / "joints.mat", {"joints": np.zeros((3, 14, 2))})
    with pytest.raises(UserError, match=r"im0001\.jpg: no such image.*1 of 1 are missing"):
        read_lsp(tmp_path, "train")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/im0001.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"im0001\.jpg: not an image"):
        read_lsp(tmp_path, "train")
    with pytest.raises(UserError, match="`split` is 'test': LSP has train, val"):
        read_lsp(tmp_path, "test")


def test_the_real_extension(shared_data: Path) -> None:
    """As many people and labelled joints as the data's description says; images, slow to unpack, are not looked at."""
    expected = {"person_keypoints_train.json": (8000, 98_629), "person_keypoints_val.json": (1000, 12_289)}
    found = {}
    with tarfile.open(shared_data / "lspet.tar.xz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".json") else None
            if file is not None:
                data = CocoPeople(json.load(file), lambda *_: np.zeros(0))
                assert data.keypoints == LSP_KEYPOINTS
                labelled = sum(int((person.visibility > 0).sum()) for person in data.people)
                found[Path(member.name).name] = len(data.people), labelled
    assert found == expected
