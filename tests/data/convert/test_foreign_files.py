"""Files as the formats' own documentation has them, made by hand: what is read of them, and what is said of broken ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.damage import damaged
from helpers.labelled_set import random_document, write_set

from rpgmt.data.convert import cvat, deeplabcut, label_studio, sleap, yolo
from rpgmt.data.convert.conversion import convert
from rpgmt.data.convert.labels import Part
from rpgmt.errors import UserError


def image(path: Path, width: int = 100, height: int = 50) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def points_of(part: Part) -> list[list[float]]:
    return [entry["keypoints"] for entry in part.annotations]


# YOLO: docs.ultralytics.com, "Pose Estimation Datasets Overview"


def write_yolo(root: Path, settings: str, label: str) -> None:
    image(root / "images/train/a.jpg")
    image(root / "images/val/b.jpg")
    (root / "labels/train").mkdir(parents=True, exist_ok=True)
    (root / "labels/train/a.txt").write_text(label)
    (root / "data.yaml").write_text(settings)


YOLO = "path: ../datasets/mine\ntrain: images/train\nval: images/val\ntest:\n"


def test_yolo_without_names(tmp_path: Path) -> None:
    settings = f"{YOLO}kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\nnames:\n  0: tiger\n"
    write_yolo(tmp_path, settings, "0 0.5 0.5 0.2 0.4 0.5 0.5 2 0.25 0.1 1 0 0 0\n\n")
    notes: list[str] = []
    train, val = yolo.read(tmp_path, None, notes)
    assert (train.split, val.split) == ("train", "val")
    assert train.categories[0] == {
        "id": 1,
        "name": "tiger",
        "keypoints": ["point_1", "point_2", "point_3"],
        "flip_pairs": [["point_2", "point_3"]],
    }
    assert train.annotations[0]["bbox"] == [40, 15, 20, 20]
    assert points_of(train) == [[50, 25, 2, 25, 5, 1, 0, 0, 0]]
    assert val.annotations == []  # an image without a file of labels has nobody on it
    assert any("kpt_names" in note for note in notes)


def test_yolo_without_v_and_with_names_of_points(tmp_path: Path) -> None:
    settings = (
        f"{YOLO}kpt_shape: [2, 2]\nnames: [cat, dog]\nkpt_names:\n  0: [left_ear, right_ear]\n  1: [left_paw, right_paw]\n"
    )
    write_yolo(tmp_path, settings, "1 0.5 0.5 1 1 0 0 0.5 1\n")
    train, _ = yolo.read(tmp_path / "data.yaml", None, [])
    assert points_of(train) == [[0, 0, 0, 50, 50, 2]]
    assert train.annotations[0]["category_id"] == 2
    assert [entry["keypoints"][0] for entry in train.categories] == ["left_ear", "left_paw"]


def test_two_kinds_of_animals_are_one_too_many_to_train_on(tmp_path: Path) -> None:
    settings = f"{YOLO}kpt_shape: [1, 3]\nflip_idx: [0]\nnames: [cat, dog]\n"
    write_yolo(tmp_path / "source", settings, "1 0.5 0.5 1 1 0.5 0.5 2\n0 0.5 0.5 1 1 0.25 0.5 2\n")
    source, options = tmp_path / "source", {"origin": "yolo-pose", "target": "coco"}
    with pytest.raises(UserError, match=r"cat, dog.*--category NAME"):
        convert(source, tmp_path / "out", **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"'cow'.*cat, dog"):
        convert(source, tmp_path / "out", category="cow", **options)  # type: ignore[arg-type]
    done = convert(source, tmp_path / "out", category="dog", **options)  # type: ignore[arg-type]
    assert points_of(done.parts[0]) == [[50, 25, 2]]


@pytest.mark.parametrize(
    ("settings", "label", "message"),
    [
        ("names: [a]\n", "", "`kpt_shape` is None"),
        ("kpt_shape: [1, 4]\nnames: [a]\n", "", r"`kpt_shape` is \[1, 4\]"),
        ("kpt_shape: [1, 3]\nnames: 5\n", "", "`names` is 5"),
        ("kpt_shape: [1, 3]\nnames: [a]\nflip_idx: [1]\n", "", r"`flip_idx` is \[1\]"),
        ("kpt_shape: [2, 3]\nnames: [a]\nkpt_names: {0: [x, x]}\n", "", "`kpt_names` of class 0"),
        ("kpt_shape: [1, 3]\nnames: [a]\n", "0 0.5 0.5 1 1 0.5 0.5", "a.txt, line 1: 7 numbers"),
        ("kpt_shape: [1, 3]\nnames: [a]\n", "\n0 0.5 0.5 1 x 0.5 0.5 2", "a.txt, line 2"),
        ("kpt_shape: [1, 3]\nnames: [a]\n", "3 0.5 0.5 1 1 0.5 0.5 2", "line 1: class 3"),
        ("kpt_shape: [1, 3]\nnames: [a]\n", "0 0.5 0.5 1 1 0.5 0.5 0.7", "v of a key point is 0.7"),
        ("kpt_shape: [1, 3]\nnames: [a]\n", "0 0.5 nan 1 1 0.5 0.5 2", "a.txt, line 1"),
    ],
)
def test_broken_yolo(tmp_path: Path, settings: str, label: str, message: str) -> None:
    write_yolo(tmp_path, YOLO + settings, label)
    with pytest.raises(UserError, match=message) as error:
        yolo.read(tmp_path, None, [])
    assert "\n" not in str(error.value)


# Label Studio: labelstud.io, "Label Studio JSON format of annotated tasks"


def region(kind: str, label: str, number: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    common = {"original_width": 100, "original_height": 50, "image_rotation": 0, "from_name": "x", "to_name": "image"}
    return {**common, "id": number, "type": kind, "value": {**value, kind: [label]}, **more}


def rectangle(number: str, x: float, y: float, width: float, height: float, **more: Any) -> dict[str, Any]:
    return region("rectanglelabels", "cat", number, {"x": x, "y": y, "width": width, "height": height, "rotation": 0, **more})


def key_point(label: str, number: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    return region("keypointlabels", label, number, {"x": x, "y": y, "width": 0.3}, **more)


def write_tasks(root: Path, *results: list[dict[str, Any]], name: str = "/data/upload/1/0a1b2c3d-cat.jpg") -> Path:
    image(root / "images/cat.jpg")
    tasks = [{"id": 5, "data": {"image": name}, "annotations": [{"id": 1, "result": result}]} for result in results]
    path = root / "export.json"
    path.write_text(json.dumps(tasks))
    return path


def test_label_studio_by_parent_by_relation_and_by_place(tmp_path: Path) -> None:
    result = [
        key_point("nose", "p1", 5, 10, parentID="b"),  # lies in the first rectangle, and belongs to the second
        key_point("tail", "p2", 90, 90),
        {"type": "relation", "from_id": "p2", "to_id": "a", "direction": "right"},
        key_point("nose", "p3", 1, 1),
        {**key_point("nose", "p3", 1, 1), "type": "choices", "value": {"x": 1, "y": 1, "width": 0.3, "choices": ["Hidden"]}},
        rectangle("a", 0, 0, 20, 40),
        rectangle("b", 50, 50, 50, 50),
    ]
    (part,) = label_studio.read(write_tasks(tmp_path, result), None, [])
    assert part.categories[0]["keypoints"] == ["nose", "tail"]
    assert part.categories[0]["name"] == "cat"
    assert [entry["bbox"] for entry in part.annotations] == [[0, 0, 20, 20], [50, 25, 50, 25]]
    assert points_of(part) == [[1, 0.5, 1, 90, 45, 2], [5, 5, 2, 0, 0, 0]]
    assert part.images[0]["file_name"] == "cat.jpg"


def test_label_studio_without_rectangles(tmp_path: Path) -> None:
    notes: list[str] = []
    path = write_tasks(tmp_path, [key_point("nose", "p1", 50, 50), key_point("tail", "p2", 60, 50)], name="s3://bucket/cat.jpg")
    (part,) = label_studio.read(path, None, notes)
    assert points_of(part) == [[50, 25, 2, 60, 25, 2]]
    assert part.annotations[0]["bbox"] == [46, 21, 19, 9]  # 4 pixels on each side
    assert any("without a rectangle" in note for note in notes)


def test_a_turned_rectangle_becomes_the_one_around_it(tmp_path: Path) -> None:
    path = write_tasks(tmp_path, [rectangle("a", 50, 40, 10, 40, rotation=90), key_point("nose", "p", 35, 45)])
    (part,) = label_studio.read(path, None, [])
    assert part.annotations[0]["bbox"] == [30, 20, 20, 10]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([rectangle("a", 0, 0, 50, 50), key_point("nose", "p", 90, 90)], "task 5.*nose.*in no rectangle"),
        ([rectangle("a", 0, 0, 50, 50), rectangle("b", 0, 0, 60, 60), key_point("nose", "p", 5, 5)], "in several rectangles"),
        ([key_point("nose", "p", 1, 1), key_point("nose", "q", 2, 2)], "two key points nose"),
        ([rectangle("a", 0, 0, 50, 50)], "keypointlabels"),
        ([region("keypointlabels", "nose", "p", {"x": 1})], "region p: x, y"),
    ],
)
def test_broken_label_studio(tmp_path: Path, result: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        label_studio.read(write_tasks(tmp_path, result), None, [])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"id": 1}]', '[{"id": 1, "data": {"image": "a"}}]', "[{", ""])
def test_other_json_is_no_label_studio(tmp_path: Path, text: str) -> None:
    (tmp_path / "tasks.json").write_text(text)
    with pytest.raises(UserError, match=r"tasks\.json"):
        label_studio.read(tmp_path, None, [])


# CVAT: docs.cvat.ai, "XML annotation format"

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>4</id><size>2</size><mode>annotation</mode><labels>
    <label><name>cat</name><color>#c06060</color><type>skeleton</type><attributes></attributes>
      <svg>&lt;line x1="1" y1="2" x2="3" y2="4" stroke="black" data-type="edge" data-node-from="2" stroke-width="0.5"
        data-node-to="1"&gt;&lt;/line&gt;&lt;circle r="1.5" data-type="element node" data-element-id="1" data-node-id="1"
        data-label-name="tail"&gt;&lt;/circle&gt;</svg></label>
    <label><name>tail</name><type>points</type><attributes></attributes><parent>cat</parent></label>
    <label><name>nose</name><type>points</type><attributes></attributes><parent>cat</parent></label>
  </labels></task></meta>
  <image id="0" name="cat.jpg" subset="Train" width="100" height="50">
    <skeleton label="cat" source="manual" z_order="0">
      <points label="nose" source="manual" outside="0" occluded="1" points="20.50,10.25"></points>
      <points label="tail" source="manual" outside="1" occluded="0" points="30.00,12.00"></points>
    </skeleton>
    <box label="animal" source="manual" occluded="0" xtl="0.00" ytl="0.00" xbr="90.00" ybr="40.00" z_order="0"></box>
    <box label="animal" source="manual" occluded="0" xtl="10.00" ytl="5.00" xbr="50.00" ybr="25.00" z_order="0"></box>
    <tag label="good" source="manual"></tag>
  </image>
</annotations>
"""


