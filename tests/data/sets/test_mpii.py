from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.people_files import SIZE, write_mpii
from scipy.io import loadmat, savemat

from rpgmt.data.coco.skeletons import MPII_KEYPOINTS
from rpgmt.data.sets.mpii import read_mpii
from rpgmt.data.transforms import crop_affine, transform_points
from rpgmt.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mpii")
    write_mpii(folder, 4)
    return folder


@pytest.mark.parametrize(("split", "name"), [("train", "train"), ("val", "valid")])
def test_people_are_those_of_the_file_counted_from_zero(root: Path, split: str, name: str) -> None:
    entries = json.loads((root / f"annot/{name}.json").read_text())
    data = read_mpii(root, split)
    assert data.keypoints == MPII_KEYPOINTS
    labelled = [i for i, entry in enumerate(entries) if any(entry["joints_vis"])]
    assert [person.annotation_id - 1 for person in data.people] == labelled
    for person in data.people:
        entry = entries[person.annotation_id - 1]
        assert person.image["file_name"] == entry["image"]
        assert (person.image["width"], person.image["height"]) == (SIZE, SIZE)
        seen = np.array(entry["joints_vis"]) == 1
        np.testing.assert_array_equal(person.visibility, 2 * seen)
        np.testing.assert_allclose(person.keypoints[seen], np.array(entry["joints"])[seen] - 1, atol=1e-9)
        assert (person.keypoints[~seen] == 0).all()
        w, h = np.ptp(person.keypoints[seen], axis=0) + 1
        assert person.area == pytest.approx(0.53 * w * h)
    assert data.read_image(data.people[0].image).shape == (SIZE, SIZE, 3)


def test_the_crop_is_the_square_of_hrnet(root: Path) -> None:
    """HRNet: side 200 · 1.25 · scale round (x - 1, y + 15 · scale - 1); here the centre is the middle of the crop."""
    entries = json.loads((root / "annot/train.json").read_text())
    size = 64
    for person in read_mpii(root, "train").people:
        entry = entries[person.annotation_id - 1]
        centre = np.array(entry["center"]) + np.array([0, 15 * entry["scale"]]) - 1
        side = 200 * 1.25 * entry["scale"]
        affine = crop_affine(person.box, (size, size))
        offsets = np.array([(0, 0), (side / 2, 0), (-side / 2, -side / 2), (0.1 * side, 0.3 * side)])
        theirs = (offsets + side / 2) * size / side - 0.5  # edges of the square on the edges of the crop
        np.testing.assert_allclose(transform_points(affine, centre + offsets), theirs, atol=1e-9)


def test_head_sizes_are_the_published_evaluation_s(root: Path) -> None:
    boxes = loadmat(root / "annot/gt_valid.mat")["headboxes_src"]
    for i, annotation in enumerate(read_mpii(root, "val").annotations["annotations"]):
        (left, top), (right, bottom) = boxes[0, :, i], boxes[1, :, i]
        assert annotation["head_size"] == pytest.approx(0.6 * np.hypot(right - left, bottom - top))


def test_without_head_boxes_the_joints_give_the_head_size(tmp_path: Path) -> None:
    write_mpii(tmp_path, 2, heads=False)
    with pytest.warns(UserWarning, match=r"no annot/gt_valid\.mat .* other figures than the published"):
        data = read_mpii(tmp_path, "val")
    sized = 0
    for annotation in data.annotations["annotations"]:
        points = np.array(annotation["keypoints"]).reshape(16, 3)
        if points[8, 2] and points[9, 2]:
            assert annotation["head_size"] == pytest.approx(np.linalg.norm(points[8, :2] - points[9, :2]))
            sized += 1
        else:
            assert "head_size" not in annotation
    assert sized > 0


