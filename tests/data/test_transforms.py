from __future__ import annotations

import numpy as np
import pytest

from rpgmt.data.transforms import (
    crop_affine,
    from_reduced,
    invert,
    seen_rows,
    shrink_factor,
    spare_reduction,
    transform_points,
    warp,
)

BOX = (13.0, 21.0, 30.0, 44.0)
CHANGES = [
    {},
    {"flip": True},
    {"scale": 1.4},
    {"rotation": 25.0},
    {"shift": (0.1, -0.2)},
    {"flip": True, "scale": 0.8, "rotation": -70.0, "shift": (-0.1, 0.15)},
]


def _edges(size: tuple[int, int]) -> np.ndarray:
    return np.array([[-0.5, -0.5], [size[0] - 0.5, -0.5], [-0.5, size[1] - 0.5], [size[0] - 0.5, size[1] - 0.5]])


def _centroid(image: np.ndarray) -> np.ndarray:
    weight = image.astype(float)
    y, x = np.indices(weight.shape)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    affine = crop_affine((0, 0, 32, 24), (32, 24), padding=1)
    np.testing.assert_allclose(affine, [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    assert (warp(image, affine, (32, 24)) == image).all()


def test_the_edges_of_the_padded_box_are_the_edges_of_the_crop() -> None:
    # 44 high at aspect 3:4 is 33 wide, times 1.25 is 41.25 × 55, round the box's centre (27.5, 42.5).
    affine = crop_affine(BOX, (48, 64))
    box = np.array([[27.5, 42.5]]) + np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) * [41.25 / 2, 55 / 2]
    np.testing.assert_allclose(transform_points(affine, box), _edges((48, 64)), atol=1e-12)


def test_a_wide_box_is_grown_in_height() -> None:
    affine = crop_affine((0, 0, 100, 10), (50, 50), padding=1)
    np.testing.assert_allclose(transform_points(affine, np.array([[-0.5, 4.5]])), [[-0.5, 24.5]], atol=1e-12)
    assert affine[1, 1] == pytest.approx(0.5)


def test_a_positive_rotation_is_clockwise_on_the_screen() -> None:
    affine = crop_affine((0, 0, 21, 21), (21, 21), padding=1, rotation=90)
    # From the centre (10, 10): one pixel to the right becomes one pixel down.
    np.testing.assert_allclose(transform_points(affine, np.array([[11.0, 10.0]])), [[10, 11]], atol=1e-12)


def test_scale_makes_the_person_larger_and_shift_moves_the_crop() -> None:
    size = (48, 64)
    larger = crop_affine(BOX, size, scale=1.5)
    assert larger[0, 0] == pytest.approx(1.5 * crop_affine(BOX, size)[0, 0])
    shifted = transform_points(crop_affine(BOX, size, shift=(0.25, -0.5)), np.array([[27.5, 42.5]]))
    np.testing.assert_allclose(shifted, [[23.5 - 12, 31.5 + 32]])


@pytest.mark.parametrize("changes", CHANGES)
def test_flipping_mirrors_the_crop_exactly(changes: dict) -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), dtype=np.uint8)
    plain = warp(image, crop_affine(BOX, (48, 64), **{**changes, "flip": False}), (48, 64))
    flipped = warp(image, crop_affine(BOX, (48, 64), **{**changes, "flip": True}), (48, 64))
    assert np.abs(flipped[:, ::-1].astype(int) - plain).max() <= 2  # the interpolation rounds to 1/32 pixel


@pytest.mark.parametrize("changes", CHANGES)
def test_there_and_back_is_the_identity(changes: dict) -> None:
    points = np.random.default_rng(0).uniform(-50, 150, (9, 2))
    affine = crop_affine(BOX, (48, 64), **changes)
    np.testing.assert_allclose(transform_points(invert(affine), transform_points(affine, points)), points, atol=1e-10)


def test_the_inverse_is_that_of_the_general_solver() -> None:
    rng = np.random.default_rng(0)
    for affine in rng.normal(0, 20, (50, 2, 3)):
        expected = np.linalg.inv(np.vstack([affine, [0, 0, 1]]))[:2]
        np.testing.assert_allclose(invert(affine), expected, rtol=1e-9, atol=1e-9)


def test_a_reduced_image_has_its_own_affine() -> None:
    affine = crop_affine(BOX, (48, 64), rotation=20, flip=True)
    points = np.random.default_rng(0).uniform(0, 60, (9, 2))
    for s in (1, 2, 4, 8):
        found = transform_points(from_reduced(affine, s), (points + 0.5) / s - 0.5)
        np.testing.assert_allclose(found, transform_points(affine, points), atol=1e-10)


