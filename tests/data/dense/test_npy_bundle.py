from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rpgmt.data.catalog import read_multitask_set
from rpgmt.data.dense.cityscapes import CITYSCAPES_GROUPS, read_cityscapes
from rpgmt.data.dense.nyuv2 import NYUV2_CLASSES, read_nyuv2
from rpgmt.data.multitask_crops import MultiTaskCrops
from rpgmt.data.multitask_set import MultiTaskSet
from rpgmt.errors import UserError

HEIGHT, WIDTH = 6, 8
NUMBERS = (0, 2, 10)  # with gaps, and in another order as text


def _arrays(number: int, classes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    normals = rng.normal(size=(HEIGHT, WIDTH, 3))
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    normals[0, 0] = 0
    normals[0, 1] = np.array([1, -1, 0]) / np.sqrt(2)  # valid, though its components add up to 0
    depth = rng.uniform(0.5, 5, (HEIGHT, WIDTH, 1))
    depth[1, 2] = 0
    return {
        "image": rng.integers(0, 256, (HEIGHT, WIDTH, 3)) / 255,
        "label": rng.integers(-1, classes, (HEIGHT, WIDTH)).astype(float),
        "depth": depth,
        "normal": normals,
    }


def _write(root: Path, classes: int = 13, kinds: tuple[str, ...] = ("image", "label", "depth", "normal")) -> None:
    for split in ("train", "val"):
        for kind in kinds:
            (root / split / kind).mkdir(parents=True)
            for number in NUMBERS:
                np.save(root / split / kind / f"{number}.npy", _arrays(number, classes)[kind])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    _write(tmp_path)
    return tmp_path


def _entries(labelled: MultiTaskSet) -> list[dict]:
    return [region.image for region in labelled.regions.regions]


def test_nyuv2(root: Path) -> None:
    labelled = read_nyuv2(root, "val")
    assert labelled.name == f"NYUv2 ({root}, val)"
    assert [entry["file_name"] for entry in _entries(labelled)] == ["0.npy", "2.npy", "10.npy"]
    assert {name: kind.kind for name, kind in labelled.maps.items()} == {
        "segmentation": "classes",
        "depth": "depth",
        "normals": "normals",
    }
    assert labelled.maps["segmentation"].classes == NYUV2_CLASSES
    assert (len(NYUV2_CLASSES), NYUV2_CLASSES[0], NYUV2_CLASSES[12]) == (13, "bed", "window")
    assert not labelled.maps["depth"].inverse
    for number, entry in zip(NUMBERS, _entries(labelled), strict=True):
        arrays = _arrays(number, 13)
        image = labelled.regions.read_image(entry)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, np.rint(arrays["image"] * 255))
        maps = labelled.read_maps(entry, ("segmentation", "depth", "normals"))
        np.testing.assert_array_equal(maps["segmentation"], arrays["label"])
        np.testing.assert_array_equal(maps["depth"], arrays["depth"][..., 0].astype(np.float32))
        np.testing.assert_allclose(maps["normals"], arrays["normal"], atol=1e-6)
        assert maps["normals"][0, 1].any()
        assert list(labelled.read_maps(entry, ("depth",))) == ["depth"]


def test_cityscapes(tmp_path: Path) -> None:
    _write(tmp_path, 7, ("image", "label", "depth"))
    labelled = read_cityscapes(tmp_path, "train")
    assert list(labelled.maps) == ["segmentation", "depth"]
    assert labelled.maps["segmentation"].classes == CITYSCAPES_GROUPS
    assert len(CITYSCAPES_GROUPS) == 7
    assert labelled.maps["depth"].inverse  # so that an enlarged crop has larger ones
    crops = MultiTaskCrops(labelled, ("depth",), (WIDTH * 2, HEIGHT * 2))
    np.testing.assert_array_equal(crops[0, 0]["depth"][::2, ::2], 2 * _arrays(0, 7)["depth"][..., 0].astype(np.float32))
    for split in ("train", "val"):
        (tmp_path / split / "label").rename(tmp_path / split / "label_7")
    again = read_cityscapes(tmp_path, "train")
    maps = again.read_maps(_entries(again)[1], ("segmentation",))
    np.testing.assert_array_equal(maps["segmentation"], _arrays(2, 7)["label"])


def test_channels_may_come_first_and_images_be_whole_numbers(root: Path) -> None:
    expected = read_nyuv2(root, "val")
    for number in NUMBERS:
        arrays = _arrays(number, 13)
        folder = root / "train"
        np.save(folder / f"image/{number}.npy", np.rint(arrays["image"] * 255).astype(np.uint8).transpose(2, 0, 1))
        np.save(folder / f"label/{number}.npy", arrays["label"].astype(np.int64)[None])
        np.save(folder / f"depth/{number}.npy", arrays["depth"][..., 0])
        np.save(folder / f"normal/{number}.npy", arrays["normal"].transpose(2, 0, 1))
    labelled = read_nyuv2(root, "train")
    assert _entries(labelled) == _entries(expected)
    for entry in _entries(labelled):
        np.testing.assert_array_equal(labelled.regions.read_image(entry), expected.regions.read_image(entry))
        found, wanted = (each.read_maps(entry, list(each.maps)) for each in (labelled, expected))
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values)


