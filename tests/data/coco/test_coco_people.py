from __future__ import annotations

import copy
import json
import math
import time
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from rpgmt.config.json_files import read_json
from rpgmt.data.coco.annotations import person_annotations
from rpgmt.data.coco.data_root import find_files
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS, DEFAULT_SIGMA
from rpgmt.errors import UserError

NAMES = ["left_eye", "right_eye", "tail"]


def _document() -> dict:
    """Two images; somebody to train on in each, and everybody whom COCO's rules leave out."""

    def annotation(number: int, image: int, **changes: object) -> dict:
        points = [3, 4, 2, 5, 4, 1, 0, 0, 0]
        return {
            "id": number,
            "image_id": image,
            "category_id": 7,
            "bbox": [1.0, 2.0, 8.0, 6.0],
            "area": 25.0,
            "iscrowd": 0,
            "num_keypoints": 2,
            "keypoints": points,
            **changes,
        }

    return {
        "images": [
            {"id": 900000000001, "file_name": "a.png", "width": 16, "height": 12},
            {"id": -3, "file_name": "b.png", "width": 20, "height": 10},
        ],
        "categories": [
            {"id": 2, "name": "car"},
            {"id": 7, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 2], [2, 3]]},
        ],
        "annotations": [
            annotation(11, 900000000001),
            annotation(12, 900000000001, iscrowd=1),
            annotation(13, -3, num_keypoints=0, keypoints=[0] * 9),
            annotation(14, -3, bbox=[-4.0, 5.0, 50.0, 50.0]),
            annotation(15, -3, category_id=2),
        ],
    }


def _no_image(image: dict) -> np.ndarray:
    raise AssertionError(image)


def _people(document: dict) -> CocoPeople:
    with pytest.warns(UserWarning, match="no OKS sigma for tail"):
        return CocoPeople(document, _no_image, name="cats")


def _write(root: Path, document: dict, file: str = "person_keypoints_train.json", folder: str = "images") -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(document))
    (root / folder).mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(document["images"]):
        pixels = np.full((image["height"], image["width"], 3), (10 + number, 20, 30), dtype=np.uint8)
        cv2.imwrite(str(root / folder / image["file_name"]), pixels[..., ::-1])


def test_people_are_those_whom_coco_trains_on() -> None:
    document = _document()
    before = copy.deepcopy(document)
    data = _people(document)
    assert [person.annotation_id for person in data.people] == [11, 14]
    assert [person.image["id"] for person in data.people] == [900000000001, -3]
    assert data.people[1].box == (0.0, 5.0, 20.0, 5.0)  # clipped to 20×10
    np.testing.assert_array_equal(data.people[0].keypoints, [[3, 4], [5, 4], [0, 0]])
    np.testing.assert_array_equal(data.people[0].visibility, [2, 1, 0])
    assert (data.category_id, data.boxes) == (7, "gt boxes")
    assert data.annotations is document
    assert document == before


def test_key_points_come_from_the_category() -> None:
    keypoints = _people(_document()).keypoints
    assert keypoints.names == tuple(NAMES)
    assert keypoints.skeleton == ((0, 1), (1, 2))
    assert keypoints.flip_pairs == ((0, 1),)
    assert keypoints.sigmas == (0.025, 0.025, DEFAULT_SIGMA)


def test_coco_names_give_coco_key_points(shared_data: Path) -> None:
    document = json.loads((shared_data / "coco/person_keypoints_val.json").read_text())
    assert CocoPeople(document, _no_image).keypoints == COCO_KEYPOINTS


def test_what_coco_lets_one_leave_out_is_filled_in() -> None:
    document = _document()
    for key in ("iscrowd", "num_keypoints"):
        del document["annotations"][0][key]
    for key in ("iscrowd", "num_keypoints", "area", "keypoints"):
        del document["annotations"][2][key]
    labelled, _, empty, _ = person_annotations(document)
    assert (labelled["iscrowd"], labelled["num_keypoints"], labelled["area"]) == (0, 2, 25.0)
    assert (empty["iscrowd"], empty["num_keypoints"], empty["area"]) == (0, 0, 48.0)
    document["annotations"][0]["num_keypoints"] = 0  # a wrong count is counted anew
    document["annotations"][2]["num_keypoints"] = 17
    assert [annotation["num_keypoints"] for annotation in person_annotations(document)] == [2, 2, 0, 2]
    assert empty["keypoints"] == [0] * 9