def test_the_truth_of_val_is_that_of_the_evaluation_file(tmp_path: Path) -> None:
    write_mpii(tmp_path, 1)
    path = tmp_path / "annot/gt_valid.mat"
    truth = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    truth["jnt_missing"][3, 0], truth["pos_gt_src"][3, :, 0] = 1, np.nan
    truth["jnt_missing"][4, 0], truth["pos_gt_src"][4, :, 0] = 0, (31, 42)
    savemat(path, truth)
    points = np.array(read_mpii(tmp_path, "val").annotations["annotations"][0]["keypoints"]).reshape(16, 3)
    assert points[3:5].tolist() == [[0, 0, 0], [30, 41, 2]]


@pytest.mark.parametrize("key", ["headboxes_src", "pos_gt_src"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_infinite_numbers_of_the_evaluation_file_are_an_error(tmp_path: Path, key: str, value: float) -> None:
    write_mpii(tmp_path, 2)
    path = tmp_path / "annot/gt_valid.mat"
    truth = {name: values for name, values in loadmat(path).items() if not name.startswith("__")}
    truth["jnt_missing"][:] = 0
    savemat(path, {**truth, key: np.where(np.indices(truth[key].shape)[-1] == 1, value, truth[key])})
    with pytest.raises(UserError, match=f"gt_valid.mat: `{key}` of person 1 is not finite: give the data set's own file"):
        read_mpii(tmp_path, "val")
    truth["headboxes_src"][:] = np.nan  # nobody's head is known, which is no error
    savemat(path, truth)
    assert all("head_size" not in entry for entry in read_mpii(tmp_path, "val").annotations["annotations"])


def test_mmpose_names_are_found(root: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").symlink_to(root / "images")
    (tmp_path / "annotations/mpii_val.json").write_bytes((root / "annot/valid.json").read_bytes())
    (tmp_path / "annotations/mpii_gt_val.mat").write_bytes((root / "annot/gt_valid.mat").read_bytes())
    assert read_mpii(tmp_path, "val").annotations == read_mpii(root, "val").annotations


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries.clear(), "not a list of people"),
        (lambda entries: entries.append(5), "is 5: give an object"),
        (lambda entries: entries[0].update(scale=0), "person 0: `scale` is 0: give"),
        (lambda entries: entries[0].update(center=[3]), r"person 0: `center` is \[3\]: give"),
        (lambda entries: entries[0].update(center=None), "person 0: `center` is None: give"),
        (lambda entries: entries[0].pop("joints"), "person 0: `joints` is missing: give 16 pairs"),
        (lambda entries: entries[0]["joints"].pop(), "person 0: `joints` is .*: give 16 pairs"),
        (lambda entries: entries[0].update(joints_vis="1"), "person 0: `joints_vis` is '1': give"),
        (lambda entries: entries[0].update(image="nowhere.jpg"), r"nowhere\.jpg: no such image.*1 of 2 are missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, change: object, message: str) -> None:
    write_mpii(tmp_path, 2)
    path = tmp_path / "annot/train.json"
    entries = json.loads(path.read_text())
    change(entries)  # type: ignore[operator]
    path.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=message) as caught:
        read_mpii(tmp_path, "train")
    assert "\n" not in str(caught.value)


def test_head_boxes_of_other_people_are_an_error(tmp_path: Path, root: Path) -> None:
    write_mpii(tmp_path, 1)
    (tmp_path / "annot/gt_valid.mat").write_bytes((root / "annot/gt_valid.mat").read_bytes())
    with pytest.raises(UserError, match=r"`headboxes_src` is \(2, 2, \d+\), not \(2, 2, \d+\) for the \d+ people"):
        read_mpii(tmp_path, "val")
    (tmp_path / "annot/gt_valid.mat").write_bytes(b"no such file")
    with pytest.raises(UserError, match="not a MATLAB file"):
        read_mpii(tmp_path, "val")
    savemat(tmp_path / "annot/gt_valid.mat", {"x": 1})
    with pytest.raises(UserError, match="no array of numbers `headboxes_src`"):
        read_mpii(tmp_path, "val")


def test_a_missing_split_or_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`split` is 'test': MPII has train, val, trainval"):
        read_mpii(tmp_path, "test")
    with pytest.raises(UserError, match=r"no annotation file of split 'val': looked for annot/valid\.json"):
        read_mpii(tmp_path, "val")
