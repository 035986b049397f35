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


def test_normalized_images_are_the_formula_bit_for_bit() -> None:
    pixels = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, deviation = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    found = normalize(pixels)
    assert torch.equal(found, ((pixels - mean) / deviation).permute(0, 3, 1, 2))
    assert found.is_contiguous(memory_format=torch.channels_last)