def _first(**changes: object) -> object:
    def change(document: dict) -> None:
        document["annotations"][0].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("images"), "needs a list `images`"),
        (lambda d: d.update(annotations=[]), "the list `annotations` is empty"),
        (lambda d: d["annotations"].append(5), "every entry of `annotations` is to be an object with an `id`"),
        (lambda d: d["categories"].pop(), "one category with a list `keypoints` .* found: none"),
        (
            lambda d: d["categories"][0].update(keypoints=["wheel"]),
            "categories car and cat have other key points: choose by --categories",
        ),
        (lambda d: d["categories"][1].pop("id"), "every entry of `categories` is to be an object with an `id`"),
        (lambda d: d["images"][0].update(id=[1]), r"an `id` in `images` is \[1\]: give an integer or a string"),
        (lambda d: d["annotations"][0].update(id=[1]), r"an `id` in `annotations` is \[1\]: give an integer"),
        (lambda d: d["annotations"][1].update(id=11), "two entries of `annotations` have the `id` 11"),
        (lambda d: d["images"][1].update(id=900000000001), "two entries of `images` have the `id` 900000000001"),
        (lambda d: d["categories"][1].update(keypoints="left_eye"), "category 7: `keypoints` is to be a list of names"),
        (lambda d: d["categories"][1].update(keypoints=[1, 2, 3]), "category 7: `keypoints` is to be a list of names"),
        (lambda d: d["categories"][1].update(keypoints=["a", "b", "a"]), "category 7: `keypoints` has 'a' twice"),
        (lambda d: d["categories"][1].update(skeleton=[[1]]), r"category 7: `skeleton` is \[\[1\]\]: give pairs"),
        (lambda d: d["images"][0].update(width="wide"), "image 900000000001 needs `width` and `height`"),
        (lambda d: d["images"][0].update(height=0), "image 900000000001 needs `width` and `height`"),
        (lambda d: d["images"][0].pop("width"), "image 900000000001 needs `width` and `height`"),
        (_first(image_id=5), "annotation 11: `image_id` is 5, which is not in `images`"),
        (_first(image_id=[5]), r"annotation 11: `image_id` is \[5\], which is not in `images`"),
        (
            _first(keypoints=[1, 2, -1, 3, 4, 2, 0, 0, 0]),
            "annotation 11: v of a key point is -1: give 0 not labelled, 1 hidden",
        ),
        (_first(keypoints=[1, 2, 0.5, 3, 4, 2, 0, 0, 0]), "annotation 11: v of a key point is 0.5: give 0 not labelled"),
        (_first(keypoints=[1, math.nan, 2, 3, 4, 2, 0, 0, 0]), "annotation 11: `keypoints` holds nan: give numbers, x, y, v"),
        (_first(iscrowd=None), "annotation 11: `iscrowd` is None: give 0 or 1"),
        (_first(area="large"), "annotation 11: `area` is 'large': give"),
        (_first(bbox=None), "annotation 11: `bbox` is None: give"),
        (_first(bbox=[0, 0, float("nan"), 5]), "annotation 11: `bbox` is .*nan"),
        (_first(keypoints=[1, 2, 2]), "annotation 11: `keypoints` is to be 9 numbers.*3 names; there are 3"),
        (_first(keypoints="left"), "annotation 11: `keypoints` is to be 9 numbers"),
        (_first(area=0), "annotation 11: `area` is 0: give the segment's area.*0.53"),
        (lambda d: d["annotations"][0].pop("area"), "annotation 11: `area` is missing: give"),
        (lambda d: d.update(annotations=d["annotations"][1:3]), "nobody to train on or evaluate"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no OKS sigma:UserWarning")  # comes before the error in some cases
def test_what_is_wrong_is_said_in_one_line(change: object, message: str) -> None:
    document = _document()
    change(document)  # type: ignore[operator]
    with pytest.raises(ValueError, match=f"^cats: .*{message}") as caught:
        CocoPeople(document, _no_image, name="cats")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("document", [[], "x", None, 3])
def test_a_document_that_is_no_object_is_an_error(document: object) -> None:
    with pytest.raises(ValueError, match="the top level is to be an object"):
        CocoPeople(document, _no_image)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*no OKS sigma:UserWarning")  # looked at above
def test_people_without_a_box_in_the_image_are_left_out_with_a_warning() -> None:
    document = _document()
    document["annotations"][0]["bbox"] = [30, 2, 5, 5]
    with pytest.warns(UserWarning, match="1 people are left out"):
        data = CocoPeople(document, _no_image)
    assert [person.annotation_id for person in data.people] == [14]


@pytest.mark.filterwarnings("ignore:.*no OKS sigma:UserWarning")  # looked at above
@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("person_keypoints_train.json", "images"),
        ("annotations/person_keypoints_train.json", "images/train"),
        ("annotations/person_keypoints_train2017.json", "train2017"),
        ("annotations/person_keypoints_train2017.json", "images/train2017"),
    ],
)
def test_files_are_found_and_read(tmp_path: Path, file: str, folder: str) -> None:
    _write(tmp_path, _document(), file, folder)
    json_path, image_dir = find_files(tmp_path, "train")
    assert (json_path, image_dir) == (tmp_path / file, tmp_path / folder)
    data = CocoPeople.from_files(json_path, image_dir)
    image = data.read_image(data.people[1].image)
    assert (image.dtype, image.shape) == (np.uint8, (10, 20, 3))
    assert (image == (11, 20, 30)).all()  # red first


