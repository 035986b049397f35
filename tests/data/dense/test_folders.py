from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from rpgmt.config.validation import from_dict
from rpgmt.config.yaml_files import to_dict
from rpgmt.data.augmentation import Augmentation
from rpgmt.data.catalog import read_multitask_set
from rpgmt.data.dense.dataset_yaml import ClassFile, FolderSet, MapFiles
from rpgmt.data.dense.folders import read_folders
from rpgmt.data.dense.label_files import LabelFiles
from rpgmt.data.dense.label_map_files import as_depth, as_normals
from rpgmt.data.multitask_crops import MultiTaskCrops
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.errors import ConfigError, UserError
from rpgmt.synthetic.body import PARTS
from rpgmt.synthetic.cache import load
from rpgmt.synthetic.files import write_split
from rpgmt.synthetic.labels import SWAPS, synthetic_labels

HEIGHT, WIDTH = 6, 9
LACKING = pytest.mark.filterwarnings("ignore:.*images without a label")
"""Sets of two images where one label is enough."""

SCENES = f"""
images: images/{{split}}
keypoints: annotations/person_keypoints_{{split}}.json
maps:
  segmentation:
    folder: masks/{{split}}
    kind: classes
    classes: [background, person]
    instances: true
  parts:
    folder: parts/{{split}}
    kind: parts
    classes: [{", ".join(PARTS)}]
    swaps: [{", ".join(f"[{PARTS[left]}, {PARTS[right]}]" for left, right in SWAPS)}]
  depth: {{folder: "depth/{{split}}", kind: depth}}
  normals: {{folder: "normals/{{split}}", kind: normals}}
"""


def test_the_synthetic_people_in_files_are_those_in_memory(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_split(tmp_path, split, count=3, size=48, seed=4, processes=1, progress=False)
    (tmp_path / "dataset.yaml").write_text(SCENES)
    augment = Augmentation(flip=0.5, scale=0.3, rotation=30, shift=0.1)
    for split in ("train", "val"):
        scenes = load(tmp_path, count=3, size=48, seed=4, split=split, dense=True, processes=1, progress=False)
        expected, found = synthetic_labels(scenes, "scenes"), read_multitask_set("folders", tmp_path, split)
        assert found.maps == expected.maps
        wanted, crops = (MultiTaskCrops(each, list(each.maps), (36, 48), augment=augment) for each in (expected, found))
        crops = pickle.loads(pickle.dumps(crops))
        assert len(crops) == len(wanted) >= 3
        for epoch in range(3):
            for index in range(len(crops)):
                sample, other = crops[epoch, index], wanted[epoch, index]
                assert sample.keys() == other.keys() >= {"image", "keypoints", "visibility", *expected.maps}
                for key, value in other.items():
                    if key == "normals":  # they are brought to unit length once more
                        np.testing.assert_allclose(sample[key], value, atol=1e-6)
                    else:
                        np.testing.assert_array_equal(sample[key], value)


def _write(root: Path, description: dict[str, Any], count: int = 2) -> Path:
    """Images a0.jpg, a1.jpg … below images/train and the description."""
    (root / "images/train").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(root / f"images/train/a{number}.jpg"), np.full((HEIGHT, WIDTH, 3), 50 * number, np.uint8))
    path = root / "set.yaml"
    path.write_text(yaml.safe_dump({"images": "images/{split}", **description}))
    return path


def _png(root: Path, name: str, values: np.ndarray, palette: bool = False) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette(list(range(255, -1, -1)) * 3)  # colours that are not the indices
    image.save(root / name)


def _npy(root: Path, name: str, values: np.ndarray) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(root / name, values)


def _read(root: Path, files: dict[str, Any], index: int = 0) -> np.ndarray:
    """The map `m` of an image, of a set with this map alone."""
    labelled = read_folders(_write(root, {"maps": {"m": {"folder": "m", **files}}}), "train")
    return labelled.read_maps(_entries(labelled)[index], ("m",))["m"]