def test_cvat_skeletons_and_the_smallest_box_around(tmp_path: Path) -> None:
    image(tmp_path / "images/Train/cat.jpg")
    (tmp_path / "annotations.xml").write_text(CVAT)
    (part,) = cvat.read(tmp_path, None, [])
    assert part.split == "train"
    assert part.categories == [{"id": 1, "name": "cat", "keypoints": ["tail", "nose"], "skeleton": [[2, 1]]}]
    assert points_of(part) == [[0, 0, 0, 20.5, 10.25, 1]]
    assert part.annotations[0]["bbox"] == [10, 5, 40, 20]


def test_cvat_points_without_skeletons(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    head = '<annotations><image id="0" name="a.jpg" width="100" height="50">'
    shapes = '<points label="wheel" points="1,2;30,4" occluded="0"/><points label="wheel" points="5,6;7,8" occluded="1"/>'
    (tmp_path / "annotations.xml").write_text(f"{head}{shapes}</image></annotations>")
    notes: list[str] = []
    (part,) = cvat.read(tmp_path, None, notes)
    assert part.categories[0]["keypoints"] == ["point_1", "point_2"]
    assert points_of(part) == [[1, 2, 2, 30, 4, 2], [5, 6, 1, 7, 8, 1]]
    assert any("without a box" in note for note in notes)
    single = "".join(
        f'<points label="{name}" points="{x},5" occluded="0" group_id="{group}"/>'
        for name, x, group in (("nose", 1, 1), ("tail", 2, 1), ("nose", 3, 2))
    )
    (tmp_path / "annotations.xml").write_text(f"{head}{single}</image></annotations>")
    (part,) = cvat.read(tmp_path, None, [])
    assert points_of(part) == [[1, 5, 2, 2, 5, 2], [3, 5, 2, 0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not XML"),
        ("<a/>", "outermost element is a"),
        ('<annotations><track id="0"/></annotations>', "of a video"),
        ("<annotations/>", "neither skeletons nor points"),
        (CVAT.replace("20.50,10.25", "20.50"), r"image cat.jpg: points nose are '20.50'"),
        (CVAT.replace('xtl="10.00"', 'xtl="left"'), "`xtl` of box is 'left'"),
        (CVAT.replace('width="100"', ""), "`width` of image"),
        (CVAT.replace('name="cat.jpg"', 'name="dog.jpg"'), r"dog.jpg is missing \(1 are\).*--images"),
    ],
)
def test_broken_cvat(tmp_path: Path, text: str, message: str) -> None:
    image(tmp_path / "images/cat.jpg")
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        cvat.read(tmp_path, None, [])
    assert "\n" not in str(error.value)


# DeepLabCut: deeplabcut.github.io


def test_deeplabcut_of_one_animal_with_the_image_in_one_column(tmp_path: Path) -> None:
    folder = tmp_path / "labeled-data/reach"
    image(folder / "img1.png")
    image(folder / "img2.png")
    (tmp_path / "config.yaml").write_text("Task: reach\nskeleton:\n- - hand\n  - elbow\n- - hand\n  - unknown\n")
    (folder / "CollectedData_jane.csv").write_text(
        "scorer,jane,jane,jane,jane\nbodyparts,hand,hand,elbow,elbow\ncoords,x,y,x,y\n"
        "labeled-data/reach/img1.png,10.5,20.25,,\nlabeled-data\\reach\\img2.png,nan,,30,10\n"
    )
    notes: list[str] = []
    (part,) = deeplabcut.read(tmp_path, None, notes)
    assert part.categories == [{"id": 1, "name": "animal", "keypoints": ["hand", "elbow"], "skeleton": [[1, 2]]}]
    assert points_of(part) == [[10.5, 20.25, 2, 0, 0, 0], [0, 0, 0, 30, 10, 2]]
    assert part.annotations[0]["bbox"] == [6.5, 16.25, 9, 9]
    assert [entry["file_name"] for entry in part.images] == ["reach/img1.png", "reach/img2.png"]
    assert any("no boxes" in note for note in notes)


def test_deeplabcut_of_several_animals(tmp_path: Path) -> None:
    folder = tmp_path / "labeled-data/pups"
    image(folder / "img1.png")
    (folder / "CollectedData_jane.csv").write_text(
        "scorer,,,jane,jane,jane,jane,jane,jane,jane,jane\nindividuals,,,pup1,pup1,pup1,pup1,pup2,pup2,single,single\n"
        "bodyparts,,,snout,snout,tail,tail,snout,snout,nest,nest\ncoords,,,x,y,x,y,x,y,x,y\n"
        "labeled-data,pups,img1.png,1,2,3,4,5,6,7,8\n"
    )
    (part,) = deeplabcut.read(folder / "CollectedData_jane.csv", None, [])
    assert [entry["keypoints"] for entry in part.categories] == [["snout", "tail"], ["nest"]]
    assert points_of(part) == [[1, 2, 2, 3, 4, 2], [5, 6, 2, 0, 0, 0], [7, 8, 2]]
    assert [entry["category_id"] for entry in part.annotations] == [1, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no lines `bodyparts` and `coords`"),
        ("scorer,j,j,j\nbodyparts,a,a,a\ncoords,x,y,likelihood\n0,1,2,.5\n", "predictions on a video"),
        ("scorer,j,j\nbodyparts,a,a\ncoords,x,x\nimg1.png,1,2\n", "each once"),
        ("scorer,j,j\nbodyparts,a,a\ncoords,x,y\nimg1.png,1\n", "line 4: 2 cells"),
        ("scorer,j,j\nbodyparts,a,a\ncoords,x,y\nimg1.png,1,left\n", "line 4: 'left' is no coordinate"),
        ("scorer,j,j\nbodyparts,a,a\ncoords,x,y\nimg7.png,1,2\n", r"img7.png is missing"),
    ],
)
def test_broken_deeplabcut(tmp_path: Path, text: str, message: str) -> None:
    image(tmp_path / "labeled-data/v/img1.png")
    path = tmp_path / "labeled-data/v/CollectedData_j.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        deeplabcut.read(tmp_path, None, [])
    assert "\n" not in str(error.value)