def test_what_is_missing(root: Path) -> None:
    for path in (root / "train/normal").iterdir():
        path.unlink()
    (root / "train/normal").rmdir()
    (root / "train/depth/2.npy").unlink()
    labelled = read_nyuv2(root, "train")
    assert list(labelled.maps) == ["segmentation", "depth"]
    crops = MultiTaskCrops(labelled, list(labelled.maps), (WIDTH, HEIGHT))
    assert [bool(crops[0, index]["depth"].any()) for index in range(3)] == [True, False, True]
    assert all((crops[0, index]["segmentation"] >= 0).any() for index in range(3))
    np.testing.assert_array_equal(crops[0, 1]["image"], np.rint(_arrays(2, 13)["image"] * 255))


def test_by_name_and_in_another_process(root: Path) -> None:
    labelled = read_multitask_set("nyuv2", root, "train")
    crops = MultiTaskCrops(labelled, list(labelled.maps), (WIDTH, HEIGHT))
    copy = pickle.loads(pickle.dumps(crops))
    for key, value in crops[0, 1].items():
        np.testing.assert_array_equal(copy[0, 1][key], value)
    with pytest.raises(UserError, match="holds class 7, and there are 7, 0 to 6: give the bundle's own files"):
        _read_all(read_multitask_set("cityscapes", root, "train"))


def _read_all(labelled: MultiTaskSet) -> None:
    for entry in _entries(labelled):
        labelled.regions.read_image(entry)
        labelled.read_maps(entry, list(labelled.maps))


def _saved(path: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        np.save(root / path, change(np.load(root / path)))

    return write


def _filled(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def fill(array: np.ndarray) -> np.ndarray:
        array.flat[3] = value
        return array

    return fill


def _cut(path: str, length: int) -> Callable[[Path], None]:
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:length])


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda root: (root / "train/image/2.npy").unlink(), r"image/2\.npy: no such image, and .*label/2\.npy is there \(1 are"),
    (lambda root: [path.unlink() for path in (root / "train/image").iterdir()], r"image: holds no image: NYUv2's are 0\.npy"),
    (lambda root: (root / "train/image").rename(root / "train/pictures"), r"train/image: no such folder: give the one"),
    (_saved("train/image/2.npy", lambda a: a[..., :2]), r"image/2\.npy: the image is 6×8×2: give height × width × 3"),
    (_saved("train/image/2.npy", lambda a: a[:3]), r"image/2\.npy: the image is 3×8×3: give"),
    (_saved("train/image/2.npy", lambda a: a[0, 0, 0]), r"image/2\.npy: the image is a single number: give"),
    (_saved("train/image/2.npy", lambda a: 255 * a), r"image/2\.npy: an image from 3 to 254: give floats 0 to 1"),
    (_saved("train/image/2.npy", _filled(np.nan)), r"image/2\.npy: an image from nan to nan"),
    (_saved("train/image/2.npy", lambda a: a.astype(str)), r"image/2\.npy: the array is of <U"),
    (_saved("train/image/2.npy", lambda a: a.astype(object)), r"image/2\.npy: not a \.npy file of numbers"),
    (_cut("train/image/2.npy", 0), r"image/2\.npy: not a \.npy file of numbers: write it with numpy\.save"),
    (_cut("train/image/2.npy", 200), r"image/2\.npy: not a \.npy file of numbers"),
    (_saved("train/label/2.npy", lambda a: a[1:]), r"label/2\.npy: the map is 5×8 and is to be 6×8, height × width: give maps"),
    (_saved("train/label/2.npy", _filled(13)), r"label/2\.npy: holds class 13, and there are 13, 0 to 12: give the bundle's"),
    (_saved("train/label/2.npy", _filled(-2)), r"label/2\.npy: holds class -2"),
    (_saved("train/label/2.npy", _filled(1.5)), r"label/2\.npy: class 1\.5 is not a whole number"),
    (_saved("train/label/2.npy", _filled(np.nan)), r"label/2\.npy: holds nan: give -1"),
    (_saved("train/depth/2.npy", _filled(np.inf)), r"depth/2\.npy: holds inf"),
    (_saved("train/depth/2.npy", lambda a: a[0, 0, 0]), r"depth/2\.npy: the map is a single number and is to be 6×8"),
    (
        _saved("train/normal/2.npy", lambda a: a[..., :1]),
        r"normal/2\.npy: the map is 6×8×1 and is to be 6×8×3, height × width ×",
    ),
    (_saved("train/normal/2.npy", _filled(np.nan)), r"normal/2\.npy: holds nan"),
    (_cut("train/normal/2.npy", 300), r"normal/2\.npy: not a \.npy file"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_what_is_wrong_is_said_in_one_line(root: Path, change: Callable[[Path], object], message: str) -> None:
    change(root)
    with pytest.raises(UserError, match=message) as error:
        _read_all(read_nyuv2(root, "train"))
    assert "\n" not in str(error.value)


def test_a_split_that_is_not_there(root: Path) -> None:
    with pytest.raises(UserError, match="`split` is 'test': NYUv2 has train, val"):
        read_nyuv2(root, "test")


def test_what_is_not_above_0_is_no_depth(root: Path) -> None:
    _saved("train/depth/2.npy", _filled(-1))(root)
    labelled = read_nyuv2(root, "train")
    depth = labelled.read_maps(_entries(labelled)[1], ("depth",))["depth"]
    assert depth.flat[3] == depth[1, 2] == 0
    assert (depth > 0).sum() == depth.size - 2