def _entries(labelled: MultiTaskSet) -> list[dict]:
    return [region.image for region in labelled.regions.regions]


CLASSES = {"kind": "classes", "classes": ["sky", "grass", "dog"]}
NUMBERS = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 3


def test_depth_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, {"maps": {"depth": {"folder": "depth/{split}", "kind": "depth"}}})
    for number in range(2):
        _npy(tmp_path, f"depth/train/a{number}.npy", np.full((HEIGHT, WIDTH), -1.0))
    with pytest.raises(UserError, match=r"maps, depth: .*train: no depth in any of 2 files"):
        read_folders(path, "train")


def test_a_table_of_classes_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    path = _write(tmp_path / "set", {"classes": {"scene": {"file": "scenes.csv", "classes": ["indoor", "outdoor"]}}})
    (tmp_path / "table.csv").write_text("image,class\na0,indoor\n")
    (tmp_path / "set/scenes.csv").symlink_to(tmp_path / "table.csv")
    with pytest.raises(UserError, match="leads out of"):
        read_folders(path, "train")


def test_images_alone(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "images/train/notes.txt").write_text("no image")
    (tmp_path / "images/train/._a0.jpg").write_text("of a Mac")
    with pytest.warns(UserWarning, match=r"images/train: 1 files or folders are passed over, e\.g\. notes\.txt"):
        labelled = read_folders(_write(tmp_path, {}, count=3), "train")
    assert [entry["file_name"] for entry in _entries(labelled)] == ["a0.jpg", "a1.jpg", "a2.jpg"]
    assert labelled.people is None
    assert labelled.name == f"{tmp_path / 'set.yaml'} (train)"
    sample = MultiTaskCrops(labelled, (), (WIDTH, HEIGHT))[0, 1]
    assert abs(sample["image"].astype(int) - 50).max() <= 1
    assert list(sample) == ["image", "to_image", "index"]


@LACKING
@pytest.mark.parametrize("form", ["8 bits", "16 bits", "palette", "npy", "float npy"])
def test_classes(tmp_path: Path, form: str) -> None:
    values = NUMBERS.copy()
    values[0, 0] = 255
    if form == "16 bits":
        _png(tmp_path, "m/a0.png", values.astype(np.uint16))
    elif "npy" in form:
        _npy(tmp_path, "m/a0.npy", values.astype(float if "float" in form else np.int32))
    else:
        _png(tmp_path, "m/a0.png", values, palette=form == "palette")
    found = _read(tmp_path, {**CLASSES, "ignore": 255})
    assert found[0, 0] == -1
    values[0, 0] = found[0, 0] = 0
    np.testing.assert_array_equal(found, values)


@LACKING
def test_minus_one_is_always_ignored_and_npy_comes_first(tmp_path: Path) -> None:
    _png(tmp_path, "m/a0.png", NUMBERS)
    _npy(tmp_path, "m/a0.npy", NUMBERS.astype(int) - 1)
    with pytest.warns(UserWarning, match="no dog in the masks that were looked at, 1 of 1: they hold -1, 0, 1, of which -1 is"):
        np.testing.assert_array_equal(_read(tmp_path, CLASSES), NUMBERS.astype(int) - 1)
    with pytest.warns(UserWarning, match="no sky, dog in the masks"):
        found = _read(tmp_path, {**CLASSES, "ignore": 0})
    np.testing.assert_array_equal(found, np.where(NUMBERS == 1, -1, NUMBERS.astype(int) - 1))


@LACKING
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_instances(tmp_path: Path, dtype: type) -> None:
    _png(tmp_path, "m/a0.png", NUMBERS.astype(dtype))
    files = {"kind": "classes", "classes": ["background", "person"], "instances": True}
    np.testing.assert_array_equal(_read(tmp_path, files), NUMBERS > 0)
    if dtype is not bool:
        expected = np.where(NUMBERS == 2, -1, NUMBERS.astype(int))
        np.testing.assert_array_equal(_read(tmp_path, {**files, "ignore": 2}), expected)