# SLEAP: sleap-io's dictionary of labels


def labels(video: Any, frames: list[dict[str, Any]]) -> dict[str, Any]:
    skeleton = {"name": "fly", "nodes": ["head", "wing_R", "wing_L"], "edges": [[0, 1], [0, 2]], "symmetries": [[1, 2]]}
    return {
        "version": "1.0.0",
        "skeletons": [skeleton],
        "videos": [{"filename": video}],
        "tracks": [],
        "labeled_frames": frames,
    }


def instance(*places: tuple[float, float, bool], kind: str = "instance") -> dict[str, Any]:
    return {
        "type": kind,
        "skeleton_idx": 0,
        "points": [{"x": x, "y": y, "visible": visible, "complete": False} for x, y, visible in places],
    }


NAN = float("nan")


def test_sleap_of_images(tmp_path: Path) -> None:
    image(tmp_path / "fly.png")
    found = instance((10, 20, True), (30, 5, False), (NAN, NAN, False))
    guess = instance((1, 1, True), (1, 1, True), (1, 1, True), kind="predicted_instance")
    frames = [{"frame_idx": 0, "video_idx": 0, "instances": [found, guess]}]
    (tmp_path / "labels.json").write_text(json.dumps(labels(["C:\\flies\\fly.png"], frames)))
    notes: list[str] = []
    (part,) = sleap.read(tmp_path / "labels.json", None, notes)
    assert points_of(part) == [[10, 20, 2, 30, 5, 1, 0, 0, 0]]
    (category,) = part.categories
    assert category["skeleton"] == [[1, 2], [1, 3]]
    assert category["flip_pairs"] == [["wing_L", "wing_R"]]
    assert any("1 predicted" in note for note in notes)