def test_a_missing_root_file_or_image_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such data root: give"):
        find_files(tmp_path / "nowhere", "train")
    with pytest.raises(UserError, match="no annotation file of split 'val': looked for annotations/person"):
        find_files(tmp_path, "val")
    _write(tmp_path, _document())
    (tmp_path / "images/b.png").unlink()
    with (
        pytest.warns(UserWarning, match="no OKS sigma"),
        pytest.raises(UserError, match=r"b\.png: no such image, named in .*\(1 of 2 are missing\)"),
    ):
        CocoPeople.from_files(*find_files(tmp_path, "train"))
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(UserError, match=r"image a\.png of .* is missing: looked in images/train, images, "):
        find_files(tmp_path, "train")
    with pytest.raises(UserError, match="no such annotation file"):
        CocoPeople.from_files(tmp_path / "x.json", tmp_path)
    with pytest.raises(UserError, match="no such folder of images"):
        CocoPeople.from_files(tmp_path / "person_keypoints_train.json", tmp_path / "nowhere")


@pytest.mark.filterwarnings("ignore:.*no OKS sigma:UserWarning")  # looked at above
def test_names_with_the_folder_are_found_below_the_root(tmp_path: Path) -> None:
    _write(tmp_path, _document())
    document = _document()
    for image in document["images"]:
        image["file_name"] = f"images/{image['file_name']}"
    (tmp_path / "person_keypoints_train.json").write_text(json.dumps(document), encoding="utf-8-sig")
    data = CocoPeople.from_files(*find_files(tmp_path, "train"))
    assert data.image_dir == tmp_path
    assert data.read_image(data.people[1].image).shape == (10, 20, 3)


@pytest.mark.filterwarnings("ignore:.*no OKS sigma:UserWarning")  # looked at above
def test_missing_images_that_nobody_is_on_are_counted_and_found_out_with_detections(tmp_path: Path) -> None:
    _write(tmp_path, _document())
    document = _document()
    extra = [{"id": number, "file_name": f"gone{number}.png", "width": 9, "height": 9} for number in (1, 2)]
    document["images"] = [*extra, *document["images"]]
    (tmp_path / "person_keypoints_train.json").write_text(json.dumps(document))
    with pytest.warns(UserWarning, match=r"2 of 2 images without labelled people are missing, e\.g\. .*images/gone1\.png"):
        data = CocoPeople.from_files(*find_files(tmp_path, "train"))
    assert len(data.people) == 2
    (tmp_path / "boxes.json").write_text(json.dumps([{"image_id": 2, "category_id": 7, "bbox": [1, 1, 5, 5], "score": 1}]))
    with pytest.raises(UserError, match=r"gone2\.png: no such image, named in"):
        data.with_detections(tmp_path / "boxes.json")