def test_depth(tmp_path: Path) -> None:
    steps = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 100
    _png(tmp_path, "m/a0.png", steps)
    _npy(tmp_path, "m/a1.npy", steps.astype(np.float32)[..., None])
    for index in (0, 1):
        found = _read(tmp_path, {"kind": "depth", "unit": 0.001}, index)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, steps / 1000, rtol=1e-6)
    np.testing.assert_array_equal(_read(tmp_path, {"kind": "depth"}), steps)


def test_normals(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(HEIGHT, WIDTH, 3))
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    normals[0, 0] = 0
    _npy(tmp_path, "m/a0.npy", normals.astype(np.float32))
    colours = np.rint((normals + 1) / 2 * 255).astype(np.uint8)
    colours[0, 1] = 0  # black
    _png(tmp_path, "m/a1.png", colours)
    np.testing.assert_allclose(_read(tmp_path, {"kind": "normals"}), normals, atol=1e-6)
    graphics = _read(tmp_path, {"kind": "normals", "negate": ["y", "z"]})
    np.testing.assert_allclose(graphics, normals * [1, -1, -1], atol=1e-6)
    decoded = _read(tmp_path, {"kind": "normals"}, 1)
    assert not decoded[0, :2].any()
    decoded[0, 1] = normals[0, 1]
    np.testing.assert_allclose(decoded, normals, atol=0.01)
    known = np.linalg.norm(decoded, axis=2)[np.any(decoded != 0, axis=2)]
    np.testing.assert_allclose(known, 1, atol=1e-6)


@LACKING
def test_missing_files_are_missing_labels(tmp_path: Path) -> None:
    _png(tmp_path, "m/a1.png", NUMBERS)
    labelled = read_folders(_write(tmp_path, {"maps": {"m": {"folder": "m", **CLASSES}}}), "train")
    crops = MultiTaskCrops(labelled, ("m",), (WIDTH, HEIGHT))
    assert (crops[0, 0]["m"] == -1).all()
    np.testing.assert_array_equal(crops[0, 1]["m"], NUMBERS)


@LACKING
def test_labels_of_whole_images(tmp_path: Path) -> None:
    scene = {"scene": {"file": "scenes_{split}.csv", "classes": ["indoor", "outdoor"]}}
    path = _write(tmp_path, {"classes": scene}, count=3)
    (tmp_path / "scenes_train.csv").write_text("class,image\noutdoor,a0.jpg\nindoor,a2\ncity,of another set\n")
    with pytest.warns(UserWarning, match=r"scenes_train\.csv: 1 of 3 rows name none of the 3 images in .*line 4, 'of another"):
        labelled = read_folders(path, "train")
    assert labelled.classes == {"scene": ("indoor", "outdoor")}
    crops = MultiTaskCrops(labelled, ("scene",), (WIDTH, HEIGHT))
    assert [crops[0, index]["scene"] for index in range(3)] == [1, -1, 0]