def test_sleap_of_a_video(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "fly.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(6):
        writer.write(np.full((48, 64, 3), 40 * number, np.uint8))
    writer.release()
    one = instance((1, 1, True), (2, 2, True), (3, 3, True))
    frames = [{"frame_idx": number, "video_idx": 0, "instances": [one]} for number in (4, 1)]
    (tmp_path / "labels.json").write_text(json.dumps(labels("fly.avi", frames)))
    (part,) = sleap.read(tmp_path / "labels.json", None, [])
    greys = [cv2.imread(str(part.files[entry["id"]])).mean() for entry in part.images]
    np.testing.assert_allclose(greys, [160, 40], atol=3)
    frames[0]["frame_idx"] = 9
    (tmp_path / "labels.json").write_text(json.dumps(labels("fly.avi", frames)))
    with pytest.raises(UserError, match="ends before frame 9"):
        sleap.read(tmp_path / "labels.json", None, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "it needs the lists"),
        (json.dumps(labels(["a.png"], [{"frame_idx": 0, "video_idx": 3, "instances": []}])), "beyond the 1 videos"),
        (json.dumps(labels(["a.png"], [{"frame_idx": 2, "video_idx": 0, "instances": []}])), "beyond the 1 images"),
        (json.dumps(labels(["a.png"], [{"frame_idx": 0, "video_idx": 0, "instances": [instance((1, 1, True))]}])), "1 points"),
        (json.dumps(labels(["a.png"], [{"frame_idx": 0}])), "KeyError"),
        (json.dumps(labels(["a.png"], [{"frame_idx": 0, "video_idx": 0, "instances": []}])), "a.png is missing"),
        (json.dumps(labels("a.mp4", [{"frame_idx": 0, "video_idx": 0, "instances": []}])), "a.mp4 is missing"),
    ],
)
def test_broken_sleap(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        sleap.read(tmp_path / "labels.json", None, [])
    assert "\n" not in str(error.value)


DOCUMENTS = {"coco": "annotations/person_keypoints_train.json", "label-studio": "tasks.json", "sleap": "train.json"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_of_damaged_documents_something_is_read_or_said(tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(0)
    write_set(tmp_path / "source", {split: random_document(random, 2, least=1) for split in ("train", "val")})
    convert(tmp_path / "source", tmp_path / "set", origin="coco", target=name)
    path = tmp_path / "set" / DOCUMENTS[name]
    document, said = json.loads(path.read_text()), []
    for seed in range(40):
        path.write_text(json.dumps(damaged(document, seed)))
        try:
            convert(tmp_path / "set", tmp_path / f"out{seed}", origin=name, target="coco", link=True)
        except UserError as error:
            said.append(str(error))
    assert 0 < len(said) < 40
    assert not any("\n" in line for line in said)


def test_slp_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sleap_io", None)
    (tmp_path / "labels.slp").write_bytes(b"\x89HDF")
    with pytest.raises(UserError, match="pip install sleap-io"):
        sleap.read(tmp_path / "labels.slp", None, [])


def test_an_image_of_which_there_are_two_is_asked_for(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        image(tmp_path / folder / "cat.jpg")
    result = [key_point("nose", "p1", 50, 50)]
    path = write_tasks(tmp_path, result, name="http://else.where/x/cat.jpg")
    (tmp_path / "images/cat.jpg").unlink()
    with pytest.raises(UserError, match=r"may be .*--images"):
        label_studio.read(path, None, [])
    (part,) = label_studio.read(path, tmp_path / "b", [])
    assert part.files == {1: tmp_path / "b/cat.jpg"}


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "export.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="unpack it"):
        convert(tmp_path / "export.zip", tmp_path / "out", origin="cvat", target="coco")
