from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers.people_files import write_coco
from pycocotools import mask as rle

from rpgmt.data.catalog import read_multitask_set
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.coco.person_masks import with_person_masks
from rpgmt.data.coco.skeletons import COCO_KEYPOINTS
from rpgmt.data.multitask_crops import MultiTaskCrops
from rpgmt.errors import UserError

HEIGHT, WIDTH = 8, 12
IMAGE = {"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}


def _square(left: float, top: float, right: float, bottom: float) -> list[float]:
    """Corners in COCO's polygons, where pixel x covers [x, x + 1]."""
    return [left, top, right, top, right, bottom, left, bottom]


def _person(number: int, **changes: object) -> dict:
    return {
        "id": number,
        "image_id": 5,
        "category_id": 1,
        "bbox": [1, 1, 4, 4],
        "area": 16.0,
        "iscrowd": 0,
        "keypoints": [2, 2, 2] + [0] * 48,
        **changes,
    }


def _people(*annotations: dict) -> CocoPeople:
    document = {
        "images": [IMAGE, {"id": 6}],
        "annotations": list(annotations),
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_KEYPOINTS.names)}, {"id": 2, "name": "dog"}],
    }
    return CocoPeople(document, lambda *_: np.zeros((HEIGHT, WIDTH, 3), np.uint8), name="few")


def _mask(*annotations: dict) -> np.ndarray:
    labelled = with_person_masks(_people(*annotations))
    return labelled.read_maps(IMAGE, ("segmentation",))["segmentation"]


def _expected(**areas: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), int)
    for name in ("unknown", "person", "other"):
        if name in areas:
            mask[areas[name]] = -1 if name == "unknown" else 1
    return mask


def test_polygons_of_all_persons() -> None:
    two_parts = [_square(1, 1, 3, 4), _square(6, 2, 8, 3)]
    mask = _mask(_person(1, segmentation=two_parts), _person(2, keypoints=[], segmentation=[_square(9, 5, 12, 8)]))
    expected = _expected(person=np.s_[1:4, 1:3], other=np.s_[2:3, 6:8])
    expected[5:8, 9:12] = 1
    np.testing.assert_array_equal(mask, expected)


def test_other_categories_do_not_count() -> None:
    dog = _person(2, category_id=2, segmentation="nothing that can be drawn")
    mask = _mask(_person(1, segmentation=[_square(1, 1, 3, 4)]), dog)
    np.testing.assert_array_equal(mask, _expected(person=np.s_[1:4, 1:3]))


def _runs(area: tuple[slice, slice]) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[area] = 1
    return rle.encode(mask)


@pytest.mark.parametrize("as_text", [True, False])
def test_run_lengths(as_text: bool) -> None:
    area = np.s_[2:5, 3:9]
    compressed = _runs(area)
    text = compressed["counts"].decode()
    # Columns lie one after another: before the first pixel, 3 columns and 2 pixels.
    counts = [3 * HEIGHT + 2, 3, *[HEIGHT - 3, 3] * 5, (WIDTH - 9) * HEIGHT + 3]
    segmentation = {"size": [HEIGHT, WIDTH], "counts": text if as_text else counts}
    np.testing.assert_array_equal(_mask(_person(1, segmentation=segmentation)), _expected(person=area))