def test_rows_find_images_under_other_spellings_where_one_is_meant(tmp_path: Path) -> None:
    (tmp_path / "images/train").mkdir(parents=True)
    for name in ("B.jpg", "c.png", "d.jpg", "D.png", "e.jpg"):
        cv2.imwrite(str(tmp_path / "images/train" / name), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    scene = {"scene": {"file": "scenes_{split}.csv", "classes": ["in", "out"]}}
    path = _write(tmp_path, {"classes": scene}, count=1)
    rows = ["A0.PNG,out", "../b.jpg,out", "images/train/c,in", "D.PNG,out", "d.bmp,in", "images\\val\\e.jpg,in"]
    (tmp_path / "scenes_train.csv").write_text("image,class\n" + "\n".join(rows), encoding="utf-8-sig")
    # Nobody knows which of d.jpg and D.png is meant by d.bmp; images of another split are others.
    with (
        pytest.warns(UserWarning, match=r"images without a label: scene 2 of 6, e\.g\. d\.jpg"),
        pytest.warns(UserWarning, match=r"2 of 6 rows name none of the 6 images in .*, e\.g\. line 6, 'd\.bmp'"),
    ):
        labelled = read_folders(path, "train")
    found = [labelled.read_classes(entry) for entry in _entries(labelled)]
    files = [entry["file_name"] for entry in _entries(labelled)]
    assert dict(zip(files, found, strict=True)) == {
        "a0.jpg": {"scene": 1},
        "B.jpg": {"scene": 1},
        "c.png": {"scene": 0},
        "d.jpg": {},
        "D.png": {"scene": 1},
        "e.jpg": {},
    }


WRONG_SETS: list[tuple[Any, str]] = [
    ({"image": "x"}, r"set\.yaml: `image` is not a key of the config: did you mean `images`\?"),
    ({"images": 3}, r"set\.yaml: `images` is 3: must be text"),
    ({"images": "pictures/{split}"}, r"set\.yaml: images: .*pictures/train: no such folder of images"),
    ({"keypoints": "points.json"}, r"set\.yaml: keypoints: .*points\.json: no such annotation file"),
    ({"maps": ["depth"]}, r"`maps` is \['depth'\]: give a name for each and what it is"),
    ({"maps": {"my depth": {}}}, "`maps` has the name 'my depth': use letters, digits and _"),
    ({"maps": {"depth": "depth"}}, "maps, depth: the config is 'depth': must be a mapping"),
    ({"maps": {"depth": {"folder": "m"}}}, "maps, depth: `kind` is missing: must be one of classes, parts, depth, normals"),
    ({"maps": {"depth": {"folder": "m", "kind": "height"}}}, "maps, depth: `kind` is 'height': must be one of"),
    ({"maps": {"depth": {"folder": "m", "kind": "depth", "unit": 0}}}, "maps, depth: `unit` is 0: must be above 0"),
    ({"maps": {"depth": {"folder": "m", "kind": "depth", "units": 1}}}, "`units` is not a key .*did you mean `unit`"),
    (
        {"maps": {"m": {"folder": "m", "kind": "classes", "classes": ["a"], "unit": 2.0}}},
        "`unit` has no meaning for kind classes",
    ),
    ({"maps": {"m": {"folder": "m", "kind": "depth", "ignore": 2}}}, "`ignore` has no meaning for kind depth: leave it out"),
    ({"maps": {"m": {"folder": "m", "kind": "classes"}}}, r"maps, m: `classes` is \[\]: give different names"),
    ({"maps": {"m": {"folder": "m", "kind": "classes", "classes": ["a", "a"]}}}, "give different names"),
    ({"maps": {"m": {"folder": "m", **CLASSES, "instances": True}}}, "`classes` has 3 names: with `instances` give two"),
    (
        {"maps": {"m": {"folder": "m", "kind": "parts", "classes": ["a"], "swaps": [["a", "b"]]}}},
        "`swaps` names 'b', which is not in `classes`",
    ),
    (
        {"maps": {"m": {"folder": "m", "kind": "parts", "classes": ["a", "b", "c"], "swaps": [["a", "b"], ["b", "c"]]}}},
        "`swaps` names 'b' twice: a class has one mirror image",
    ),
    ({"images": "images/train"}, "`images` is 'images/train' for training and validation alike: write {split} where"),
    ({"maps": {"m": {"folder": "m", "kind": "normals", "negate": ["w"]}}}, r"`negate` is \['w'\]: must be .* x, y, z"),
    ({"maps": {"image": {"folder": "m", "kind": "depth"}}}, "`image` is the name of a label: give it another than image, key"),
    (
        {"maps": {"m": {"folder": "m", "kind": "depth"}}, "classes": {"m": {"file": "c", "classes": ["a"]}}},
        "`m` is in `maps` and in `classes`",
    ),
    (
        {"maps": {"m": {"folder": "m", "kind": "depth"}}},
        r"m: no label m for any of .*images/train's images: looked for a0\.npy, a0\.p",
    ),
    ({"classes": {"c": {"file": "c.csv", "classes": []}}}, r"classes, c: `classes` is \[\]"),
    ({"classes": {"c": {"file": "c.csv", "classes": ["a"]}}}, r"c\.csv: No such file"),
    ({"keypoints": "people.json"}, r"people\.json: no such annotation file"),
]


@pytest.mark.parametrize(("description", "message"), WRONG_SETS)
def test_what_is_wrong_in_the_description(tmp_path: Path, description: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_folders(_write(tmp_path, description), "train")
    assert "\n" not in str(error.value)


def test_a_description_made_in_python_is_checked_too() -> None:
    depth = MapFiles(folder="depth/{split}", kind="depth", unit=0.001)
    made = FolderSet(images="{split}", maps={"depth": depth})
    assert made == from_dict(FolderSet, {"images": "{split}", "maps": {"depth": to_dict(depth)}})
    with pytest.raises(ConfigError, match=r"^`unit` is 0: must be above 0$"):
        MapFiles(folder="m", kind="depth", unit=0)
    with pytest.raises(ConfigError, match=r"^`depth` is in `maps` and in `classes`"):
        FolderSet(images="{split}", maps={"depth": depth}, classes={"depth": ClassFile(file="c", classes=("a",))})


def test_a_description_that_is_missing_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.yaml: No such file"):
        read_multitask_set("folders", tmp_path, "train")
    (tmp_path / "dataset.yaml").write_text("maps: {depth: {folder: depth/{split}, kind: depth}}")
    with pytest.raises(UserError, match=r"dataset\.yaml, line 1: not YAML"):
        read_multitask_set("folders", tmp_path, "train")
    (tmp_path / "dataset.yaml").write_text("maps: {}")
    with pytest.raises(UserError, match=r"dataset\.yaml: `images` is missing"):
        read_multitask_set("folders", tmp_path, "train")


WRONG_ROWS = [
    ("image,kind\na0,x\n", r"c\.csv: no column `class`: the first line is to be image,class"),
    ("", "no column `class`"),
    ("image,class\na0,z\n", r"c\.csv, line 2: class 'z' is none of x, y"),
    ("image,class\na0\n", r"line 2: class None is none of x, y"),
    ("image,class\na0,x\na0.jpg,y\n", r"line 3: image a0\.jpg stands twice"),
    ("image,class\nb,x\n", r"names none of the images: give their files' names, e\.g\. a0\.jpg"),
    ("image,class\na0,\xff", "not a text file in UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_ROWS)
def test_what_is_wrong_in_a_csv_file(tmp_path: Path, text: str, message: str) -> None:
    path = _write(tmp_path, {"classes": {"c": {"file": "c.csv", "classes": ["x", "y"]}}})
    (tmp_path / "c.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message) as error:
        read_folders(path, "train")
    assert "\n" not in str(error.value)


@LACKING
def test_what_is_wrong_in_a_file_of_labels(tmp_path: Path) -> None:
    advice = "name all of them in `classes`, or give `ignore` the number of pixels without a label"
    _png(tmp_path, "m/a0.png", NUMBERS + 1)
    with pytest.raises(UserError, match=rf"m/a0\.png: holds class 3, and there are 3, 0 to 2: {advice}"):
        _read(tmp_path, CLASSES)
    _png(tmp_path, "m/a0.png", NUMBERS[1:])
    with pytest.raises(UserError, match=r"m/a0\.png: the map is 5×9 and is to be 6×9"):
        _read(tmp_path, CLASSES)
    _png(tmp_path, "m/a0.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(UserError, match=r"m/a0\.png: an image of colours \(RGB\): give numbers, as grey or with a palette"):
        _read(tmp_path, CLASSES)
    _png(tmp_path, "m/a0.png", NUMBERS)
    with pytest.raises(UserError, match=r"m/a0\.png: the map is 6×9 and is to be 6×9×3"):
        _read(tmp_path, {"kind": "normals"})
    whole = (tmp_path / "m/a0.png").read_bytes()
    for data in (b"", b"no image", whole[:50], whole[:-30]):
        (tmp_path / "m/a0.png").write_bytes(data)
        with pytest.raises(UserError, match=r"m/a0\.png: not an image that can be read"):
            _read(tmp_path, CLASSES)
    _npy(tmp_path, "m/a0.npy", np.full((HEIGHT, WIDTH), np.nan))
    instances = {"kind": "classes", "classes": ["background", "person"], "instances": True}
    for files in ({"kind": "depth"}, CLASSES, instances):
        with pytest.raises(UserError, match=r"m/a0\.npy: holds nan"):
            _read(tmp_path, files)
    _npy(tmp_path, "m/a0.npy", np.full((HEIGHT, WIDTH), -3))
    with pytest.raises(UserError, match=r"m/a0\.npy: holds class -3"):
        _read(tmp_path, instances)


def test_images_of_one_name_or_none(tmp_path: Path) -> None:
    path = _write(tmp_path, {})
    cv2.imwrite(str(tmp_path / "images/train/a1.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(UserError, match=r"a1\.jpg and a1\.png have one name"):
        read_folders(path, "train")
    for image in (tmp_path / "images/train").iterdir():
        image.unlink()
    with pytest.raises(UserError, match=r"images/train: holds no image: looked for \.bmp"):
        read_folders(path, "train")
    (tmp_path / "images/train/a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a\.png: not an image that can be read"):
        read_folders(path, "train")


def test_numbers_that_a_label_cannot_be() -> None:
    with pytest.raises(UserError, match=r"normals of whole numbers \(uint8\): give floats"):
        as_normals(np.full((2, 2, 3), 200, np.uint8), (2, 2), Path("n.npy"))
    with pytest.raises(UserError, match=r"holds 1e\+39, which is no depth in metres"):
        as_depth(np.full((2, 2), 1e39), (2, 2), Path("d.npy"))
    long = as_normals(np.full((2, 2, 3), 1e25), (2, 2), Path("n.npy"))
    np.testing.assert_allclose(long, 3**-0.5, rtol=1e-6)


# ---- masks that are not what the description says


PERSON = {"kind": "classes", "classes": ["background", "person"]}
BINARY = np.where(NUMBERS == 2, 255, 0).astype(np.uint8)


@LACKING
def test_a_class_that_no_mask_has_is_noted_with_the_numbers_that_are_there(tmp_path: Path) -> None:
    """0/255 masks whose 255 is said to be no label, which would measure a perfect background."""
    _png(tmp_path, "m/a0.png", BINARY)
    _png(tmp_path, "m/a1.png", BINARY)
    text = "m: no person in the masks that were looked at, 2 of 2: they hold 0, 255, of which 255 is `ignore`"
    with pytest.warns(UserWarning, match=f"{text}; if that is the second class, give `instances: true` in place of `ignore`"):
        _read(tmp_path, {**PERSON, "ignore": 255})
    np.testing.assert_array_equal(_read(tmp_path, {**PERSON, "instances": True}), NUMBERS == 2)
    with pytest.raises(UserError, match=r"holds class 255, and there are 2, 0 to 1: .* or `instances: true` where any number"):
        _read(tmp_path, PERSON)
    for name in ("m/a0.png", "m/a1.png"):
        _png(tmp_path, name, np.full_like(BINARY, 255))
    with pytest.raises(UserError, match="m: no class at all in the masks that were looked at, 2 of 2: they hold 255, of"):
        _read(tmp_path, {**PERSON, "ignore": 255})


def test_of_many_masks_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpgmt.data.dense.label_files.LOOKED_AT", 3)
    path = _write(tmp_path, {"maps": {"m": {"folder": "m", **CLASSES}}}, count=6)
    for number in range(6):
        _png(tmp_path, f"m/a{number}.png", np.minimum(NUMBERS, 1 + (number == 5)))
    with pytest.warns(UserWarning, match="m: no dog in the masks that were looked at, 3 of 6: they hold 0, 1$"):
        read_folders(path, "train")
    _png(tmp_path, "m/a4.png", NUMBERS)
    read_folders(path, "train")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_masks_of_colours_are_refused_and_those_with_one_bit_are_read(tmp_path: Path, mode: str) -> None:
    for name in ("m/a0.png", "m/a1.png"):
        _png(tmp_path, name, NUMBERS)
        Image.open(tmp_path / name).convert(mode).save(tmp_path / name)
    with pytest.raises(UserError, match=rf"a0\.png: an image of colours \({mode}\): give numbers, as grey or with a palette"):
        _read(tmp_path, CLASSES)
    for name in ("m/a0.png", "m/a1.png"):
        Image.fromarray(BINARY).convert("1").save(tmp_path / name)
    np.testing.assert_array_equal(_read(tmp_path, PERSON), NUMBERS == 2)
    Image.fromarray(NUMBERS).save(tmp_path / "m/a0.png", format="JPEG")
    with pytest.raises(UserError, match=r"a0\.png: not an image that can be read as PNG"):
        _read(tmp_path, CLASSES)


def test_names_in_capitals_are_found_and_what_lacks_a_label_is_said_once(tmp_path: Path) -> None:
    scene = {"scene": {"file": "scenes.csv", "classes": ["in", "out"]}}
    path = _write(tmp_path, {"maps": {"m": {"folder": "m", **CLASSES}}, "classes": scene}, count=5)
    for name in ("a0.PNG", "a1.png", "a2.Png"):
        _png(tmp_path, f"m/{name.lower()}", NUMBERS)
        (tmp_path / "m" / name.lower()).rename(tmp_path / "m" / name)
    (tmp_path / "scenes.csv").write_text("image,class\na0.JPG,in\n./a1.jpg,out\na2.png,in\na3,out\nanother,in\n")
    with pytest.warns(UserWarning, match="without a label") as notes:
        labelled = read_folders(path, "train")
    text = r"set.yaml (train): images without a label: m 2 of 5, e.g. a3.jpg; scene 1 of 5, e.g. a4.jpg"
    assert [str(note.message) for note in notes] == [f"{tmp_path}/{text}"]
    crops = MultiTaskCrops(labelled, ("m", "scene"), (WIDTH, HEIGHT))
    samples = [crops[0, index] for index in range(5)]
    assert [(sample["m"] >= 0).all() for sample in samples] == [True, True, True, False, False]
    assert [sample["scene"] for sample in samples] == [0, 1, 0, 1, -1]
    _png(tmp_path, "m/a0.png", NUMBERS)
    with pytest.raises(UserError, match=r"m: a0\.PNG and a0\.png are labels of one image: keep one of them"):
        read_folders(path, "train")
    (tmp_path / "m/a0.PNG").unlink()
    (tmp_path / "scenes.csv").write_text("image,class\na0.jpg,in\n")
    with (
        pytest.warns(UserWarning, match=r"scenes\.csv: no image of out"),
        pytest.warns(UserWarning, match=r"scene 4 of 5, e\.g\. a1\.jpg"),
    ):
        read_folders(path, "train")


def test_a_mask_of_another_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    _png(tmp_path, "m/a0.png", NUMBERS)
    data = bytearray((tmp_path / "m/a0.png").read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    (tmp_path / "m/a0.png").write_bytes(data)
    labels = LabelFiles(tmp_path, MapFiles(folder="m", kind="depth"), {})
    with pytest.raises(UserError, match=r"a0\.png: the map is 60000×60000 and is to be 6×9"):
        labels.read(tmp_path / "m/a0.png", (HEIGHT, WIDTH))