def test_many_people_are_read_in_seconds_and_little_memory(tmp_path: Path) -> None:
    """Half a millisecond and 10 KB a person: 200,000 take 100 s at most on a busy machine, a tenth on an idle one, and 2 GB."""
    random, count, few = np.random.default_rng(0), 3000, 500
    points = np.concatenate([random.integers(0, 99, (count, 17, 2)), random.integers(0, 3, (count, 17, 1))], axis=2)
    document = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 100} for number in range(count // 4)],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS.names)}],
        "annotations": [
            {"id": number, "image_id": number // 4, "category_id": 1, "bbox": [0, 0, 99, 99], "area": 5.0, "iscrowd": 0}
            | {"keypoints": flat}
            for number, flat in enumerate(points.reshape(count, -1).tolist())
        ],
    }
    path = tmp_path / "many.json"
    path.write_text(json.dumps(document))
    start = time.process_time()
    assert len(CocoPeople(read_json(path), _no_image).people) == count
    assert time.process_time() - start < count * 0.5e-3
    path.write_text(json.dumps({**document, "annotations": document["annotations"][:few]}))
    tracemalloc.start()
    try:
        CocoPeople(read_json(path), _no_image)
        assert tracemalloc.get_traced_memory()[1] < few * 10_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), (" \n", "is empty"), ("{", "not JSON"), ("[]", "top level"), ('{"images": []}', "empty")],
)
def test_an_empty_or_malformed_file_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "person_keypoints_train.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"person_keypoints_train.json: .*{message}"):
        find_files(tmp_path, "train")
    with pytest.raises(ValueError, match=f"person_keypoints_train.json: .*{message}"):
        CocoPeople.from_files(path, tmp_path)


def test_a_broken_image_name_is_said(tmp_path: Path) -> None:
    path = tmp_path / "person_keypoints_train.json"
    path.write_text('{"images": [{"id": 1, "file_name": "a\\x.jpg"}]}')
    with pytest.raises(UserError, match="not JSON"):
        find_files(tmp_path, "train")


def test_a_file_that_is_not_text_is_said(tmp_path: Path) -> None:
    path = tmp_path / "person_keypoints_train.json"
    path.write_bytes(b"\x1f\x8b\xff\x00")
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        find_files(tmp_path, "train")
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        CocoPeople.from_files(path, tmp_path)


@pytest.mark.filterwarnings("ignore:.*no OKS sigma:UserWarning")  # looked at above
def test_an_image_that_is_not_the_annotated_one_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path, _document())
    data = CocoPeople.from_files(*find_files(tmp_path, "train"))
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((24, 32, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: the image is 32×24 and its annotations are for 16×12"):
        data.read_image(data.people[0].image)
    (tmp_path / "images/a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.png: not an image"):
        data.read_image(data.people[0].image)


@pytest.mark.filterwarnings("ignore:.*no OKS sigma:UserWarning")  # looked at above
def test_boxes_may_stay_as_they_are() -> None:
    people = CocoPeople(_document(), _no_image, clip=False).people
    assert people[1].box == (-4.0, 5.0, 50.0, 50.0)


@pytest.mark.filterwarnings("ignore:.*no OKS sigma:UserWarning")  # looked at above
def test_an_image_may_be_read_smaller(tmp_path: Path) -> None:
    _write(tmp_path, _document())
    cv2.imwrite(str(tmp_path / "images/b.jpg"), np.full((10, 20, 3), 100, dtype=np.uint8))
    data = CocoPeople.from_files(*find_files(tmp_path, "train"))
    entry = {**data.people[1].image, "file_name": "b.jpg"}
    assert data.read_image(entry, 2).shape == (5, 10, 3)


@pytest.mark.parametrize(("split", "images", "people"), [("train", 67, 198), ("val", 4, 12)])
def test_real_coco(shared_data: Path, split: str, images: int, people: int) -> None:
    data = CocoPeople.from_files(*find_files(shared_data / "coco", split))
    assert len(data.annotations["images"]) == images
    assert len(data.people) == people
    person = data.people[0]
    assert data.read_image(person.image).shape == (person.image["height"], person.image["width"], 3)
