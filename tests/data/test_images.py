from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rpgmt.data.images import decode_image, normalize, read_image_file
from rpgmt.errors import UserError


def _blob(width: int, height: int, x: float, y: float, sigma: float = 7.0) -> np.ndarray:
    rows, columns = np.indices((height, width))
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=2)


def _jpeg(image: np.ndarray, orientation: int | None = None) -> bytes:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    if orientation is None:
        return data
    # A TIFF header and one entry: tag 0x0112, of type short, once.
    exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation]) + bytes(6)
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


def _centroid(image: np.ndarray) -> np.ndarray:
    weight = image.sum(2).astype(float)
    weight[weight < 30] = 0  # what the encoding left round the blob
    y, x = np.indices(weight.shape)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def _reduction(array: np.ndarray, width: int, height: int) -> int:
    return next(s for s in (1, 2, 4, 8) if array.shape == (-(-height // s), -(-width // s), 3))


@pytest.mark.parametrize("s", [1, 2, 4, 8])
@pytest.mark.parametrize(("width", "height"), [(160, 128), (157, 131), (154, 137), (161, 129)])
@pytest.mark.parametrize(("x", "y"), [(60.0, 50.0), (85.3, 71.6), (101.5, 90.5)])
def test_a_point_of_a_reduced_jpeg_lies_where_the_half_pixel_formula_says(
    s: int, width: int, height: int, x: float, y: float
) -> None:
    image = decode_image(_jpeg(_blob(width, height, x, y)), width, height, s)
    assert _reduction(image, width, height) == s
    np.testing.assert_allclose(_centroid(image), (np.array([x, y]) + 0.5) / s - 0.5, atol=0.03)


@pytest.mark.parametrize("s", [2, 4, 8])
def test_a_probe_of_one_block_is_one_pixel(s: int) -> None:
    """Blocks start at the first pixel of the image, whatever is left over at its other end."""
    for column, row in [(0, 0), (3, 2), (5, 7), (103 // s - 1, 85 // s - 1)]:
        image = np.zeros((85, 103, 3), dtype=np.uint8)
        image[row * s : (row + 1) * s, column * s : (column + 1) * s] = 255
        found = decode_image(_jpeg(image), 103, 85, s).sum(2)
        assert np.unravel_index(found.argmax(), found.shape) == (row, column)
        assert found[row, column] > 0.9 * 3 * 255
        assert np.median(found) < 10


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(160, 128), (157, 131), (164, 130)])
def test_a_turned_picture_keeps_its_points_at_every_reduction(orientation: int, width: int, height: int) -> None:
    """Blocks that stick out at the right lie at the left once the picture is turned: then less is reduced, or nothing."""
    data = _jpeg(_blob(width, height, 60.0, 50.0), orientation)
    full = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    turned = full.shape[1::-1]
    assert turned == ((height, width) if orientation > 4 else (width, height))
    for reduction in (1, 2, 4, 8):
        image = decode_image(data, *turned, reduction)
        s = _reduction(image, *turned)
        assert s <= reduction
        assert s == reduction or width % reduction or height % reduction
        np.testing.assert_allclose(_centroid(image), (_centroid(full) + 0.5) / s - 0.5, atol=0.04)


@pytest.mark.parametrize("reduction", [1, 4])
def test_annotations_of_the_picture_that_was_not_turned_are_obeyed(reduction: int) -> None:
    image = decode_image(_jpeg(_blob(160, 128, 60.0, 50.0), 6), 160, 128, reduction)
    np.testing.assert_allclose(_centroid(image), (np.array([60.0, 50.0]) + 0.5) / reduction - 0.5, atol=0.03)


def test_colours_are_red_green_blue_and_grey_files_have_three(tmp_path: Path) -> None:
    image = np.zeros((16, 24, 3), dtype=np.uint8)
    image[..., 0] = 200
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    for reduction in (1, 8):
        np.testing.assert_array_equal(read_image_file(tmp_path / "a.png", 24, 16, reduction), image)
        assert decode_image(_jpeg(image[..., ::-1]), 24, 16, reduction)[0, 0].tolist() == pytest.approx([200, 0, 0], abs=3)
    cv2.imwrite(str(tmp_path / "grey.jpg"), image[..., 0])
    assert (read_image_file(tmp_path / "grey.jpg", 24, 16, 2) == np.full((8, 12, 3), 200)).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a.jpg: the image cannot be read: No such file"),
        (b"", "a.jpg: not an image that OpenCV can read"),
        (b"text", "a.jpg: not an image that OpenCV can read"),
        (_jpeg(np.zeros((40, 24, 3), np.uint8)), "a.jpg: the image is 24×40 and its annotations are for 24×16"),
    ],
)
@pytest.mark.parametrize("reduction", [1, 8])
def test_what_is_wrong_with_a_file_is_one_line(content: bytes | None, message: str, reduction: int, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_image_file(tmp_path / "a.jpg", 24, 16, reduction)
    assert "\n" not in str(raised.value)


_SAMPLINGS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
}


def _scene(width: int = 157, height: int = 131) -> np.ndarray:
    """Smooth, of strong colours."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 10, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def _encode(image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1].tobytes()


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("sampling", [*_SAMPLINGS, "grey"])
def test_the_first_rows_are_those_of_the_whole_image(sampling: str, reduction: int, capfd: pytest.CaptureFixture[str]) -> None:
    if sampling == "grey":
        data = _encode(_scene()[..., 0])
    else:
        data = _encode(_scene(), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLINGS[sampling])
    whole = decode_image(data, 157, 131, reduction)
    assert _reduction(whole, 157, 131) == reduction
    for rows in (1, 8, 9, 16, 17, 40, 90, 130, 131):
        part = decode_image(data, 157, 131, reduction, rows)
        assert -(-rows // reduction) <= len(part) <= min(-(-131 // reduction), rows // reduction + 16)
        np.testing.assert_array_equal(part, whole[: len(part)])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("sampling", list(_SAMPLINGS))
def test_a_jpeg_is_that_of_the_accurate_decode_but_for_its_hues(sampling: str, reduction: int) -> None:
    data = _encode(_scene(640, 480), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLINGS[sampling])
    flags = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
    accurate = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | flags[reduction]).astype(int)
    difference = decode_image(data, 640, 480, reduction) - accurate
    assert np.abs(difference @ [0.299, 0.587, 0.114]).mean() < 0.4  # roundings, and hues that go beyond black or white
    if reduction == 1:
        assert np.abs(difference).mean() < 1
    if sampling == "4:4:4":
        assert not difference.any()


@pytest.mark.parametrize(
    "options", [(cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 3)], ids=["progressive", "restarts"]
)
def test_files_whose_rows_cannot_be_cut_stay_whole(options: tuple[int, int]) -> None:
    """Their scans run over the image more than once, or have markers between the rows."""
    image = _scene()
    found = decode_image(_encode(image, *options), 157, 131, 1, 20)
    assert found.shape == (131, 157, 3)
    assert np.abs(found.astype(int) - image[..., ::-1]).mean() < 4


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_picture_that_may_be_turned_stays_whole(orientation: int) -> None:
    width, height = (128, 160) if orientation > 4 else (160, 128)
    data = _jpeg(_blob(160, 128, 60.0, 50.0), orientation)
    np.testing.assert_array_equal(decode_image(data, width, height, 1, 20), decode_image(data, width, height))


def test_a_file_that_ends_too_early_is_an_error_even_if_its_first_rows_are_there() -> None:
    data = _encode(_scene())
    with pytest.raises(UserError, match=r"image: the file is broken \(Premature end of JPEG file\): give a whole copy of it"):
        decode_image(data[: len(data) // 2], 157, 131, 1, 20)


@pytest.mark.parametrize("end", [2, 4, 20, 160, 400])
def test_a_header_that_breaks_off_is_no_image(end: int) -> None:
    with pytest.raises(UserError, match="not an image that OpenCV can read"):
        decode_image(_encode(_scene())[:end], 157, 131, 1, 20)


def test_every_byte_of_a_header_may_be_wrong() -> None:
    """The right size or one line, whatever the header says."""
    data = _encode(_scene(40, 24))
    for place in range(2, data.index(b"\xff\xda") + 10):
        for value in (0, 1, 0x22, 0xFF):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            try:
                assert decode_image(changed, 40, 24, 1, 9).shape in [(16, 40, 3), (24, 40, 3)]
            except UserError as error:
                lines = str(error).splitlines()
            else:
                lines = [""]
            assert len(lines) == 1


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 200), (200, 3), (7, 7), (8, 8), (9, 9)])
def test_tiny_images_are_reduced_as_they_are_asked_for(width: int, height: int) -> None:
    data = _encode(np.full((height, width, 3), 77, dtype=np.uint8))
    for reduction in (1, 2, 4, 8):
        found = decode_image(data, width, height, reduction, 1)
        assert found.shape[1] == -(-width // reduction)
        assert len(found) <= -(-height // reduction)


def test_normalized_images_are_the_formula_bit_for_bit() -> None:
    pixels = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, deviation = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    found = normalize(pixels)
    assert torch.equal(found, ((pixels - mean) / deviation).permute(0, 3, 1, 2))
    assert found.is_contiguous(memory_format=torch.channels_last)