def test_rows_below_those_that_are_seen_change_nothing() -> None:
    """At any size of the person, upright or turned, and with the image reduced as far as it may be."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (480, 120, 3), dtype=np.uint8)
    spared, slack = 0, []
    for _ in range(150):
        shrink = np.exp(rng.uniform(-2, 3.7))
        w, h = 24 * shrink / 1.25, 32 * shrink / 1.25
        box = (rng.uniform(-w, 120), rng.uniform(-h, 300), w, h)
        affine = crop_affine(box, (24, 32), rotation=rng.uniform(-180, 180), flip=bool(rng.integers(2)))
        rows = seen_rows(invert(affine), (24, 32))
        s = spare_reduction(affine)
        reduced = image.reshape(480 // s, s, 120 // s, s, 3).mean((1, 3)).astype(np.uint8)
        kept = min(max(1, -(-rows // s)), len(reduced))
        expected = warp(reduced, from_reduced(affine, s), (24, 32))
        np.testing.assert_array_equal(warp(reduced[:kept], from_reduced(affine, s), (24, 32)), expected)
        spared += kept < len(reduced)
        corners = transform_points(invert(affine), _edges((24, 32)))
        slack.append((rows - corners[:, 1].max()) / max(1, shrink_factor(affine)))
    assert spared > 50
    assert max(slack) < 6  # rows of the crop, or pixels where it is larger than the image


def test_points_take_batches_of_affines() -> None:
    affines = np.stack([crop_affine(BOX, (48, 64), **changes) for changes in CHANGES])
    points = np.random.default_rng(0).uniform(0, 60, (len(CHANGES), 17, 2))
    batched = transform_points(affines, points)
    for affine, some, result in zip(affines, points, batched, strict=True):
        for (x, y), found in zip(some, result, strict=True):
            np.testing.assert_allclose(affine @ [x, y, 1], found, atol=1e-10)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("size", [(240, 320), (48, 64), (24, 32), (12, 16)])
def test_a_bright_pixel_lands_where_the_point_lands(size: tuple[int, int], changes: dict) -> None:
    """Image and points alike, forward and back: magnified, and minified by bilinear samples and by averaged blocks."""
    affine = crop_affine(BOX, size, **changes)
    for there, shape, target, first in [
        (affine, (90, 80), size, (23, 38)),
        (invert(affine), size[::-1], (80, 90), None),
    ]:
        first = first or (size[0] // 2 - 3, size[1] // 2 - 3)
        errors = []
        for x, y in [(first[0] + i, first[1] + j) for i, j in np.ndindex(6, 6)]:
            image = np.zeros(shape, dtype=np.uint8)
            image[y, x] = 255
            errors.append(_centroid(warp(image, there, target)) - transform_points(there, np.array([[x, y]]))[0])
        magnification = np.sqrt(abs(np.linalg.det(there[:, :2])))
        # A pixel that shrinks is seen by the few samples near it, which know its place to about half of their distance.
        assert np.abs(errors).max() < (0.05 * magnification if magnification > 2 else 0.7)
        assert np.abs(np.mean(errors, axis=0)).max() < 0.1


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("offset", [(0, 0), (1, 2)])
def test_an_integer_shrink_is_the_mean_of_blocks(factor: int, offset: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    x, y = offset[0] * factor, offset[1] * factor
    width, height = 30 // factor, 30 // factor
    affine = crop_affine((x, y, width * factor, height * factor), (width, height), padding=1)
    part = image[y : y + height * factor, x : x + width * factor].astype(float)
    means = part.reshape(height, factor, width, factor, 3).mean((1, 3))
    assert np.abs(warp(image, affine, (width, height)) - means).max() <= 1


@pytest.mark.parametrize("rotation", [0.0, 33.0])
def test_a_strong_shrink_does_not_alias(rotation: float) -> None:
    """Stripes of one pixel at a tenth of their size are grey; a bilinear sample alone gives black and white."""
    image = np.zeros((600, 600), dtype=np.uint8)
    image[:, ::2] = 255
    crop = warp(image, crop_affine((150, 150, 300, 300), (30, 30), padding=1, rotation=rotation), (30, 30))
    assert np.abs(crop.astype(float) - 127.5).max() < 20


@pytest.mark.parametrize("size", [(64, 64), (9, 9)])
def test_outside_the_image_is_black(size: tuple[int, int]) -> None:
    image = np.full((41, 37, 3), 200, dtype=np.uint8)
    crop = warp(image, crop_affine((0, 0, 37, 41), size, padding=3), size)
    third = size[0] // 3
    assert (crop[: third - 1] == 0).all()
    assert (crop[-third + 1 :] == 0).all()
    assert (crop[size[0] // 2, size[0] // 2] == 200).all()


@pytest.mark.parametrize("box", [(-500, -500, 200, 200), (900, 20, 300, 300)])
def test_a_crop_beside_the_image_is_black(box: tuple[int, int, int, int]) -> None:
    image = np.full((50, 60, 3), 200, dtype=np.uint8)
    assert not warp(image, crop_affine(box, (32, 32)), (32, 32)).any()