def test_run_lengths_as_text_of_any_mask() -> None:
    """Encoded by COCO's own code."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = np.asfortranarray(np.sort(rng.random((HEIGHT, WIDTH)), axis=rng.integers(2)) > rng.random()).astype(np.uint8)
        segmentation = {"size": [HEIGHT, WIDTH], "counts": rle.encode(mask)["counts"].decode()}
        np.testing.assert_array_equal(_mask(_person(1, segmentation=segmentation)), mask)


def test_crowds_are_unknown_where_nobody_else_is() -> None:
    crowd = _person(2, iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": [2 * HEIGHT, 4 * HEIGHT, 6 * HEIGHT]})
    person = _person(1, segmentation=[_square(1, 1, 5, 4)])
    expected = _expected(unknown=np.s_[:, 2:6], person=np.s_[1:4, 1:5])
    np.testing.assert_array_equal(_mask(person, crowd), expected)
    np.testing.assert_array_equal(_mask(crowd, person), expected)


@pytest.mark.parametrize("segmentation", [{}, {"segmentation": None}, {"segmentation": []}])
def test_the_box_of_somebody_without_a_segment_is_unknown(segmentation: dict) -> None:
    person = _person(1, segmentation=[_square(1, 1, 4, 4)])
    other = _person(2, bbox=[2.5, 2, 20, 3], **segmentation)  # it sticks out of the image
    expected = _expected(unknown=np.s_[2:5, 2:], person=np.s_[1:4, 1:4])
    np.testing.assert_array_equal(_mask(person, other), expected)


def test_the_last_image_is_kept() -> None:
    labelled = with_person_masks(_people(_person(1, segmentation=[_square(1, 1, 4, 4)])))
    first = labelled.read_maps(IMAGE, ("segmentation",))["segmentation"]
    assert labelled.read_maps(IMAGE, ("segmentation",))["segmentation"] is first
    other = labelled.read_maps({**IMAGE, "id": 6, "width": 3}, ("segmentation",))["segmentation"]
    assert other.shape == (HEIGHT, 3)
    assert not other.any()
    again = labelled.read_maps(IMAGE, ("segmentation",))["segmentation"]
    np.testing.assert_array_equal(again, first)
    assert labelled.read_maps(IMAGE, ()) == {}


FILL = r"the `counts` of `segmentation` do not fill 12×8 pixels"


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], r"a polygon of `segmentation` is \[1, 2, 3, 4\]: give x, y of 3 or more corners"),
        ([[1, 2, 3, 4, 5, 6, 7]], "3 or more corners"),
        ([[1, 2, 3, 4, 5, float("nan")]], "3 or more corners"),
        ([1, 2, 3, 4, 5, 6], "a polygon of `segmentation` is 1"),
        ("abc", "`segmentation` is 'abc': give polygons, or run lengths"),
        (7, "`segmentation` is 7"),
        ({"counts": [96]}, "give polygons, or run lengths"),
        ({"size": [WIDTH, HEIGHT], "counts": [96]}, r"`segmentation` has size \[12, 8\]: its image's is \[8, 12\]"),
        ({"size": [HEIGHT, WIDTH], "counts": [95]}, FILL),
        ({"size": [HEIGHT, WIDTH], "counts": [100, -4]}, FILL),
        ({"size": [HEIGHT, WIDTH], "counts": [48.0, 48.0]}, FILL),
        ({"size": [HEIGHT, WIDTH], "counts": 96}, "the `counts` of `segmentation` are 96"),
        ({"size": [HEIGHT, WIDTH], "counts": ""}, "the `counts` of `segmentation` are ''"),
        ({"size": [HEIGHT, WIDTH], "counts": "garbage"}, FILL),
        ({"size": [HEIGHT, WIDTH], "counts": "日本"}, FILL),
        ({"size": [HEIGHT, WIDTH], "counts": "0"}, FILL),
    ],
)
def test_what_is_malformed_is_said_in_one_line(segmentation: object, message: str) -> None:
    with pytest.raises(UserError, match=r"few: annotation 3: .*" + message) as error:
        _mask(_person(1, segmentation=[_square(1, 1, 4, 4)]), _person(3, segmentation=segmentation))
    assert "\n" not in str(error.value)


def test_the_files_of_a_data_root(tmp_path: Path) -> None:
    write_coco(tmp_path, 2)
    path = tmp_path / "annotations/person_keypoints_train.json"
    document = json.loads(path.read_text())
    for person in document["annotations"]:
        x, y, w, h = person["bbox"]
        person["segmentation"] = [_square(x, y, x + w, y + h)]
    path.write_text(json.dumps(document))
    labelled = read_multitask_set("coco", tmp_path, "train")
    crops = pickle.loads(pickle.dumps(MultiTaskCrops(labelled, ("segmentation",), (48, 64))))
    for index, person in enumerate(labelled.people.people):
        sample = crops[0, index]
        assert sample["keypoints"].shape == (17, 2)
        x, y, w, h = (int(value) for value in person.box)
        assert (labelled.read_maps(person.image, ("segmentation",))["segmentation"][y : y + h, x : x + w] == 1).all()
        inside = sample["visibility"] == 2
        columns, rows = np.rint(sample["keypoints"][inside]).astype(int).T
        assert inside.any()
        assert (sample["segmentation"][rows, columns] == 1).all()
    others = read_multitask_set("coco", tmp_path, "val")
    assert (others.read_maps(labelled.people.people[0].image, ("segmentation",))["segmentation"] < 1).all()


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_people(shared_data: Path, split: str) -> None:
    """As many pixels as the annotations say, where a single person is alone in an image; near them otherwise."""
    labelled = read_multitask_set("coco", shared_data / "coco", split)
    assert isinstance(labelled.people, CocoPeople)
    images = {person.image["id"]: person.image for person in labelled.people.people}
    by_image: dict[int, list[dict]] = {number: [] for number in images}
    for annotation in labelled.people.annotations["annotations"]:
        if annotation["image_id"] in images:
            by_image[annotation["image_id"]].append(annotation)
    alone = 0
    for number, known in by_image.items():
        mask = labelled.read_maps(images[number], ("segmentation",))["segmentation"]
        assert mask.shape == (images[number]["height"], images[number]["width"])
        crowd = any(annotation["iscrowd"] for annotation in known)
        assert crowd or (mask >= 0).all()
        areas = [annotation["area"] for annotation in known if not annotation["iscrowd"]]
        found = int((mask == 1).sum())
        assert 0.95 * max(areas) <= found <= 1.05 * sum(areas) + 20
        if len(areas) == 1 and areas[0] > 500:
            alone += 1
            assert found == pytest.approx(areas[0], rel=0.02)
    assert alone > 0


FAR = [[0, 0, 3e7, 0, 3e7, 3e7], [0, 0, 0, 4e8, 5, 5], [-5e6, 1, 2, 2, 3, 3], [1, 1, 2, 999_999_999, 3, 3]]


@pytest.mark.parametrize("polygon", FAR)
def test_polygons_far_outside_are_refused_before_they_are_drawn(polygon: list[float]) -> None:
    with pytest.raises(UserError, match=r"annotation 3: a polygon of `segmentation` has a corner at .*, far outside its image"):
        _mask(_person(3, segmentation=[_square(1, 1, 4, 4), polygon]))


def test_an_outline_without_end_is_refused() -> None:
    scribble = [value for i in range(400) for value in ((-900, -900), (1000, 1000))[i % 2]]
    with pytest.raises(UserError, match=r"annotation 3: the outline of `segmentation` is 1.5e\+06 pixels long"):
        _mask(_person(3, segmentation=[scribble]))
    spiral = [value for i in range(20_000) for value in (i % 5, i % 7)]  # many corners, and short
    assert _mask(_person(3, segmentation=[spiral])).any()


def test_polygons_that_stick_out_are_drawn_as_ever() -> None:
    expected = _expected(person=np.s_[1:4, 1:])
    np.testing.assert_array_equal(_mask(_person(3, segmentation=[_square(1, 1, 200, 4)])), expected)


def test_a_number_without_end_in_run_lengths_is_refused_at_once() -> None:
    runs = {"size": [HEIGHT, WIDTH], "counts": "o" * 2_000_000}
    with pytest.raises(UserError, match=FILL):
        _mask(_person(3, segmentation=runs))


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (10**8, "is 100000000×8: segments are drawn in images of whole pixels, at most"),
        (10.5, "needs `width` and `height` in whole pixels: they are 10.5 and 8"),
    ],
)
def test_an_image_that_cannot_be_drawn_is_refused(width: float, words: str) -> None:
    document = _people(_person(3, segmentation=[_square(1, 1, 4, 4)])).annotations
    document["images"] = [{**IMAGE, "width": width}]
    with pytest.raises(UserError, match=f"few: image 5 {words}"):
        with_person_masks(CocoPeople(document, lambda *_: np.zeros(0), name="few"))
