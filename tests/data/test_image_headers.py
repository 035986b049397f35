"""Sizes from headers, pictures turned by their camera, and files that are no pictures."""

from __future__ import annotations

import contextlib
import io
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps

from rpgmt.data.check.examination import examine
from rpgmt.data.coco.people import CocoPeople
from rpgmt.data.dense.folders import read_folders
from rpgmt.data.image_classification import ImageFiles
from rpgmt.data.image_headers import MAX_PIXELS, image_size, size_of_bytes, stored_header, upright
from rpgmt.data.images import decode_image, read_image_file
from rpgmt.data.multitask_crops import MultiTaskCrops
from rpgmt.data.sets.image_classes import read_folder
from rpgmt.errors import UserError
from rpgmt.prediction.source import SourceImage

WIDTH, HEIGHT = 48, 32
FORMS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "progressive": {"format": "JPEG", "progressive": True, "quality": 95},
    "grey JPEG": {"format": "JPEG", "mode": "L"},
    "PNG": {},
    "palette": {"format": "PNG", "mode": "P"},
    "WEBP": {"lossless": True},
    "lossy WEBP": {"format": "WEBP", "quality": 95},
    "BMP": {},
    "TIFF": {},
}


def _scene() -> np.ndarray:
    """No turn of it is like another."""
    return cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8), (WIDTH, HEIGHT))


@cache
def _file(form: str, orientation: int | None) -> bytes:
    """A picture as a camera writes it that notes how it was held; `_scene` as it lies in the file."""
    options = {"format": form, "mode": "RGB", **FORMS[form]}
    exif, out = Image.Exif(), io.BytesIO()
    if orientation is not None:
        exif[0x0112] = orientation
        options["exif"] = exif
    Image.fromarray(_scene()).convert(options.pop("mode")).save(out, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_pictures_are_read_upright(form: str) -> None:
    """As Pillow turns them, and so viewers; of a size that turns with them."""
    for orientation in (None, *range(1, 9)) if form != "BMP" else (None,):
        data = _file(form, orientation)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        size = size_of_bytes(data, form)
        assert size == expected.shape[1::-1]
        found = decode_image(data, *size).astype(int)
        assert np.abs(found - expected).mean() < 3
        if orientation and orientation > 4 and form != "TIFF":  # as annotated by a tool that did not turn it
            stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
            assert np.abs(decode_image(data, WIDTH, HEIGHT) - stored).mean() < 3
        reduced = decode_image(data, *size, 4)
        assert size_of_bytes(data, form) in [(reduced.shape[1] * s, reduced.shape[0] * s) for s in (1, 4)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_upright_picture_by_its_first_row_and_column(orientation: int) -> None:
    """CIPA DC-008, 4.6.5.1.6: where row 0 and column 0 of the file are to be seen."""
    sides = ["top left", "top right", "bottom right", "bottom left", "left top", "right top", "right bottom", "left bottom"]
    row, column = sides[orientation - 1].split()
    image = np.zeros((4, 6), int)
    image[0], image[:, 0], image[0, 0] = 1, 2, 3
    seen = upright(image, orientation)
    edges = {"top": seen[0], "bottom": seen[-1], "left": seen[:, 0], "right": seen[:, -1]}
    assert set(edges[row].tolist()) == {1, 3}
    assert set(edges[column].tolist()) == {2, 3}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_fit_their_labels_in_every_kind_of_set(orientation: int, tmp_path: Path) -> None:
    """A mask, a box and key points of the picture as it is seen; the mask's own file may be turned, too."""
    data = _file("JPEG", orientation)
    seen = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    height, width, _ = seen.shape
    _write(tmp_path / "images/train/a.jpg", data)
    mask = (seen[..., 0] > 127).astype(np.uint8)
    noted, stored = Image.Exif(), Image.fromarray((_scene()[..., 0] > 127).astype(np.uint8))
    noted[0x0112] = orientation
    for folder, image, options in (("masks", Image.fromarray(mask), {}), ("noted", stored, {"exif": noted})):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / "a.png", **options)
    maps = {name: {"folder": name, "kind": "classes", "classes": ["dark", "light"]} for name in ("masks", "noted")}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump({"images": "images/{split}", "maps": maps}))
    sample = MultiTaskCrops(read_folders(tmp_path / "dataset.yaml", "train"), ("masks", "noted"), (width, height))[0, 0]
    assert np.abs(sample["image"] - seen).mean() < 1
    np.testing.assert_array_equal(sample["masks"], mask)
    assert (sample["noted"] == mask).mean() > 0.97  # but where JPEG made a pixel darker

    points = {"keypoints": [10, 5, 2], "num_keypoints": 1, "bbox": [0, 0, width, height], "area": 1, "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **points}],
        "categories": [{"id": 1, "name": "dot", "keypoints": ["dot"], "sigmas": [0.1], "flip_pairs": []}],
    }
    people = CocoPeople.from_document(document, tmp_path / "images/train", name="dots")
    assert np.abs(people.read_image(people.people[0].image) - seen).mean() < 1
    assert np.abs(SourceImage.open(tmp_path / "images/train/a.jpg").pixels - seen).mean() < 1

    for name in ("bright", "dull"):
        _write(tmp_path / "classes/train" / name / "a.jpg", data)
    whole = ImageFiles(read_folder(tmp_path / "classes", "train"), (width, height))
    cut = seen[height // 16 : height - height // 16, width // 16 : width - width // 16].astype(np.uint8)
    expected = cv2.resize(cut, (width, height))
    assert np.abs(whole.picture(0).astype(int) - expected).mean() < 1


def test_a_header_of_any_bytes_is_a_size_or_one_line_that_names_the_file() -> None:
    chance, outcomes = random.Random(0), []
    for _ in range(400):
        form = chance.choice([form for form in FORMS if form != "TIFF"])
        data = bytearray(_file(form, chance.choice([1, 6]) if form != "BMP" else None))
        for _change in range(chance.randint(1, 3)):
            place = chance.randrange(min(len(data), 300))
            if chance.random() < 0.2:
                del data[chance.randrange(2, len(data)) :]
            else:
                data[place : place + chance.randint(0, 1)] = bytes(chance.randrange(256) for _ in range(chance.randint(0, 3)))
        try:
            width, height = size_of_bytes(bytes(data), "a.img")
            assert decode_image(bytes(data), width, height, name="a.img").shape == (height, width, 3)
            outcomes.append("")
        except UserError as error:
            outcomes.append(str(error))
    assert 100 < outcomes.count("") < 300
    assert all(text.startswith("a.img: ") and "\n" not in text for text in outcomes if text)


def _png_header(width: int, height: int) -> bytes:
    """Of a grey picture; its few bytes are never as many pixels."""
    out = io.BytesIO()
    Image.new("1", (8, 8)).save(out, "PNG")
    data = bytearray(out.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("size", [(20_000, 20_000), (40_000, 40_000), (2**31 - 1, 2**31 - 1), (2**28 + 1, 1)])
def test_huge_images_are_refused_by_their_header(size: tuple[int, int], tmp_path: Path) -> None:
    text = f"{size[0]}×{size[1]}, more than the 268,435,456 pixels that are read: make it smaller"
    for name in ("set/images/train/a.png", "set/train/a/a.png", "set/train/b/a.png"):
        _write(tmp_path / name, _png_header(*size))
    (tmp_path / "set/dataset.yaml").write_text("images: images/{split}")
    file = tmp_path / "set/images/train/a.png"
    readings = [
        lambda: image_size(file),
        lambda: read_image_file(file, *size),
        lambda: read_folders(tmp_path / "set/dataset.yaml", "train"),
        lambda: ImageFiles(read_folder(tmp_path / "set", "train"), (32, 32))[0, 0],
        lambda: SourceImage.open(file),
    ]
    for read in readings:
        with pytest.raises(UserError, match=text) as error:
            read()
        assert "a.png" in str(error.value)
    assert stored_header(io.BytesIO(_png_header(16_384, 16_384))) == (16_384, 16_384, 1)
    assert MAX_PIXELS == 16_384**2


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "nowhere.png").symlink_to("missing")
    for name, what in (("pipe", "a pipe"), ("folder", "a folder"), ("endless", "a device"), ("nowhere", "No such file")):
        path = tmp_path / f"{name}.png"
        for read in (image_size, SourceImage.open, lambda file: read_image_file(file, 8, 8)):
            with pytest.raises(UserError, match=rf"{name}\.png: the image cannot be read: .*{what}"):
                read(path)
    for split in ("train", "val"):
        for name in ("a", "b"):
            _write(tmp_path / "set" / split / name / "0.png", _file("PNG", None))
    os.mkfifo(tmp_path / "set/train/a/1.png")
    refused = examine(tmp_path / "set", progress=False).findings.refused
    assert [finding.title for finding in refused] == ["images that are missing or cannot be read"]


BROKEN = {
    "JPEG": "remature end",
    "progressive": "",  # the break may lie in a header of its many scans
    "grey JPEG": "remature end",
    "PNG": "it ends too early",
    "BMP": "it ends too early",
}


@pytest.mark.parametrize("form", BROKEN)
def test_broken_files_are_refused_by_name_and_no_library_speaks(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A part of a file, with an end and without: where only rows are asked for that are there, they are those of the whole."""
    whole = _file(form, None)
    start, first = max(0, whole.find(b"\xff\xda")), decode_image(whole, WIDTH, HEIGHT, 1, 8)[:8]
    for part in (0.5, 0.6, 0.8):
        for end in (b"",) if form == "progressive" else (b"", b"\xff\xd9"):  # which may lack whole scans: it is coarser
            data = whole[: int(start + part * (len(whole) - start))] + end
            with pytest.raises(UserError, match=rf"^a\.x: the file is broken \(.*({BROKEN[form]})"):
                decode_image(data, WIDTH, HEIGHT, name="a.x")
            with contextlib.suppress(UserError):
                np.testing.assert_array_equal(decode_image(data, WIDTH, HEIGHT, 1, 8)[:8], first)
    assert capfd.readouterr().err == ""
    odd = whole[:-2] + b"some" + whole[-2:] if "JPEG" in form else whole + b"some"
    np.testing.assert_array_equal(decode_image(odd, WIDTH, HEIGHT), decode_image(whole, WIDTH, HEIGHT))
    assert capfd.readouterr().err == ""


def test_a_wrong_checksum_is_found(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(_file("PNG", None))
    data[len(data) // 2] ^= 1
    with pytest.raises(UserError, match=r"^a\.png: the file is broken \(a checksum of its IDAT is wrong\)"):
        decode_image(bytes(data), WIDTH, HEIGHT, name="a.png")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("rows", [None, 200])
def test_a_jpeg_that_goes_on_in_one_colour_is_broken_where_that_is_seen(rows: int | None) -> None:
    """Its rows after the break are asked for, and not the last ones; a picture with a border of one colour is whole."""
    scene = cv2.resize(_scene(), (320, 320))
    scene[150:] = 90
    whole = cv2.imencode(".jpg", scene)[1].tobytes()
    assert len(decode_image(whole, 320, 320, 1, rows)) >= 200
    scan = whole.index(b"\xff\xda")
    with pytest.raises(UserError, match="the file is broken"):
        decode_image(whole[: scan + (len(whole) - scan) // 3] + b"\xff\xd9", 320, 320, 1, rows)
